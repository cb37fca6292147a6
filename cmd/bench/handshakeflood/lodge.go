package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gatelodge/acmeclient/devca"
)

// warmName has a certificate in memory before the flood begins.
const warmName = "warm.test"

// lodge is a gatelodge with what it needs around it.
type lodge struct {
	https, metrics string
	roots          *x509.CertPool
	ca             *authority
	ask            *decider
	app            *httptest.Server
	cmd            *exec.Cmd
	log            *lines
}

// openLodge starts everything in the folder.
func openLodge(ctx context.Context, binary, dir string) (l *lodge, err error) {
	addresses, err := freeAddresses(3)
	if err != nil {
		return nil, err
	}
	l = &lodge{https: addresses[0], metrics: addresses[2], roots: x509.NewCertPool(), ask: newDecider(), log: &lines{}}
	l.app = httptest.NewServer(http.NotFoundHandler())
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.ca, err = newAuthority(ctx, addresses[0], addresses[1]); err != nil {
		return nil, err
	}
	l.roots.AppendCertsFromPEM(l.ca.RootPEM())
	root, config := filepath.Join(dir, "root.pem"), filepath.Join(dir, "gatelodge.toml")
	text := fmt.Sprintf(`
[listen]
https = [%q]
http  = [%q]
http3 = false
[storage]
path = %q
[admin]
listen  = ""
metrics = %q
[log]
format = "text"
access = "off"
[[ca]]
name      = "dev"
directory = %q
roots     = [%q]
[on_demand]
enabled = true
ask     = %q
[[site]]
hosts     = ["*.test"]
on_demand = true
to        = %q
`, l.https, addresses[1], filepath.Join(dir, "storage"), l.metrics, l.ca.DirectoryURL(), root, l.ask.server.URL, l.app.URL)
	if err := errors.Join(os.WriteFile(root, l.ca.RootPEM(), 0o600), os.WriteFile(config, []byte(text), 0o600)); err != nil {
		return nil, err
	}
	l.cmd = exec.CommandContext(ctx, binary, "run", "-c", config)
	l.cmd.Stderr = l.log
	return l, l.cmd.Start()
}

func (l *lodge) close() {
	if l.cmd != nil && l.cmd.Process != nil {
		_ = l.cmd.Process.Kill()
		_ = l.cmd.Wait()
	}
	l.ask.close()
	if l.ca != nil {
		l.ca.close()
	}
	l.app.Close()
}

// shake is one visit to the warm name: how long it took from the first packet to a certificate that verifies.
func (l *lodge) shake(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: &tls.Config{ServerName: warmName, RootCAs: l.roots}}).DialContext(ctx, "tcp", l.https)
	if err != nil {
		return 0, err
	}
	return time.Since(began), conn.Close()
}

// awaitWarm gets the warm name its certificate.
func (l *lodge) awaitWarm(ctx context.Context) error {
	var err error
	for range 300 {
		if _, err = l.shake(ctx); err == nil || ctx.Err() != nil {
			return err
		}
		wait(ctx, 100*time.Millisecond)
	}
	return fmt.Errorf("the server does not serve: %w\n%s", err, l.log)
}

// acceptErrors is how often the server told that it could not accept.
func (l *lodge) acceptErrors() int { return strings.Count(l.log.String(), "too many open files") }

// What the CA does with new orders.
const (
	faultDown int64 = iota + 1
	faultHang
)

// authority is a CA that refuses some names, and can be told to fail.
type authority struct {
	*devca.CA
	fault atomic.Int64
	end   context.CancelFunc // of hanging
}

func newAuthority(ctx context.Context, tlsAddr, httpAddr string) (*authority, error) {
	a := new(authority)
	ctx, a.end = context.WithCancel(ctx)
	var err error
	a.CA, err = devca.New(devca.Config{
		TLSAddr: tlsAddr, HTTPAddr: httpAddr,
		Policy: func(name string) error {
			if strings.Contains(name, "refused") {
				return errors.New("this CA does not like the name")
			}
			return nil
		},
		Fault: func(w http.ResponseWriter, r *http.Request, endpoint string) bool {
			switch fault := a.fault.Load(); {
			case endpoint != "newOrder" || fault == 0:
				return false
			case fault == faultHang:
				select {
				case <-r.Context().Done():
				case <-ctx.Done():
				}
			}
			w.WriteHeader(http.StatusInternalServerError)
			return true
		},
	})
	if err != nil {
		return nil, err
	}
	return a, a.Start(ctx)
}

func (a *authority) close() {
	a.end()
	_ = a.Close()
}

// orders is how many requests for an order came, answered or not.
func (a *authority) orders() int { return a.Stats().Requests["newOrder"] }

// decider is the ask endpoint. It denies names that say so, and can be told to hang.
type decider struct {
	server *httptest.Server
	calls  atomic.Int64
	hang   atomic.Bool
	done   chan struct{}
}

func newDecider() *decider {
	d := &decider{done: make(chan struct{})}
	d.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.calls.Add(1)
		if d.hang.Load() {
			select {
			case <-d.done:
			case <-r.Context().Done():
			}
			return
		}
		if strings.Contains(r.FormValue("name"), "denied") {
			http.NotFound(w, r)
		}
	}))
	return d
}

func (d *decider) count() int { return int(d.calls.Load()) }

func (d *decider) close() {
	close(d.done)
	d.server.Close()
}

// freeAddresses finds so many addresses of loopback that nobody listens on. Their ports are below those that the system gives to connections (32768 on Linux), so that
// none of them takes one meanwhile.
func freeAddresses(n int) ([]string, error) {
	var found []string
	for tries := 0; len(found) < n; tries++ {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.N(22000))))
		if err != nil {
			if tries > 1000 {
				return nil, err
			}
			continue
		}
		defer l.Close()
		found = append(found, l.Addr().String())
	}
	return found, nil
}

// lines is what the server logs.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
