package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// floodCase is a kind of names, and what goes wrong with them.
type floodCase struct {
	name   string
	what   string
	labels string // the names are labels.test, or labels0.test, labels1.test ... if there are several
	names  int    // zero: each connection brings another one
	begin  func(*lodge)
	silent bool // the clients open connections and say nothing
}

// cases in the order in which they run.
var cases = []floodCase{
	{name: "unknown", what: "names that no site claims", labels: "nobody.example"},
	{name: "denied-one", what: "one name that ask denies", labels: "denied", names: 1},
	{name: "denied-many", what: "names that ask denies", labels: "denied"},
	{name: "backoff-one", what: "one name that the CA refuses", labels: "refused", names: 1},
	{name: "backoff-many", what: "500 names that the CA refuses", labels: "refused", names: 500},
	{name: "ca-down", what: "names while the CA answers 500", labels: "new", begin: func(l *lodge) { l.ca.fault.Store(faultDown) }},
	{name: "ca-hangs-one", what: "one name while the CA hangs", labels: "new", names: 1, begin: func(l *lodge) { l.ca.fault.Store(faultHang) }},
	{name: "ca-hangs-many", what: "names while the CA hangs", labels: "new", begin: func(l *lodge) { l.ca.fault.Store(faultHang) }},
	{name: "ask-hangs-one", what: "one name while ask hangs", labels: "new", names: 1, begin: func(l *lodge) { l.ask.hang.Store(true) }},
	{name: "ask-hangs-many", what: "names while ask hangs", labels: "new", begin: func(l *lodge) { l.ask.hang.Store(true) }},
	{name: "silent", what: "connections on which nothing comes", silent: true},
}

func caseNames() []string {
	var names []string
	for _, c := range cases {
		names = append(names, c.name)
	}
	return names
}

// measure runs one case.
func (c floodCase) measure(ctx context.Context, o options, dir string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	l, err := openLodge(ctx, o.binary, dir)
	if err != nil {
		return err
	}
	defer l.close()
	if err := l.awaitWarm(ctx); err != nil {
		return err
	}
	before := l.watch(ctx)
	wait(ctx, o.quiet)
	idle := before.end()
	if c.begin != nil {
		c.begin(l)
	}
	asked, orders := l.ask.count(), l.ca.orders()
	during, began := l.watch(ctx), time.Now()
	var sum outcome
	for left := o.handshakes; left > 0 && ctx.Err() == nil; left -= o.atOnce {
		wave, err := sendCrowds(ctx, l.https, c, min(left, o.atOnce), o.handshakes-left)
		if err != nil {
			return err
		}
		sum.add(wave)
	}
	took, flooded := time.Since(began), during.end()
	after := l.watch(ctx)
	wait(ctx, o.quiet)
	quiet := after.end()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	fmt.Fprintf(out, "\n%s: %s; %d handshakes, %d at once, %v\n", c.name, c.what, o.handshakes, min(o.atOnce, o.handshakes), took.Round(time.Millisecond))
	fmt.Fprintf(out, "  clients: %s\n", sum)
	fmt.Fprintf(out, "  ask calls %d, orders %d, accept errors %d\n", l.ask.count()-asked, l.ca.orders()-orders, l.acceptErrors())
	for _, row := range []struct {
		when string
		r    reading
	}{{"before", idle}, {"during", flooded}, {"after ", quiet}} {
		fmt.Fprintf(out, "  %s: %s\n", row.when, row.r)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
