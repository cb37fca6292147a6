package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"gatelodge/cmd/internal/gcpace"
	"gatelodge/proxy/certs"
)

// bench is a manager over a mint, with an on-demand site for every name.
type bench struct {
	mint  *mint
	certs *certs.Manager
	sites certs.Settings
	known chan struct{} // closed when the index was read
	stop  context.CancelFunc
	pace  sync.WaitGroup
}

// open starts it as gatelodge does, the garbage collector's pace included.
func open(ctx context.Context, o options, budget int64) (*bench, error) {
	m, err := newMint(o.names, o.dir)
	if err != nil {
		return nil, err
	}
	b := &bench{mint: m, known: make(chan struct{})}
	log := zap.New(zapcore.NewNopCore(), zap.WrapCore(func(zapcore.Core) zapcore.Core { return &waiter{known: b.known} }))
	b.sites = certs.Settings{
		Lookup: func(string) (certs.Policy, bool) { return certs.Policy{Site: "all", OnDemand: true}, true }, CAs: []certs.CA{{Issuer: nobody{}}},
		CacheBytes: budget, UnknownPerClient: -1,
	}
	b.certs, err = certs.New(certs.Config{Store: m, Logger: log}, b.sites)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	ctx, b.stop = context.WithCancel(ctx)
	b.pace.Go(func() { gcpace.Run(ctx, b.certs.CacheBytes) })
	return b, b.certs.Start(ctx)
}

// resize changes the budget, as a reload does.
func (b *bench) resize(budget int64) error {
	b.sites.CacheBytes = budget
	return b.certs.Apply(b.sites)
}

func (b *bench) close() {
	b.stop()
	b.pace.Wait()
	b.certs.Close()
	_ = b.mint.Close()
}

func helloFor(i int) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{ServerName: nameOf(i), Conn: loopback{}}
}

// visit is the manager's part of a handshake.
func (b *bench) visit(i int) error {
	cert, err := b.certs.GetCertificate(helloFor(i))
	if err == nil && cert == nil {
		err = errors.New("no certificate")
	}
	if err != nil {
		return fmt.Errorf("handshake for %s: %w", nameOf(i), err)
	}
	return nil
}

// awaitIndex waits until the manager knows all names.
func (b *bench) awaitIndex(ctx context.Context) error {
	select {
	case <-b.known:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// namesKnown is logged when the index was read.
const namesKnown = "stored certificates known"

// waiter is a log in which nothing is written, but one message is heard.
type waiter struct {
	zapcore.Core
	known chan struct{}
}

func (w *waiter) Enabled(zapcore.Level) bool        { return true }
func (w *waiter) With([]zapcore.Field) zapcore.Core { return w }
func (w *waiter) Sync() error                       { return nil }
func (w *waiter) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return c.AddCore(e, w)
}
func (w *waiter) Write(e zapcore.Entry, _ []zapcore.Field) error {
	if e.Message == namesKnown {
		close(w.known)
	}
	return nil
}

// nobody is a CA that issues nothing: all names have certificates.
type nobody struct{}

func (nobody) Name() string { return "letsencrypt" }
func (nobody) Issue(context.Context, *certs.Request) (*certs.Issued, error) {
	return nil, errors.New("this CA issues nothing")
}

// loopback is a client's connection.
type loopback struct{ net.Conn }

func (loopback) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }
func (loopback) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 50000} }

// memory is what the system says of a process, in MiB: now, and at most so far.
func memory(pid int) (rss, peak float64) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0 // not on Linux
	}
	for line := range strings.Lines(string(status)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kib); err == nil {
			rss = kib / 1024
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kib); err == nil {
			peak = kib / 1024
		}
	}
	return rss, peak
}

// heap is what is reachable.
func heap() int64 {
	var s runtime.MemStats
	for range 3 { // pools are emptied by the second
		runtime.GC()
	}
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// cpu is the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
