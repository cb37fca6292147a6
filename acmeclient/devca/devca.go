package devca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// CA is one certificate authority. Its methods may be called from several goroutines.
type CA struct {
	cfg       Config
	disk      disk
	run       run
	authority *authority
	state     *state
	nonces    *nonces
	stats     *counters
	endpoints []endpoint
	paths     paths
	targets   atomic.Pointer[targets]
	switches  atomic.Pointer[V1Switches]
	upgraded  atomic.Bool // v2 has come to a CA that began with v1
	logMu     sync.Mutex  // one line at a time

	// background is what validations and delayed issuances run under; stop ends it and done waits for them.
	background context.Context
	stop       context.CancelFunc
	done       sync.WaitGroup

	mu       sync.Mutex // guards what follows; never held during I/O
	closed   bool
	server   *http.Server
	listener net.Listener
	serving  tls.Certificate // the CA's own, renewed by serverCertificate
}

// paths are where the directories are; v1 is empty if there is none.
type paths struct{ v1, v2 string }

func pathsOf(p Protocols) paths {
	switch p {
	case ProtocolsV1:
		return paths{v1: "/directory", v2: "/directory"}
	case ProtocolsBeside:
		return paths{v1: "/directory", v2: "/v2/directory"}
	}
	return paths{v2: "/directory"}
}

// New makes or, from Config.Dir, loads a CA. It does not listen yet: Handler works at once, Start serves it.
func New(cfg Config) (*CA, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("configure devca: %w", err)
	}
	ca := &CA{cfg: cfg, nonces: newNonces(), stats: newCounters(), paths: pathsOf(cfg.Protocols)}
	ca.endpoints = append(endpointsV2(), endpointsV1()...)
	ca.endpoints = append(ca.endpoints,
		endpoint{dialectV1, endpointDirectory, ca.paths.v1, get, unsigned, (*CA).serveDirectoryV1},
		endpoint{dialectV2, endpointDirectory, ca.paths.v2, get, unsigned, (*CA).serveDirectory})
	ca.SetV1(cfg.V1)
	if err := ca.SetTargets(cfg.HTTPAddr, cfg.TLSAddr); err != nil {
		return nil, fmt.Errorf("configure devca: %w", err)
	}
	var err error
	if ca.disk, err = openDisk(cfg.Dir); err != nil {
		return nil, err
	}
	if ca.authority, err = ca.disk.loadAuthority(func() (*authority, error) { return newAuthority(time.Now()) }); err != nil {
		return nil, err
	}
	if ca.run, err = ca.disk.begin(); err != nil {
		return nil, err
	}
	if ca.state, err = newState(ca.disk, ca.run); err != nil {
		return nil, err
	}
	ca.background, ca.stop = context.WithCancel(context.Background())
	return ca, nil
}

// SetTargets changes where http-01 and tls-alpn-01 connect to, for instance when the proxy's port is known only later. Empty: not offered.
func (ca *CA) SetTargets(httpAddr, tlsAddr string) error {
	t, err := newTargets(httpAddr, tlsAddr, ca.cfg.DNSAddr)
	if err != nil {
		return err
	}
	ca.targets.Store(t)
	return nil
}

// SetV1 throws the switches of v1's end.
func (ca *CA) SetV1(s V1Switches) { ca.switches.Store(&s) }

// Upgrade brings v2 to a CA that began with v1: at the same URL or beside it, as Config.Protocols says. There is no way back, and a CA that speaks v2
// already stays as it is.
func (ca *CA) Upgrade() {
	if ca.cfg.Protocols != ProtocolsV2 && !ca.upgraded.Swap(true) {
		ca.logf("v2 is served from now on")
	}
}

// Handler is the whole CA as a handler, for tests that wrap faults around it or serve it themselves.
func (ca *CA) Handler() http.Handler { return ca }

// Start listens and serves until Close. ctx bounds the listening alone.
func (ca *CA) Start(ctx context.Context) error {
	ln, err := ca.listen(ctx)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler: ca, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 60 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: log.New(io.Discard, "", 0), // refused handshakes: the client knows why
	}
	serve := func() error { return srv.Serve(ln) }
	if !ca.cfg.PlainHTTP {
		srv.TLSConfig = &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.serverCertificate() },
		}
		serve = func() error { return srv.ServeTLS(ln, "", "") }
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.closed || ca.server != nil {
		return errors.Join(errors.New("start devca: started or closed before"), ln.Close())
	}
	ca.server, ca.listener = srv, ln
	ca.done.Go(func() {
		if err := serve(); !errors.Is(err, http.ErrServerClosed) {
			ca.logf("serving ended: %v", err)
		}
	})
	return nil
}

// listen binds a literal loopback address, the one of the last start if the configuration leaves the port open.
func (ca *CA) listen(ctx context.Context) (net.Listener, error) {
	addr, err := resolveLoopback(ca.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	var lc net.ListenConfig
	if last := ca.run.Address; strings.HasSuffix(addr, ":0") && sameHost(last, addr) {
		if ln, err := lc.Listen(ctx, "tcp", last); err == nil {
			return ln, nil
		} // taken meanwhile: any other port
	}
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if ap, err := netip.ParseAddrPort(ln.Addr().String()); err != nil || !ap.Addr().Unmap().IsLoopback() {
		return nil, errors.Join(fmt.Errorf("listen on %v: %w", ln.Addr(), ErrNotLoopback), ln.Close())
	}
	ca.run.Address = ln.Addr().String()
	if err := ca.disk.writeJSON("run.json", ca.run); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

func sameHost(a, b string) bool {
	ha, _, err1 := net.SplitHostPort(a)
	hb, _, err2 := net.SplitHostPort(b)
	return err1 == nil && err2 == nil && ha == hb
}

// closeTimeout is how long requests in progress may take after Close.
const closeTimeout = 5 * time.Second

// Close stops listening, ends validations in progress and waits for all of it.
func (ca *CA) Close() error {
	ca.mu.Lock()
	ca.closed = true
	srv := ca.server
	ca.mu.Unlock()
	ca.stop()
	var err error
	if srv != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err = srv.Shutdown(ctx); err != nil {
			err = errors.Join(fmt.Errorf("close devca: %w", err), srv.Close())
		}
	}
	ca.done.Wait()
	return err
}

// work runs f in a goroutine that Close waits for; false when the CA is closing.
func (ca *CA) work(f func(context.Context)) bool {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.closed {
		return false
	}
	ca.done.Go(func() { f(ca.background) })
	return true
}

// DirectoryURL is the address of the v2 directory, or of the one that becomes it by Upgrade. Empty before Start.
func (ca *CA) DirectoryURL() string { return ca.url(ca.paths.v2) }

// DirectoryURLV1 is the address of the v1 directory. Empty before Start and if there is none.
func (ca *CA) DirectoryURLV1() string {
	if ca.paths.v1 == "" {
		return ""
	}
	return ca.url(ca.paths.v1)
}

func (ca *CA) url(path string) string {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.listener == nil {
		return ""
	}
	scheme := "https://"
	if ca.cfg.PlainHTTP {
		scheme = "http://"
	}
	return scheme + ca.listener.Addr().String() + path
}

// RootPEM is the root certificate, to be trusted by who tries the CA.
func (ca *CA) RootPEM() []byte { return pemBlock("CERTIFICATE", ca.authority.root.Raw) }

// Roots is a pool of the root alone: for a client of the CA, and for verifying what it issues.
func (ca *CA) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.authority.root)
	return pool
}

// serverCertificateLifetime is for the CA's own address; it is renewed at half of it.
const serverCertificateLifetime = 30 * 24 * time.Hour

// serverCertificate is what the CA's own listener presents, under its own root.
func (ca *CA) serverCertificate() (*tls.Certificate, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if leaf := ca.serving.Leaf; leaf != nil && time.Until(leaf.NotAfter) > serverCertificateLifetime/2 {
		c := ca.serving
		return &c, nil
	}
	host, _, err := net.SplitHostPort(ca.listener.Addr().String())
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make server key: %w", err)
	}
	names := []identifier{{identDNS, "localhost"}, {identIP, "127.0.0.1"}, {identIP, "::1"}}
	if own := (identifier{identIP, host}); !slices.Contains(names, own) {
		names = append(names, own) // another one of 127.0.0.0/8
	}
	leaf, err := ca.authority.issue(names, key.Public(), time.Now(), serverCertificateLifetime)
	if err != nil {
		return nil, fmt.Errorf("make server certificate: %w", err)
	}
	ca.serving = tls.Certificate{Certificate: [][]byte{leaf.Raw, ca.authority.intermediate.Raw}, PrivateKey: key, Leaf: leaf}
	c := ca.serving
	return &c, nil
}

// logf writes one line. What comes from outside is either checked (names) or quoted by the caller.
func (ca *CA) logf(format string, args ...any) {
	ca.logMu.Lock()
	defer ca.logMu.Unlock()
	fmt.Fprintf(ca.cfg.Log, time.Now().Format(time.TimeOnly)+" devca "+format+"\n", args...)
}
