package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"gatelodge/cmd/internal/admin"
)

// acmeCommand shows how the running process speaks with its CAs, and is the operator's hand in the negotiation.
func acmeCommand() *cobra.Command {
	var proc running
	var asJSON bool
	cmd := &cobra.Command{Use: "acme", Short: "Show how the running process speaks with its CAs: protocol, evidence, account, limits"}
	proc.flags(cmd)
	cmd.PersistentFlags().BoolVar(&asJSON, "json", false, "print JSON")

	show := func(cmd *cobra.Command, cas ...admin.CAStatus) error {
		if asJSON {
			return admin.WriteJSON(cmd.OutOrStdout(), cas)
		}
		for i, ca := range cas {
			if i > 0 {
				fmt.Fprintln(cmd.OutOrStdout())
			}
			if err := admin.WriteCA(cmd.OutOrStdout(), ca, time.Now()); err != nil {
				return err
			}
		}
		return nil
	}
	status := &cobra.Command{
		Use:   "status",
		Short: "Version, evidence, next probe and account of each CA",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := proc.client(cmd)
			if err != nil {
				return err
			}
			all, err := client.CAs(cmd.Context())
			if err != nil {
				return err
			}
			return show(cmd, all...)
		},
	}
	look := func(use, short string, do func(*admin.Client, context.Context, string) (admin.CAStatus, error)) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				client, err := proc.client(cmd)
				if err != nil {
					return err
				}
				ca, err := do(client, cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return show(cmd, ca)
			},
		}
	}
	cmd.AddCommand(status,
		look("probe CA", "Look at a CA's directories now; one on ACME v1 moves up to v2 if it is offered", (*admin.Client).Probe),
		look("reset CA", "Forget, for the whole fleet, which protocol was negotiated: the way back after a suspected downgrade", (*admin.Client).Reset),
		look("rollkey CA", "Give the account at a CA another key; certificates and orders stay", (*admin.Client).RollKey))
	return cmd
}
