package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"gatelodge/cmd/internal/config"
	"gatelodge/proxy/certs"
	"gatelodge/storage"
)

// storageCommand works on the storage itself, whether or not processes serve from it.
func storageCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: "storage", Short: "Work on what is stored: bring certificates in and out, rotate the keys that seal it, rebuild the index"}
	cmd.PersistentFlags().StringVarP(&file, "config", "c", "", "configuration `FILE` that names the storage")
	cmd.AddCommand(importCommand(&file), exportCommand(&file), copyCommand(&file), rekeyCommand(&file), reindexCommand(&file))
	return cmd
}

// withStore opens the storage of the configuration for a command.
func withStore(cmd *cobra.Command, file string, do func(ctx context.Context, cfg *config.Config, s *store) error) error {
	cfg := config.Default()
	if file != "" {
		var err error
		if cfg, err = config.Load(file); err != nil {
			return report(cmd.ErrOrStderr(), err)
		}
	}
	log, err := newLogger("text", "warn")
	if err != nil {
		return err
	}
	s, err := openStore(cmd.Context(), cfg.Storage, log)
	if err != nil {
		return err
	}
	return errors.Join(do(cmd.Context(), cfg, s), s.Close())
}

func reindexCommand(file *string) *cobra.Command {
	return &cobra.Command{
		Use:   "reindex",
		Short: "Rebuild the index of what is to be renewed from the stored certificates, while processes go on serving",
		Long: "Rebuild the index of what is to be renewed from the stored certificates, while processes go on serving. Import and copy keep the index by\n" +
			"themselves: this is for certificates that came otherwise, such as a restored backup. Running processes know of them within six hours, or after a restart.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd, *file, func(ctx context.Context, cfg *config.Config, s *store) error {
				result, err := certs.Reindex(ctx, s, cfg.Issue.RenewAt.Float(), s.log)
				if result != nil {
					fmt.Fprint(cmd.OutOrStdout(), result)
				}
				return err
			})
		},
	}
}

func rekeyCommand(file *string) *cobra.Command {
	var options storage.RekeyOptions
	cmd := &cobra.Command{
		Use:   "rekey [--check]",
		Short: "Seal everything with the first key of storage.encryption.keys, while processes go on serving",
		Long: "Seal everything with the first key of storage.encryption.keys, while processes go on serving. To rotate: put the new key second on all\n" +
			"nodes, then first, run this, and take the old key out when --check finds nothing that is sealed with it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd, *file, func(ctx context.Context, _ *config.Config, s *store) error {
				result, err := s.Rekey(ctx, options)
				if result != nil {
					fmt.Fprintln(cmd.OutOrStdout(), result)
				}
				if err == nil && !result.Done() {
					err = errors.New("not everything is sealed with the first key")
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&options.Check, "check", false, "count only, by key, and open what can be opened")
	return cmd
}
