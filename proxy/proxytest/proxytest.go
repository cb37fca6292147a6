// Package proxytest has what tests of the proxy need around it: a certificate authority, a proxy on loopback sockets, clients of every protocol,
// and upstreams that write down what reached them. Everything is real but the names.
package proxytest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"gatelodge/proxy"
	"gatelodge/proxy/upstream"
)

// Mode is a way for a client to reach the proxy.
type Mode struct {
	Name        string
	TLS, H2, H3 bool
}

// The modes that exist.
var (
	H1    = Mode{Name: "h1 over TLS", TLS: true}
	H2    = Mode{Name: "h2", TLS: true, H2: true}
	H3    = Mode{Name: "h3", TLS: true, H3: true}
	Plain = Mode{Name: "plain h1"}
)

// Modes are all of them.
var Modes = []Mode{H1, H2, H3, Plain}

// Run runs one test body over every mode, or over those that are given.
func Run(t *testing.T, body func(t *testing.T, mode Mode), modes ...Mode) {
	if len(modes) == 0 {
		modes = Modes
	}
	for _, m := range modes {
		t.Run(m.Name, func(t *testing.T) { body(t, m) })
	}
}

// CA issues a certificate for whatever name a handshake asks for.
type CA struct {
	Pool *x509.CertPool
	cert *x509.Certificate
	key  *ecdsa.PrivateKey

	mu     sync.Mutex
	issued map[string]*tls.Certificate
	Refuse map[string]bool     // names that get no certificate; set before use
	Also   map[string][]string // more names on the certificate of a name; set before use
}

// NewCA returns an authority of its own.
func NewCA(t testing.TB) *CA {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "proxytest " + rand.Text()[:8]}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	ca := &CA{Pool: x509.NewCertPool(), cert: cert, key: key, issued: map[string]*tls.Certificate{}, Refuse: map[string]bool{}, Also: map[string][]string{}}
	ca.Pool.AddCert(cert)
	return ca
}

// GetCertificate is for proxy.Config and tls.Config.
func (ca *CA) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return ca.Certificate(hello.ServerName)
}

// Certificate returns the certificate for a name or address, nil for a refused one.
func (ca *CA) Certificate(name string) (*tls.Certificate, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.Refuse[name] {
		return nil, nil
	}
	if c := ca.issued[name]; c != nil {
		return c, nil
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(int64(len(ca.issued) + 2)), NotBefore: ca.cert.NotBefore, NotAfter: ca.cert.NotAfter}
	if ip := net.ParseIP(name); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = append([]string{name}, ca.Also[name]...)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	ca.issued[name] = c
	return c, nil
}

// Cert is the authority's own certificate.
func (ca *CA) Cert() *x509.Certificate { return ca.cert }

// Client returns a certificate for a client of that name.
func (ca *CA) Client(t testing.TB, name string) tls.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: ca.cert.NotBefore, NotAfter: ca.cert.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Proxy is a running proxy.
type Proxy struct {
	*proxy.Server
	CA          *CA
	HTTPS, HTTP string // addresses; paths of unix sockets begin with a slash
	First       []byte // what clients send before anything else; set before use
	Log, Access *observer.ObservedLogs
	Metrics     *Metrics

	t       testing.TB
	done    chan error
	forgive bool
}

// Forgive makes an error of Serve no failure of the test.
func (p *Proxy) Forgive() { p.forgive = true }

// Start runs a proxy until the test ends. edit, which may be nil, changes what it is made of; by default it serves set on one listener of each kind, logs
// everything into Log and Access, and gets its certificates from a CA of its own.
func Start(t testing.TB, set proxy.Settings, edit func(*proxy.Config)) *Proxy {
	t.Helper()
	return StartWith(t, set, func(c *proxy.Config, _ *proxy.Settings) {
		if edit != nil {
			edit(c)
		}
	})
}

// StartWith is Start with more to change.
func StartWith(t testing.TB, set proxy.Settings, edit func(*proxy.Config, *proxy.Settings)) *Proxy {
	t.Helper()
	p := &Proxy{CA: NewCA(t), Metrics: &Metrics{}, t: t, done: make(chan error, 1)}
	logCore, logs := observer.New(zap.DebugLevel)
	accessCore, access := observer.New(zap.InfoLevel)
	p.Log, p.Access = logs, access
	https, http := Listen(t), Listen(t)
	p.HTTPS, p.HTTP = https.Addr().String(), http.Addr().String()
	cfg := proxy.Config{
		HTTPS: []net.Listener{https}, HTTP: []net.Listener{http}, GetCertificate: p.CA.GetCertificate,
		Logger: zap.New(logCore), AccessLog: zap.New(accessCore), Metrics: p.Metrics,
		ListenQUIC: func() ([]net.PacketConn, error) {
			if strings.HasPrefix(p.HTTPS, "/") {
				return nil, nil
			}
			c, err := net.ListenPacket("udp", p.HTTPS)
			return []net.PacketConn{c}, err
		},
	}
	if edit != nil {
		edit(&cfg, &set)
	}
	srv, err := proxy.New(cfg, set)
	if err != nil {
		t.Fatal(err)
	}
	p.Server = srv
	ctx, cancel := context.WithCancel(context.Background())
	go func() { p.done <- srv.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-p.done; err != nil && !p.forgive {
			t.Errorf("Serve: %v", err)
		}
		p.done <- nil
	})
	return p
}

// Wait returns what Serve returned.
func (p *Proxy) Wait() error {
	err := <-p.done
	p.done <- err
	return err
}

// Listen listens on a free port of the loopback address.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Site is a site without more than a test needs.
func Site(t testing.TB, to string, hosts ...string) proxy.Site {
	t.Helper()
	pool, err := upstream.New(upstream.Config{To: []string{to}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	return proxy.Site{Name: hosts[0], Hosts: hosts, Upstream: pool, AccessLog: true}
}

// Sites is Settings with these sites, plain HTTP served, and HTTP/3.
func Sites(sites ...proxy.Site) proxy.Settings { return proxy.Settings{Sites: sites, HTTP3: true} }

// Upstream serves h until the test ends and returns its address as a URL.
func Upstream(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	l := Listen(t)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return "http://" + l.Addr().String()
}

// Metrics counts. It is a proxy.Metrics.
type Metrics struct {
	mu             sync.Mutex
	handshakes     map[bool]int
	statuses       map[int]int
	upstreamErrors map[string]int
	connections    int
}

func add[K comparable](m *map[K]int, k K) {
	if *m == nil {
		*m = map[K]int{}
	}
	(*m)[k]++
}

func (m *Metrics) Handshake(ok bool, _ time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	add(&m.handshakes, ok)
}

func (m *Metrics) Request(_ string, status int, _ time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	add(&m.statuses, status)
}

func (m *Metrics) UpstreamError(class string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	add(&m.upstreamErrors, class)
}

func (m *Metrics) Connections(delta int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connections += delta
}

// Handshakes returns how many handshakes ended well, or not.
func (m *Metrics) Handshakes(ok bool) int { m.mu.Lock(); defer m.mu.Unlock(); return m.handshakes[ok] }

// Requests returns how many requests ended with the status.
func (m *Metrics) Requests(status int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.statuses[status]
}

// UpstreamErrors returns how many errors of the class there were; of all classes for "".
func (m *Metrics) UpstreamErrors(class string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if class != "" {
		return m.upstreamErrors[class]
	}
	n := 0
	for _, k := range m.upstreamErrors {
		n += k
	}
	return n
}

// Open returns how many connections are open.
func (m *Metrics) Open() int { m.mu.Lock(); defer m.mu.Unlock(); return m.connections }
