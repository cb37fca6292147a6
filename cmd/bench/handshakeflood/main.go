// Handshakeflood measures what a flood of TLS handshakes for names that fail or hang takes of gatelodge, and what others notice of it.
//
//	handshakeflood -handshakes 50000 -at-once 16000
//
// Each case starts the real binary anew, over a CA of its own (acmeclient/devca) and an ask endpoint that can be told to fail or to hang, lets processes of this
// program shake hands with it from many addresses of loopback, in waves of -at-once, since a process has so many descriptors only, and looks at goroutines, heap, resident memory and
// descriptors meanwhile. Beside the flood a visitor opens one connection after the other for a name that has its certificate: its times say what others notice. It needs
// Linux. Times depend on the machine, whose processors clients and server share here, though the clients yield; counts do not.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	if order := os.Getenv(crowdVariable); order != "" {
		if err := beCrowd(order, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "handshakeflood: crowd:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "handshakeflood:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	binary     string
	handshakes int
	atOnce     int
	cases      []string
	quiet      time.Duration // before and after the flood
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("handshakeflood", flag.ContinueOnError)
	flags.StringVar(&o.binary, "gatelodge", "", "the binary to measure; empty: built from this module")
	flags.IntVar(&o.handshakes, "handshakes", 50_000, "of each case")
	flags.IntVar(&o.atOnce, "at-once", 16_000, "connections that are open at one time; more than the server has descriptors for is a case of its own")
	names := flags.String("cases", strings.Join(caseNames(), ","), "what is measured")
	flags.DurationVar(&o.quiet, "quiet", 3*time.Second, "how long the server is watched before the flood and after it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	o.cases = strings.Split(*names, ",")
	for _, name := range o.cases {
		if !slices.Contains(caseNames(), name) {
			return fmt.Errorf("no case %q: there are %s", name, strings.Join(caseNames(), ", "))
		}
	}
	if o.handshakes < 1 || o.handshakes > 1_000_000 || o.atOnce < 1 || o.atOnce > 100_000 {
		return errors.New("-handshakes from 1 to 1000000, -at-once from 1 to 100000")
	}
	dir, err := os.MkdirTemp("", "handshakeflood-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.binary == "" {
		o.binary = filepath.Join(dir, "gatelodge")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", o.binary, "gatelodge/cmd/gatelodge")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if said, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build gatelodge: %w\n%s", err, said)
		}
	}
	for _, c := range cases {
		if !slices.Contains(o.cases, c.name) {
			continue
		}
		if err := c.measure(ctx, o, filepath.Join(dir, c.name), out); err != nil {
			return fmt.Errorf("case %s: %w", c.name, err)
		}
	}
	return nil
}
