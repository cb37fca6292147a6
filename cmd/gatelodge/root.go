package main

import (
	"context"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"gatelodge/cmd/internal/config"
	"gatelodge/proxy/certs/localca"
)

// internalRootCommand prints what clients of the internal CA's names must trust. It reads the storage itself, so that no process needs to run.
func internalRootCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "root [-c FILE]",
		Short: "Print the root certificate of the internal CA (PEM), which clients of its names must trust",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd, file, func(ctx context.Context, _ *config.Config, s *store) error {
				ca, err := localca.New(localca.Config{Name: config.InternalCAName, Store: s, Logger: zap.NewNop()})
				if err != nil {
					return err
				}
				pem, err := ca.RootPEM(ctx)
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(pem)
				return err
			})
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `FILE` that names the storage")
	return cmd
}
