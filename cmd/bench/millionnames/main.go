// Millionnames measures what a great number of names costs the certificate manager: the one that gatelodge runs, over a store that makes its objects when they are
// read, so that the store's memory does not count.
//
//	millionnames -names 1000000 -budget 512 -measure all
//
// Each measure runs in a process of its own and is bounded; -names and -seconds make it smaller. Times depend on the machine and on what else runs on it: compare
// ratios within one run.
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
	"strconv"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "millionnames:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	names   int // that the index knows
	budget  int64
	phase   time.Duration // of measures that take as long as one wants
	measure string
	dir     string // with the index of the names
	binary  string // of gatelodge
	inside  bool   // measure in this process
}

// measures in the order in which they run.
var measures = []struct {
	name string
	run  func(ctx context.Context, o options, out io.Writer) error
}{
	{"heap", measureHeap},
	{"resident", measureResident},
	{"warm", measureWarm},
	{"cold", measureCold},
	{"start", measureStart},
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("millionnames", flag.ContinueOnError)
	flags.IntVar(&o.names, "names", 1_000_000, "names with a certificate in storage")
	megabytes := flags.Int64("budget", 512, "cache.memory in MiB")
	seconds := flags.Float64("seconds", 5, "length of each timed phase")
	flags.StringVar(&o.measure, "measure", "all", "heap, resident, warm, cold, start or all")
	flags.StringVar(&o.binary, "binary", "", "gatelodge's binary, whose start is measured too")
	flags.StringVar(&o.dir, "dir", "", "folder for the index of the names, which another run may use again; empty: one that is removed in the end")
	flags.BoolVar(&o.inside, "inside", false, "measure in this process, not in one of its own")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.names < 100 || *megabytes < 1 || *seconds <= 0 {
		return errors.New("-names from 100, -budget from 1, -seconds above 0")
	}
	o.budget, o.phase = *megabytes<<20, time.Duration(*seconds*float64(time.Second))
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "millionnames")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		o.dir = dir
	}
	absolute, err := filepath.Abs(o.dir) // gatelodge takes paths from its configuration file
	if err != nil {
		return err
	}
	o.dir = absolute
	if there, err := os.ReadDir(o.dir); err != nil || len(there) == 0 {
		if err := makeIndex(ctx, o, out); err != nil {
			return err
		}
	}
	known := false
	for _, m := range measures {
		if o.measure != "all" && o.measure != m.name {
			continue
		}
		known = true
		if err := o.one(ctx, m.name, m.run, out); err != nil {
			return fmt.Errorf("measure %s: %w", m.name, err)
		}
	}
	if !known {
		return fmt.Errorf("no measure %q", o.measure)
	}
	return nil
}

func makeIndex(ctx context.Context, o options, out io.Writer) error {
	began := time.Now()
	m, err := newMint(o.names, o.dir)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.fillIndex(ctx); err != nil {
		return fmt.Errorf("make the index: %w", err)
	}
	fmt.Fprintf(out, "index of %d names made in %.1f s\n", o.names, time.Since(began).Seconds())
	return nil
}

// one runs a measure here, or in a process of its own.
func (o options) one(ctx context.Context, name string, f func(context.Context, options, io.Writer) error, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	if o.inside {
		return f(ctx, o, out)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-inside", "-measure", name, "-dir", o.dir, "-binary", o.binary, "-names", strconv.Itoa(o.names), "-budget", strconv.FormatInt(o.budget>>20, 10),
		"-seconds", strconv.FormatFloat(o.phase.Seconds(), 'f', -1, 64))
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	return cmd.Run()
}
