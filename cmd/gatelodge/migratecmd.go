package main

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gatelodge/acmeclient"
	"gatelodge/cmd/internal/config"
	"gatelodge/proxy/certs"
	"gatelodge/storage"
	"gatelodge/storage/migrate"
)

// directoriesOf are the CAs of a configuration by name, for those who know a certificate's CA by its address only.
func directoriesOf(cfg *config.Config) map[string]string {
	byName := map[string]string{}
	for _, ca := range cfg.CAs {
		byName[ca.Name] = ca.Directory
	}
	return byName
}

func importCommand(file *string) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "import caddy|certbot|acme.json|pem PATH",
		Short: "Take over certificates with their keys, and accounts at CAs that have none here, without ordering anything; what is here and newer stays",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := migrate.Open(args[0], args[1])
			if err != nil {
				return err
			}
			return withStore(cmd, *file, func(ctx context.Context, cfg *config.Config, s *store) error {
				index := certs.NewIndexer(s, cfg.Issue.RenewAt.Float(), s.log)
				report, err := migrate.Import(ctx, s, src, migrate.Options{
					DryRun: dryRun, CA: migrate.ByURL(directoriesOf(cfg)), Stored: index.Stored, Account: accountsFor(cfg, s), Logger: s.log,
					Blocked: func(ctx context.Context, key crypto.PublicKey) (bool, error) { return certs.KeyBlocked(ctx, s, key) },
				})
				if report != nil {
					fmt.Fprintln(cmd.OutOrStdout(), report)
				}
				return errors.Join(err, index.Flush(ctx))
			})
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	return cmd
}

// accountsFor takes over the accounts at the CAs of a configuration that have none here.
func accountsFor(cfg *config.Config, s storage.Store) func(context.Context, migrate.Account) error {
	directories := directoriesOf(cfg)
	byURL := migrate.ByURL(directories)
	return func(ctx context.Context, a migrate.Account) error {
		ca := byURL(cmp.Or(a.Directory, a.URL))
		if ca == "" {
			return fmt.Errorf("no [[ca]] has the directory of %s", cmp.Or(a.Directory, a.URL))
		}
		return acmeclient.ImportAccount(ctx, s, ca, acmeclient.ForeignAccount{Key: a.Key, URL: a.URL, Contact: a.Contact, Directory: directories[ca]})
	}
}

func exportCommand(file *string) *cobra.Command {
	return &cobra.Command{
		Use:   "export DIR",
		Short: "Write all certificates into a folder as Caddy and certmagic keep them",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd, *file, func(ctx context.Context, cfg *config.Config, s *store) error {
				directories := directoriesOf(cfg)
				report, err := migrate.ExportCertmagic(ctx, s, args[0], migrate.ExportOptions{Directory: func(ca string) string { return directories[ca] }})
				if report != nil {
					fmt.Fprintln(cmd.OutOrStdout(), report)
				}
				return err
			})
		},
	}
}

// staysBehind reports whether the object is what each store has for itself: the index, which is told by its certificates, who is a member of the fleet, the
// names in use, the keys of session tickets, and when was swept.
func staysBehind(object string) bool {
	first, _, _ := strings.Cut(object, "/")
	return slices.Contains([]string{"index", "members", "hot", "tickets", "sweep"}, first)
}

func copyCommand(file *string) *cobra.Command {
	var options storage.CopyOptions
	var to string
	cmd := &cobra.Command{
		Use:   "copy --to FILE",
		Short: "Copy everything into the storage of another configuration: from disk to bucket or back, to other keys; an older certificate never replaces a newer one",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			target, err := config.Load(to)
			if err != nil {
				return report(cmd.ErrOrStderr(), err)
			}
			return withStore(cmd, *file, func(ctx context.Context, _ *config.Config, src *store) error {
				dst, err := openStore(ctx, target.Storage, src.log)
				if err != nil {
					return err
				}
				index := certs.NewIndexer(dst, target.Issue.RenewAt.Float(), dst.log)
				options.Leave, options.Stored = staysBehind, index.StoredObject
				result, err := storage.Copy(ctx, src, dst, options)
				if result != nil {
					fmt.Fprintln(cmd.OutOrStdout(), result)
				}
				return errors.Join(err, index.Flush(ctx), dst.Close())
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "configuration `FILE` whose storage is copied to")
	cmd.Flags().BoolVar(&options.DryRun, "dry-run", false, "only say what would be done")
	if err := cmd.MarkFlagRequired("to"); err != nil {
		panic("copy has no flag --to: " + err.Error())
	}
	return cmd
}
