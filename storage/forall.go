package storage

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
)

// listTogether is how many names are asked for at a time: a disk walks all its folders for each call, a bucket makes pages of it.
const listTogether = 50_000

// ForAll calls f for every object whose name has the prefix, several at a time, until one fails or ctx ends. Objects that come or go meanwhile may be seen or
// not. It lists, so it is for operators' commands and rare sweeps (see Store.List).
func ForAll(ctx context.Context, s Store, prefix string, parallel int, f func(ctx context.Context, name string) error) error {
	group, work := errgroup.WithContext(ctx)
	group.SetLimit(max(parallel, 1))
	listed := eachName(work, s, prefix, func(name string) {
		group.Go(func() error { return f(work, name) })
	})
	if err := group.Wait(); err != nil {
		return err
	}
	return listed
}

// eachName calls f for every name with the prefix, in order, by pages.
func eachName(ctx context.Context, s Store, prefix string, f func(name string)) error {
	for after := ""; ; {
		names, err := s.List(ctx, prefix, after, listTogether)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if ctx.Err() != nil {
				return ended(ctx)
			}
			f(name)
		}
		after = names[len(names)-1]
	}
}

// reportNames bounds the names in a report.
const reportNames = 100

// noteName adds a name to those of a report, if there is room, and counts it.
func noteName(names []string, count *int, name string) []string {
	if *count++; len(names) >= reportNames {
		return names
	}
	return append(names, name)
}

// listNames writes a line for each name, and how many more there are.
func listNames(w io.Writer, what string, names []string, count int) {
	for _, name := range names {
		fmt.Fprintf(w, "%s: %s\n", what, name)
	}
	if more := count - len(names); more > 0 {
		fmt.Fprintf(w, "%s: %d more\n", what, more)
	}
}
