package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatelodge/acmeclient/devca"
	"gatelodge/cmd/internal/config"
)

// A lodge is the whole program in process, in front of an upstream and over a CA, on loopback ports of its own.
type lodge struct {
	t     *testing.T
	dir   string
	https string
	http  string
	roots *x509.CertPool
	ca    *devca.CA // nil if the test brings its own CA

	upstream *httptest.Server
	program  *program
	stop     context.CancelFunc
	done     chan error
}

// newLodge starts a CA with faults to taste and an upstream. The program starts with start.
func newLodge(t *testing.T, ca devca.Config) *lodge {
	t.Helper()
	l := newBareLodge(t)
	ca.Dir, ca.HTTPAddr, ca.TLSAddr = filepath.Join(l.dir, "ca"), l.http, l.https
	var err error
	if l.ca, err = devca.New(ca); err != nil {
		t.Fatal(err)
	}
	if err := l.ca.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.ca.Close() })
	l.write("root.pem", string(l.ca.RootPEM()))
	l.roots.AppendCertsFromPEM(l.ca.RootPEM())
	return l
}

func newBareLodge(t *testing.T) *lodge {
	t.Helper()
	l := &lodge{t: t, dir: t.TempDir(), https: freeAddr(t), http: freeAddr(t), roots: x509.NewCertPool()}
	l.upstream = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s", r.Host)
	}))
	t.Cleanup(l.upstream.Close)
	return l
}

// configure writes the configuration: on-demand names below *.test and what more is given.
func (l *lodge) configure(directory, more string) {
	l.write("names", "*.test\n")
	l.write("gatelodge.toml", fmt.Sprintf(`
[listen]
https = [%q]
http  = [%q]

[storage]
path = %q

[admin]
listen  = %q
metrics = ""

[log]
format = "text"
access = "off"

[[ca]]
name      = "test"
directory = %q
roots     = [%q]

[on_demand]
enabled    = true
names_file = %q

[[site]]
hosts     = ["*"]
on_demand = true
to        = %q
%s`, l.https, l.http, l.path("storage"), "unix://"+l.path("admin.sock"), directory, l.path("root.pem"), l.path("names"), l.upstream.URL, more))
}

// start runs the program until the test ends or stops it.
func (l *lodge) start() {
	l.t.Helper()
	load := func() (*config.Config, error) { return config.Load(l.path("gatelodge.toml")) }
	cfg, err := load()
	if err != nil {
		l.t.Fatal(err)
	}
	if l.program, err = newProgram(context.Background(), cfg, load, nil); err != nil {
		l.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stop, l.done = stop, make(chan error, 1)
	go func() { l.done <- l.program.run(ctx) }()
	l.t.Cleanup(l.halt)
}

// halt drains the program and waits for its end.
func (l *lodge) halt() {
	if l.stop == nil {
		return
	}
	l.stop()
	if err := <-l.done; err != nil {
		l.t.Errorf("the program ended with: %v", err)
	}
	l.stop = nil
}

func (l *lodge) path(name string) string { return filepath.Join(l.dir, name) }

func (l *lodge) write(name, content string) {
	l.t.Helper()
	if err := os.WriteFile(l.path(name), []byte(content), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// handshake opens one TLS connection for a name and returns the leaf, verified against the CA's root.
func (l *lodge) handshake(name string) (*x509.Certificate, error) {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 30 * time.Second}, Config: &tls.Config{ServerName: name, RootCAs: l.roots}}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", l.https)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// get fetches https://NAME/ through the proxy on a connection of its own.
func (l *lodge) get(name string) (string, error) {
	tr := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: l.roots},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, l.https)
		},
	}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr, Timeout: 30 * time.Second}).Get("https://" + name + "/")
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), errors.Join(err, statusError(res.StatusCode))
}

// rollingClient keeps its connection or takes a new one for each request. It does not repeat requests: net/http would, were they GETs.
func (l *lodge) rollingClient(h2, fresh bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: l.roots}, Protocols: protocols, DisableKeepAlives: fresh,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, l.https)
		},
	}}
}

func once(c *http.Client) error {
	res, err := c.Post("https://rolling.test/", "text/plain", strings.NewReader("once"))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	return statusError(res.StatusCode)
}

func statusError(status int) error {
	if status == http.StatusOK {
		return nil
	}
	return fmt.Errorf("status %d", status)
}

// orders returns how many orders the CA saw for a name.
func (l *lodge) orders(name string) int { return l.ca.Stats().Orders[name] }

func freeAddr(t testing.TB) string {
	t.Helper()
	addr, err := unusedAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// unusedAddr returns an address on loopback for a server that listens later, and maybe again. Its port is below those that the system gives to connections
// (32768 on Linux): nothing that happens between now and then takes it by chance.
func unusedAddr() (string, error) {
	for range 1000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(portFrom+int(ports.Add(1))%portCount))
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		return addr, ln.Close()
	}
	return "", errors.New("no port is free")
}

const (
	portFrom  = 10000
	portCount = 22000
)

// ports counts up, so that no address is given twice, from a place of this process's own: the tests of other packages run beside us.
var ports = func() *atomic.Int64 {
	n := new(atomic.Int64)
	n.Store(int64(os.Getpid()) * 61 % portCount)
	return n
}()

// eventually waits for a state that comes by itself, for at most a minute.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// syncBuffer collects what several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
