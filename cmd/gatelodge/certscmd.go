package main

import (
	"bufio"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"gatelodge/cmd/internal/admin"
)

func certsCommand() *cobra.Command {
	var proc running
	var asJSON bool
	cmd := &cobra.Command{Use: "certs", Short: "Show the certificates of the running process"}
	proc.flags(cmd)
	for _, c := range []*cobra.Command{listCommand(&proc, &asJSON), showCommand(&proc, &asJSON), explainCommand(&proc, &asJSON), retryCommand(&proc, &asJSON)} {
		c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
		cmd.AddCommand(c)
	}
	cmd.AddCommand(revokeCommand(&proc))
	return cmd
}

func listCommand(proc *running, asJSON *bool) *cobra.Command {
	var failing bool
	cmd := &cobra.Command{
		Use:   "list [--failing]",
		Short: "One line for each certificate",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := proc.client(cmd)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(cmd.OutOrStdout())
			if *asJSON {
				err = admin.WriteJSONList(out, client.Certs(cmd.Context(), failing))
			} else {
				err = admin.WriteTable(out, client.Certs(cmd.Context(), failing), time.Now())
			}
			return errors.Join(err, out.Flush())
		},
	}
	cmd.Flags().BoolVar(&failing, "failing", false, "only names that have no certificate though they should, or are not renewed")
	return cmd
}

func showCommand(proc *running, asJSON *bool) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "All that is known of one: state, CA, challenge, dates, queue, budget, last error and what to do, next attempt",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			one, err := proc.cert(cmd, args[0])
			if err != nil {
				return err
			}
			if *asJSON {
				return admin.WriteJSON(cmd.OutOrStdout(), one)
			}
			return admin.WriteStatus(cmd.OutOrStdout(), one, time.Now())
		},
	}
}

func explainCommand(proc *running, asJSON *bool) *cobra.Command {
	return &cobra.Command{
		Use:   "explain NAME",
		Short: "The same in sentences: what is served, why there is none, what happens next, what to do",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			one, err := proc.cert(cmd, args[0])
			if err != nil {
				return err
			}
			if *asJSON {
				return admin.WriteJSON(cmd.OutOrStdout(), admin.Explain(one, time.Now()))
			}
			return admin.WriteExplanation(cmd.OutOrStdout(), one, time.Now())
		},
	}
}

// cert asks the process for one certificate.
func (r *running) cert(cmd *cobra.Command, name string) (admin.CertStatus, error) {
	client, err := r.client(cmd)
	if err != nil {
		return admin.CertStatus{}, err
	}
	return client.Cert(cmd.Context(), name)
}

func retryCommand(proc *running, asJSON *bool) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "retry NAME | --all",
		Short: "Try a name again now that is held back after a failure; budgets, and the CA's limits of more than the name, still hold",
		Args: func(_ *cobra.Command, args []string) error {
			if all == (len(args) == 1) || len(args) > 1 {
				return errors.New("give one name, or --all")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := proc.client(cmd)
			if err != nil {
				return err
			}
			name := ""
			if !all {
				name = args[0]
			}
			done, err := client.Retry(cmd.Context(), name)
			if err != nil {
				return err
			}
			if *asJSON {
				return admin.WriteJSON(cmd.OutOrStdout(), done)
			}
			return admin.WriteRetried(cmd.OutOrStdout(), name, done, time.Now())
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all names with a failure")
	return cmd
}
