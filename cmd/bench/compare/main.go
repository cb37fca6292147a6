package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	opts, err := parse(os.Args[1:])
	if err == nil {
		err = compare(ctx, opts)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

// options are what a run is asked to do.
type options struct {
	Gatelodge string        // path of the binary; empty builds it from the module around the working folder
	Peers     []string      // in the order of a round
	Rows      []string      // names of rows
	Rounds    int           // each measures every row at every peer once
	Time      time.Duration // per measurement
	Warm      time.Duration // before each measurement, not counted
	Idle      int           // connections of the row "idle"
	Log       string        // "off", "on" or "both"
	Base      string        // the peer whose figure is 1.00
	Out       *os.File
}

func parse(args []string) (options, error) {
	o := options{Out: os.Stdout}
	f := flag.NewFlagSet("compare", flag.ContinueOnError)
	f.StringVar(&o.Gatelodge, "gatelodge", "", "the binary to measure; empty: built from this module")
	peers := f.String("peers", "gatelodge,caddy,haproxy,nginx", "who is measured; those that are not installed are an error")
	rows := f.String("rows", strings.Join(rowNames(), ","), "what is measured")
	f.IntVar(&o.Rounds, "rounds", 3, "interleaved rounds; the median counts")
	f.DurationVar(&o.Time, "time", 2*time.Second, "length of a measurement")
	f.DurationVar(&o.Warm, "warm", 500*time.Millisecond, "what runs before it, uncounted")
	f.IntVar(&o.Idle, "idle", 1000, "connections of the row \"idle\"")
	f.StringVar(&o.Log, "log", "off", "access logs: off, on or both")
	f.StringVar(&o.Base, "base", "caddy", "the peer whose figure is 1.00")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.Peers, o.Rows = strings.Split(*peers, ","), strings.Split(*rows, ",")
	return o, o.check()
}

func (o options) check() error {
	for _, name := range o.Rows {
		if !slices.Contains(rowNames(), name) {
			return fmt.Errorf("no row %q: there are %s", name, strings.Join(rowNames(), ", "))
		}
	}
	for _, name := range o.Peers {
		if peers[name] == nil {
			return fmt.Errorf("no peer %q", name)
		}
	}
	if o.Rounds < 1 || o.Rounds > 50 || o.Time > time.Minute || o.Idle > 8000 {
		return errors.New("at most 50 rounds, a minute a measurement, 8000 idle connections")
	}
	if !slices.Contains([]string{"off", "on", "both"}, o.Log) {
		return fmt.Errorf("-log %q: write off, on or both", o.Log)
	}
	return nil
}

// compare runs all rounds and prints one table for each way of logging.
func compare(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	site, err := newSite(dir)
	if err != nil {
		return err
	}
	defer site.Close()
	if o.Gatelodge == "" && slices.Contains(o.Peers, "gatelodge") {
		o.Gatelodge = filepath.Join(dir, "gatelodge")
		if err := buildGatelodge(ctx, o.Gatelodge); err != nil {
			return err
		}
	}
	for _, log := range []string{"off", "on"} {
		if o.Log != log && o.Log != "both" {
			continue
		}
		figures, versions, err := rounds(ctx, o, site, log == "on", filepath.Join(dir, "log-"+log))
		if err != nil {
			return err
		}
		fmt.Fprintf(o.Out, "\naccess log %s, %d rounds of %v, %s\n\n", log, o.Rounds, o.Time, strings.Join(versions, ", "))
		figures.print(o)
	}
	return nil
}

// rounds starts each peer once, measures in turn and stops them all.
func rounds(ctx context.Context, o options, s *site, logging bool, dir string) (figures, []string, error) {
	f := figures{}
	var all []*running
	defer func() {
		for _, p := range all {
			p.stop()
		}
	}()
	var versions []string
	for _, name := range o.Peers {
		p, err := start(ctx, name, o, s, logging, filepath.Join(dir, name))
		if err != nil {
			return nil, nil, err
		}
		all = append(all, p)
		versions = append(versions, p.version)
	}
	for round := range o.Rounds {
		for _, name := range o.Rows {
			if name == "idle" && round > 0 { // memory that a load left behind would hide what a connection takes
				continue
			}
			for i := range all { // another one goes first in each round
				p := all[(i+round)%len(all)]
				value, err := rowNamed(name).measure(ctx, o, s, p)
				if err != nil {
					return nil, nil, fmt.Errorf("%s at %s: %w", name, p.name, err)
				}
				f.add(name, p.name, value)
			}
		}
	}
	return f, versions, nil
}
