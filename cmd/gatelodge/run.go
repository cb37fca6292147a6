package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"gatelodge/cmd/internal/config"
	"gatelodge/cmd/internal/handover"
)

// source is where the configuration comes from: a file, or the flags of a one-site run.
type source struct {
	file, host, to string
}

func (s *source) flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&s.file, "config", "c", "", "configuration `FILE` (TOML)")
	cmd.Flags().StringVar(&s.host, "host", "", "serve this one `HOST` without a file")
	cmd.Flags().StringVar(&s.to, "to", "", "where its requests go, e.g. `127.0.0.1:3000`")
	cmd.MarkFlagsMutuallyExclusive("config", "host")
	cmd.MarkFlagsRequiredTogether("host", "to")
	cmd.MarkFlagsOneRequired("config", "host")
}

func (s *source) load() (*config.Config, error) {
	if s.file == "" {
		return config.ForHost(s.host, s.to)
	}
	return config.Load(s.file)
}

func runCommand() *cobra.Command {
	var src source
	cmd := &cobra.Command{
		Use:   "run -c FILE | run --host HOST --to ADDRESS",
		Short: "Serve the configured sites until SIGTERM",
		Long: "Serve the configured sites until SIGTERM, which drains and ends with status 0.\n" +
			"SIGHUP reads the file again: a bad one is logged and the old configuration stays. SIGUSR1 reopens the access log. SIGUSR2 starts the binary anew, in a\n" +
			"process that takes the sockets; when it serves, this one finishes what is under way and ends.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := src.load()
			if err != nil {
				return report(cmd.ErrOrStderr(), err)
			}
			return serveUntilSignal(cmd.Context(), cfg, src.load)
		},
	}
	src.flags(cmd)
	return cmd
}

func checkCommand() *cobra.Command {
	var src source
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Validate the configuration and say what it means: which sites there are, and who issues for them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := src.load()
			if err != nil {
				return report(cmd.ErrOrStderr(), err)
			}
			if err := verifyFiles(cfg); err != nil {
				return report(cmd.ErrOrStderr(), err)
			}
			return cfg.Explain(cmd.OutOrStdout())
		},
	}
	src.flags(cmd)
	return cmd
}

// report shows faults of the configuration as they are: they name file, line and column themselves.
func report(w io.Writer, err error) error {
	fmt.Fprintln(w, err)
	return errReported
}

// serveUntilSignal runs the program and answers signals. Load reads the configuration again for a reload.
func serveUntilSignal(ctx context.Context, cfg *config.Config, load func() (*config.Config, error)) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)

	inherited, err := handover.Inherit()
	if err != nil {
		return err
	}
	opening, opened := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	p, err := newProgram(opening, cfg, load, inherited)
	interrupted := opening.Err() != nil
	opened()
	if interrupted && err != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if p.command, err = ownCommand(); err != nil {
		p.log.Warn("SIGUSR2 will start nothing", zap.Error(err))
	}
	ctx, stop := context.WithCancelCause(ctx)
	var listening sync.WaitGroup
	defer listening.Wait()
	defer stop(nil)
	ended := make(chan struct{})
	defer close(ended)
	listening.Go(func() {
		for {
			select {
			case <-ended:
				return
			case s := <-signals:
				switch s {
				case syscall.SIGUSR2:
					listening.Go(func() { _, _ = p.upgradeOrSay(ctx) })
				case syscall.SIGHUP: // which waits for an upgrade that is under way; SIGTERM does not
					listening.Go(func() { _ = p.reloadOrSay() })
				default:
					p.onSignal(s, stop)
				}
			}
		}
	})
	return p.run(ctx)
}

// errStopped is the cause of an end that was asked for.
var errStopped = errors.New("stopped by a signal")

// reloadOrSay reloads, and logs why not. Who asked over the admin socket has the error too, but seldom is the one who reads the log.
func (p *program) reloadOrSay() error {
	err := p.reload()
	if err != nil {
		p.log.Error("configuration not reloaded, the old one stays", zap.Error(err))
	}
	return err
}

func (p *program) onSignal(s os.Signal, stop context.CancelCauseFunc) {
	switch s {
	case syscall.SIGUSR1:
		if err := p.access.Reopen(); err != nil {
			p.log.Error("access log not reopened", zap.Error(err))
		}
	default:
		if p.ending.Swap(true) {
			p.log.Warn("asked to end a second time, closing what is still open")
			p.abort()
			return
		}
		p.log.Info("draining", zap.Stringer("signal", s.(syscall.Signal)), zap.Duration("for_at_most", p.cfg.Load().Process.Drain))
		stop(errStopped)
	}
}
