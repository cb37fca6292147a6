package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// row is one line of the table.
type row struct {
	name, about string
	load        load
}

// rows are measured in this order.
func rows() []row {
	return []row{
		{name: "idle", about: "KiB of memory per idle HTTP/1.1 connection, of a peer that has just started"},
		{name: "h1-1k", about: "1 KB over HTTP/1.1, 64 connections", load: load{path: "/1024", conns: 64, streams: 1, protocol: "http/1.1"}},
		{name: "h2-1k", about: "1 KB over HTTP/2, 10 connections x 32 streams", load: load{path: "/1024", conns: 10, streams: 32, protocol: "h2"}},
		{name: "h1-100k", about: "100 KB over HTTP/1.1, 32 connections", load: load{path: "/102400", conns: 32, streams: 1, protocol: "http/1.1"}},
		{name: "h2-100k", about: "100 KB over HTTP/2, 4 x 8", load: load{path: "/102400", conns: 4, streams: 8, protocol: "h2"}},
		{name: "h1-10m", about: "10 MB down over HTTP/1.1, 4 connections", load: load{path: "/10485760", conns: 4, streams: 1, protocol: "http/1.1"}},
		{name: "h2-10m", about: "10 MB down over HTTP/2, 4 x 1", load: load{path: "/10485760", conns: 4, streams: 1, protocol: "h2"}},
		{name: "h1-up10m", about: "10 MB up over HTTP/1.1, 4 connections", load: load{path: "/0", body: 10 << 20, conns: 4, streams: 1, protocol: "http/1.1"}},
		{name: "h2-up10m", about: "10 MB up over HTTP/2, 4 x 1", load: load{path: "/0", body: 10 << 20, conns: 4, streams: 1, protocol: "h2"}},
		{name: "tls-new", about: "a new TLS connection per request, full handshake", load: load{path: "/1024", conns: 16, streams: 1, protocol: "http/1.1", fresh: true}},
		{name: "tls-resumed", about: "a new TLS connection per request, resumed", load: load{path: "/1024", conns: 16, streams: 1, protocol: "http/1.1", fresh: true, resume: true}},
	}
}

func rowNames() []string {
	var names []string
	for _, r := range rows() {
		names = append(names, r.name)
	}
	return names
}

func rowNamed(name string) row {
	for _, r := range rows() {
		if r.name == name {
			return r
		}
	}
	panic("compare: row " + name) // options.check went through them
}

// value is a measurement: what the table shows, and beside it requests and latencies.
type value struct {
	cost     float64 // CPU microseconds per request; KiB per connection for "idle"
	rate     float64 // requests per second
	p50, p99 time.Duration
}

// measure warms a peer up with the row's load, and then measures.
func (r row) measure(ctx context.Context, o options, s *site, p *running) (value, error) {
	if r.name == "idle" {
		return measureIdle(ctx, o, s, p)
	}
	g, err := newGenerator(s, p.addr, r.load)
	if err != nil {
		return value{}, err
	}
	defer g.close()
	if _, err := g.run(ctx, o.Warm); err != nil {
		return value{}, err
	}
	before, err := account(p.cmd.Process.Pid)
	if err != nil {
		return value{}, err
	}
	begin := time.Now()
	times, err := g.run(ctx, o.Time)
	if err != nil {
		return value{}, err
	}
	took := time.Since(begin)
	after, err := account(p.cmd.Process.Pid)
	if err != nil {
		return value{}, err
	}
	if len(times) == 0 {
		return value{}, errors.New("not one request was answered")
	}
	if l := g.handshakes.Load(); r.load.resume && l-g.resumed.Load() > int64(2*r.load.conns)+l/10 { // each client begins without a session
		return value{}, fmt.Errorf("only %d of %d handshakes were resumptions", g.resumed.Load(), l)
	}
	n := float64(len(times))
	return value{
		cost: float64((after.cpu - before.cpu).Nanoseconds()) / 1e3 / n,
		rate: n / took.Seconds(), p50: quantile(times, 0.50), p99: quantile(times, 0.99),
	}, nil
}

// measureIdle opens connections, makes a request on each, and looks at what they cost while nothing happens.
func measureIdle(ctx context.Context, o options, s *site, p *running) (value, error) {
	before, err := account(p.cmd.Process.Pid)
	if err != nil {
		return value{}, err
	}
	g, err := newGenerator(s, p.addr, load{path: "/1024", conns: o.Idle, streams: 1, protocol: "http/1.1"})
	if err != nil {
		return value{}, err
	}
	defer g.close()
	if err := g.each(ctx); err != nil {
		return value{}, fmt.Errorf("open %d connections: %w", o.Idle, err)
	}
	select { // what is freed at once is no cost of being idle
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
		return value{}, ctx.Err()
	}
	after, err := account(p.cmd.Process.Pid)
	if err != nil {
		return value{}, err
	}
	return value{cost: float64(after.rss-before.rss) / 1024 / float64(o.Idle)}, nil
}
