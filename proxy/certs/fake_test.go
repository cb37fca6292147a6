package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"gatelodge/proxy/certs/permission"
	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

// fakeCA is an Issuer that signs what it is asked to. It leaves out orders, accounts and validation; its faults are scripted. It counts, so that a
// test can say how many certificates the whole run has cost.
type fakeCA struct {
	name string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey

	mu       sync.Mutex // guards what follows
	life     time.Duration
	backdate time.Duration
	fault    func(ctx context.Context, r *Request) error // nil, or what happens before it signs
	change   func(*x509.Certificate)                     // nil, or what is wrong with what it signs
	window   Window
	calls    []call
	orders   map[string]bool              // by CSR: what a real CA would call an order
	issued   map[string]*x509.Certificate // by the id of RFC 9773
	stored   []string                     // names whose certificates are said to be stored
}

type call struct {
	name  string
	at    time.Time
	err   error
	pred  bool // with a predecessor
	again bool // somebody else may have tried with the CSR
	key   keyType
}

func newFakeCA(t testing.TB, name string) *fakeCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(50 * 365 * 24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeCA{name: name, cert: cert, key: key, life: 90 * 24 * time.Hour, orders: map[string]bool{}, issued: map[string]*x509.Certificate{}}
}

func (c *fakeCA) Name() string { return c.name }

func (c *fakeCA) Issue(ctx context.Context, r *Request) (*Issued, error) {
	c.mu.Lock()
	fault, change, window := c.fault, c.change, c.window
	begun := c.orders[string(r.CSR)]
	c.mu.Unlock()
	if r.Placing != nil && !begun {
		if _, err := r.Placing(ctx, r.Predecessor != nil && r.PredecessorCA == c.name); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	c.orders[string(r.CSR)] = true
	n := len(c.calls)
	c.calls = append(c.calls, call{name: r.Names[0], at: time.Now(), pred: r.Predecessor != nil, again: r.Again, key: keyOfRequest(r)})
	c.mu.Unlock()
	if fault != nil {
		if err := fault(ctx, r); err != nil {
			c.mu.Lock()
			c.calls[n].err = err
			c.mu.Unlock()
			return nil, err
		}
	}
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-c.backdate), NotAfter: time.Now().Add(c.life),
		DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, csr.PublicKey, c.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.issued[renewalID(leaf)] = leaf
	c.mu.Unlock()
	stored := func(context.Context) {
		c.mu.Lock()
		c.stored = append(c.stored, r.Names[0])
		c.mu.Unlock()
	}
	return &Issued{Chain: [][]byte{der, c.cert.Raw}, Renewal: window, Notes: map[string]string{"order": "1"}, Stored: stored}, nil
}

func keyOfRequest(r *Request) keyType {
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return ""
	}
	return keyTypeOf(csr.PublicKey)
}

// wantStored checks whose orders the manager let go of.
func (c *fakeCA) wantStored(t *testing.T, names ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.stored, names) {
		t.Errorf("told to be stored are %v, not %v", c.stored, names)
	}
}

// failWith lets every attempt from now on fail like that; nil ends it.
func (c *fakeCA) failWith(err error) {
	if err == nil {
		c.script(nil)
		return
	}
	c.script(func(context.Context, *Request) error { return err })
}

func (c *fakeCA) script(f func(context.Context, *Request) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

// asked returns the attempts for the name; the empty name means all.
func (c *fakeCA) asked(name string) []call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.calls), func(c call) bool { return name != "" && c.name != name })
}

// orderCount is how many certificates a real CA would have been asked for: attempts with the same request are one order.
func (c *fakeCA) orderCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.orders)
}

func (c *fakeCA) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.cert)
	return p
}

// fakeFailure is a Failure of any scope.
type fakeFailure struct {
	scope   string
	retryAt time.Time
}

func (f *fakeFailure) Error() string      { return "scripted failure of scope " + f.scope }
func (f *fakeFailure) Scope() string      { return f.scope }
func (f *fakeFailure) RetryAt() time.Time { return f.retryAt }
func (f *fakeFailure) Problem() Problem {
	return Problem{Type: "urn:ietf:params:acme:error:" + f.scope, Detail: "detail of " + f.scope, Advice: "do something about it"}
}

// gate is a Permission from a function; it counts.
type gate struct {
	mu    sync.Mutex
	asked []string
	allow func(name string) error // nil allows all
}

func (g *gate) Allow(_ context.Context, name string, _ netip.Addr) error {
	g.mu.Lock()
	g.asked = append(g.asked, name)
	allow := g.allow
	g.mu.Unlock()
	if allow == nil {
		return nil
	}
	return allow(name)
}

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.asked)
}

func deny(string) error { return permission.ErrDenied }

var errGateDown = errors.New("gate is down")

// house is a manager with what it needs, all in memory.
type house struct {
	t      testing.TB
	store  *storagetest.Faulty
	ca     *fakeCA
	gate   *gate
	set    Settings
	view   func(ctx context.Context, ca, name string, cause error) string
	events func(Event)
	log    *zap.Logger
	m      *Manager
}

// newHouse has one general CA and an on-demand site for every name. The manager is not there yet: see open.
func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, store: storagetest.NewFaulty(storage.NewMemory()), ca: newFakeCA(t, "fake"), gate: &gate{}, log: zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel))}
	h.set = Settings{
		Lookup:     func(string) (Policy, bool) { return Policy{Site: "*", OnDemand: true}, true },
		CAs:        []CA{{Issuer: h.ca}},
		Permission: h.gate,
	}
	return h
}

// open starts a manager; a second call is a restart, or another process on the same storage.
func (h *house) open() *Manager {
	h.t.Helper()
	return h.openOn(h.store)
}

func (h *house) openOn(store storage.Store) *Manager {
	h.t.Helper()
	m, err := New(Config{Store: store, Logger: h.log, View: h.view, Events: h.events, Beat: time.Hour}, h.set)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := m.Start(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(m.Close)
	h.m = m
	return m
}

// hello does a handshake with the house's manager over a pipe and returns the certificate that the client verified.
func (h *house) hello(name string) (*x509.Certificate, error) {
	return hello(h.m, name, h.ca.pool())
}

func hello(m *Manager, name string, roots *x509.CertPool, client ...func(*tls.Config)) (*x509.Certificate, error) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	var refused error
	server := tls.Server(far, &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := m.GetCertificate(hello)
		if refused = err; err == nil && cert == nil {
			refused = errNoCertificate
		}
		return cert, err
	}})
	done := make(chan error, 1)
	go func() {
		err := server.Handshake()
		if err != nil {
			far.Close()
		}
		done <- err
	}()
	cfg := &tls.Config{ServerName: name, RootCAs: roots}
	for _, f := range client {
		f(cfg)
	}
	visitor := tls.Client(near, cfg)
	err := visitor.Handshake()
	if err != nil {
		near.Close()
		<-done
		return nil, errors.Join(refused, err)
	}
	if err := <-done; err != nil {
		return nil, err
	}
	return visitor.ConnectionState().PeerCertificates[0], nil
}

// errNoCertificate stands for GetCertificate's nil without an error.
var errNoCertificate = errors.New("neither a certificate nor an error")

// must is hello for handshakes that have to succeed.
func (h *house) must(name string) *x509.Certificate {
	h.t.Helper()
	cert, err := h.hello(name)
	if err != nil {
		h.t.Fatalf("handshake for %s: %v", name, err)
	}
	return cert
}

// refuse is hello for handshakes that must fail; it returns the reason.
func (h *house) refuse(name string) error {
	h.t.Helper()
	if _, err := h.hello(name); err != nil {
		return err
	}
	h.t.Fatalf("handshake for %s succeeded", name)
	return nil
}

// wantIssued checks how often the CA was asked.
func (h *house) wantIssued(name string, want int) {
	h.t.Helper()
	if got := h.ca.asked(name); len(got) != want {
		h.t.Fatalf("the CA was asked %d times for %q, want %d: %v", len(got), name, want, got)
	}
}

// has reports whether an object is stored, past all faults.
func (h *house) has(object string) bool {
	h.t.Helper()
	h.store.Set()
	_, _, err := h.store.Get(context.Background(), object)
	if err != nil && !errors.Is(err, storage.ErrNotExist) {
		h.t.Fatal(err)
	}
	return err == nil
}

// listing makes the house list the names, on no demand.
func (h *house) listing(names ...string) *house {
	h.set.Listed = names
	h.set.Lookup = func(name string) (Policy, bool) {
		if slices.Contains(names, name) {
			return Policy{Site: name}, true
		}
		for _, n := range names {
			if len(n) > 1 && n[0] == '*' && len(name) > len(n)-1 && name[len(name)-len(n)+1:] == n[1:] {
				return Policy{Site: n}, true
			}
		}
		return Policy{}, false
	}
	return h
}

func quiet() *zap.Logger { return zap.NewNop() }

func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

func big7() *big.Int { return big.NewInt(7) }

func tlsOf(leaf *x509.Certificate) *tls.Certificate { return &tls.Certificate{Leaf: leaf} }
