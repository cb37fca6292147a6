package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"gatelodge/cmd/internal/admin"
	"gatelodge/cmd/internal/config"
)

// running finds the process that a command is for: by the configuration it runs with, or by its admin socket.
type running struct{ file, socket string }

func (r *running) flags(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVarP(&r.file, "config", "c", "", "configuration `FILE` that the process runs with")
	cmd.PersistentFlags().StringVar(&r.socket, "admin", "", "its admin `SOCKET`, e.g. unix:///run/gatelodge/admin.sock (default: this user's)")
	cmd.MarkFlagsMutuallyExclusive("config", "admin")
}

func (r *running) client(cmd *cobra.Command) (*admin.Client, error) {
	socket := r.socket
	if socket == "" {
		cfg := config.Default()
		if r.file != "" {
			var err error
			if cfg, err = config.Load(r.file); err != nil {
				return nil, report(cmd.ErrOrStderr(), err)
			}
		}
		if socket = cfg.Admin.Listen; socket == "" {
			return nil, fmt.Errorf("the process has no admin socket: set admin.listen")
		}
	}
	return admin.NewClient(socket)
}

// withFile is client, and the file as the process can find it; empty if none was given.
func (r *running) withFile(cmd *cobra.Command) (client *admin.Client, file string, err error) {
	if client, err = r.client(cmd); err == nil && r.file != "" {
		file, err = filepath.Abs(r.file)
	}
	return client, file, err
}

func reloadCommand() *cobra.Command {
	var proc running
	cmd := &cobra.Command{
		Use:   "reload [-c FILE]",
		Short: "Make the running process read its configuration again, from the file that it was started with; says what is wrong if the old one stays",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// With -c a broken file is refused here already; by --admin the process refuses it, with the same words.
			client, file, err := proc.withFile(cmd)
			if err != nil {
				return err
			}
			done, err := client.Reload(cmd.Context(), file)
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), "reloaded", cmp.Or(done.File, "the flags of gatelodge run, there is no file"))
			}
			return err
		},
	}
	proc.flags(cmd)
	return cmd
}

func upgradeCommand() *cobra.Command {
	var proc running
	cmd := &cobra.Command{
		Use:   "upgrade [-c FILE]",
		Short: "Make the running process hand over to its binary as it is now, without losing a connection; says why if it goes on itself",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, file, err := proc.withFile(cmd)
			if err != nil {
				return err
			}
			next, err := client.Upgrade(cmd.Context(), file)
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "process %d serves now\n", next.Pid)
			}
			return err
		},
	}
	proc.flags(cmd)
	return cmd
}

func upstreamsCommand() *cobra.Command {
	var proc running
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "upstreams",
		Short: "Show the targets that get the requests: state, what they have now, last error",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := proc.client(cmd)
			if err != nil {
				return err
			}
			all, err := client.Upstreams(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return admin.WriteJSON(cmd.OutOrStdout(), all)
			}
			return admin.WriteUpstreams(cmd.OutOrStdout(), all, time.Now())
		},
	}
	proc.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// revocationReasons are those that subscribers may give (RFC 5280 §5.3.1; the others are the CA's business).
func revocationReasons() map[string]int {
	return map[string]int{"unspecified": 0, "superseded": 4, "cessationOfOperation": 5}
}

func revokeCommand(proc *running) *cobra.Command {
	var reason string
	var compromised bool
	cmd := &cobra.Command{
		Use:   "revoke NAME [--reason REASON | --compromised]",
		Short: "Revoke a certificate and obtain another, if the name is still configured or permitted",
		Long: "Revoke a certificate and obtain another, if the name is still configured or permitted. With --compromised its key is known to others: the\n" +
			"certificate is replaced first, then revoked for that reason, and the key is never used again.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			code, ok := revocationReasons()[reason]
			if !ok {
				return fmt.Errorf("--reason is unspecified, superseded or cessationOfOperation, not %q; for a key that others know there is --compromised", reason)
			}
			client, err := proc.client(cmd)
			if err != nil {
				return err
			}
			err = client.Revoke(cmd.Context(), args[0], admin.Revocation{Reason: code, Compromised: compromised})
			if errors.Is(err, admin.ErrGoesOn) {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: begun; %v\n", args[0], err)
				return nil
			}
			return err
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "unspecified", "`REASON`: unspecified, superseded or cessationOfOperation")
	cmd.Flags().BoolVar(&compromised, "compromised", false, "the private key is known to others")
	cmd.MarkFlagsMutuallyExclusive("reason", "compromised")
	return cmd
}
