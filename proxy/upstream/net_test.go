package upstream_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"gatelodge/proxy/upstream"
)

// network is one of pipes, for bubbles of testing/synctest: hosts come and go, and nothing takes time but what the test lets take time.
type network struct {
	t     *testing.T
	mu    sync.Mutex
	hosts map[string]*host
	names map[string][]netip.Addr
	asked int // look-ups
}

type host struct {
	conns  chan net.Conn
	closed chan struct{}
	opened int // connections so far
	open   int // connections now
}

func newNetwork(t *testing.T) *network {
	return &network{t: t, hosts: map[string]*host{}, names: map[string][]netip.Addr{}}
}

// serve lets h answer at addr until the test ends or remove is called.
func (n *network) serve(addr string, h http.HandlerFunc) (remove func()) {
	l := &host{conns: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	n.hosts[addr] = l
	n.mu.Unlock()
	srv := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0), ConnState: func(_ net.Conn, s http.ConnState) {
		n.mu.Lock()
		defer n.mu.Unlock()
		switch s {
		case http.StateNew:
			l.opened++
			l.open++
		case http.StateClosed:
			l.open--
		}
	}}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	remove = sync.OnceFunc(func() {
		n.mu.Lock()
		if n.hosts[addr] == l {
			delete(n.hosts, addr)
		}
		n.mu.Unlock()
		_ = srv.Close()
		<-done
	})
	n.t.Cleanup(remove)
	return remove
}

// open returns how many connections the host at addr has.
func (n *network) open(addr string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hosts[addr].open
}

func (n *network) resolve(name string, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[name] = nil
	for _, a := range addrs {
		n.names[name] = append(n.names[name], netip.MustParseAddr(a))
	}
}

// pool is a pool on this network.
func (n *network) pool(cfg upstream.Config) *upstream.Pool {
	n.t.Helper()
	cfg.Dial, cfg.Lookup = n.dial, n.lookup
	p := newPool(n.t, cfg)
	p.Start()
	return p
}

func (n *network) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.hosts[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *network) lookup(_ context.Context, name string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	if len(n.names[name]) == 0 {
		return nil, errors.New("no such host")
	}
	return append([]netip.Addr{}, n.names[name]...), nil
}

func (h *host) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *host) Close() error {
	select {
	case <-h.closed:
	default:
		close(h.closed)
	}
	return nil
}

func (h *host) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// says is a handler that answers with a text.
func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, text)
	}
}

// fails is a handler that reads the request and closes the connection.
func fails(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	panic(http.ErrAbortHandler)
}

// status returns the states of the targets, in order.
func states(p *upstream.Pool) (all []string) {
	for _, s := range p.Status() {
		all = append(all, s.State)
	}
	return all
}
