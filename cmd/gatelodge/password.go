package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"gatelodge/proxy/policy"
)

func passwordCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "password NAME",
		Short: "Print NAME:HASH for auth.users and users files; the password is read from the terminal or the first line of stdin",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.ContainsAny(args[0], ":\r\n") {
				return errors.New("a name has no colon in it")
			}
			password, err := readPassword(cmd)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s:%s\n", args[0], policy.HashPassword(password))
			return nil
		},
	}
}

// readPassword takes a line, which a terminal does not show.
func readPassword(cmd *cobra.Command) (string, error) {
	if f, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(cmd.ErrOrStderr(), "password: ")
		line, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
		return string(line), err
	}
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", errors.Join(errors.New("there is no password on stdin"), err)
	}
	return line, nil
}
