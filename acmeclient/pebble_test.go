package acmeclient

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/challtestsrv"
	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"go.uber.org/zap/zaptest"

	"gatelodge/storage"
)

// fault decides about a request before pebble sees it; it reports whether it answered.
type fault func(w http.ResponseWriter, r *http.Request) bool

// rewrite changes an answer of pebble before the client sees it.
type rewrite func(r *http.Request, resp *httptest.ResponseRecorder)

// pebble is Let's Encrypt's test CA in process, strict, with a place for faults before it. Names resolve to loopback, and it validates at the ports of node.
type pebble struct {
	url   string // of the directory
	roots *x509.CertPool

	mu       sync.Mutex
	handler  http.Handler
	faults   []fault
	rewrites []rewrite
	log      []string // "METHOD /path" of each request
}

// pebbleOptions are what pebble takes from its environment and its constructor.
type pebbleOptions struct {
	nonceReject, authzReuse   int // percent
	retryAuthz, retryOrder    int // Retry-After, seconds; 0: none
	requireEAB                bool
	eab                       map[string]string // keys by their identifiers
	alternates, intermediates int               // further roots; CA certificates per chain, 0: 1
	dns                       string            // address of a DNS server to ask; empty: one that knows every name at 127.0.0.1
}

// newPebble starts a pebble that validates at the node's ports.
func newPebble(t testing.TB, n *node, o pebbleOptions) *pebble {
	t.Helper()
	t.Setenv("PEBBLE_WFE_NONCEREJECT", fmt.Sprint(o.nonceReject))
	t.Setenv("PEBBLE_AUTHZREUSE", fmt.Sprint(o.authzReuse))
	return newParallelPebble(t, n, o)
}

// newParallelPebble is newPebble for parallel tests, which cannot set the environment: nonces are refused as TestMain says, authorizations not reused.
func newParallelPebble(t testing.TB, n *node, o ...pebbleOptions) *pebble {
	t.Helper()
	p := &pebble{}
	p.restart(t, n, append(o, pebbleOptions{})[0])
	srv := httptest.NewTLSServer(p)
	t.Cleanup(srv.Close)
	p.url = srv.URL + wfe.DirectoryPath
	p.roots = x509.NewCertPool()
	p.roots.AddCert(srv.Certificate())
	return p
}

// restart replaces the CA behind the address by one that knows nothing: no accounts, orders, nonces.
func (p *pebble) restart(t testing.TB, n *node, o pebbleOptions) {
	t.Helper()
	quiet := quietLog()
	dnsAddr := freePort(t)
	dns, err := challtestsrv.New(challtestsrv.Config{Log: quiet, DNSAddrs: []string{dnsAddr}})
	if err != nil {
		t.Fatal(err)
	}
	dns.SetDefaultDNSIPv4("127.0.0.1")
	dns.SetDefaultDNSIPv6("")
	dns.Run()
	t.Cleanup(dns.Shutdown)
	awaitTCP(t, dnsAddr)
	if o.dns != "" {
		dnsAddr = o.dns
	}
	store := db.NewMemoryStore()
	for kid, key := range o.eab {
		if err := store.AddExternalAccountKeyByID(kid, key); err != nil {
			t.Fatal(err)
		}
	}
	issuer := ca.New(quiet, store, "", "ecdsa", o.alternates, max(o.intermediates, 1), map[string]ca.Profile{
		"minute": {Description: "60 s", ValidityPeriod: 60}, "hour": {Description: "1 h", ValidityPeriod: 3600},
	})
	validator := va.New(quiet, n.httpPort(), n.tlsPort(), true, dnsAddr, store)
	front := wfe.New(quiet, store, validator, issuer, []string{"pebble.letsencrypt.org"}, true, o.requireEAB, o.retryAuthz, o.retryOrder)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handler = front.Handler()
}

func (p *pebble) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.log = append(p.log, r.Method+" "+r.URL.Path)
	faults, rewrites, handler := slices.Clone(p.faults), slices.Clone(p.rewrites), p.handler
	p.mu.Unlock()
	for _, f := range faults {
		if f(w, r) {
			return
		}
	}
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, r)
	for _, rw := range rewrites {
		rw(r, rec)
	}
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

// fail sets the faults; none heals the CA.
func (p *pebble) fail(faults ...fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = faults
}

func (p *pebble) rewrite(rewrites ...rewrite) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rewrites = rewrites
}

// count returns how many requests were made whose "METHOD /path" contains any of the strings; without strings, all.
func (p *pebble) count(contains ...string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.log {
		if len(contains) == 0 || slices.ContainsFunc(contains, func(s string) bool { return strings.Contains(line, s) }) {
			n++
		}
	}
	return n
}

// requests returns the log of requests from number from on.
func (p *pebble) requests(from int) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.log[from:])
}

// The paths of pebble.
const (
	pathOrder     = "/order-plz"
	pathNonce     = "/nonce-plz"
	pathAccount   = "/sign-me-up"
	pathFinalize  = "/finalize-order/"
	pathMyOrder   = "/my-order/"
	pathAuthz     = "/authZ/"
	pathChallenge = "/chalZ/"
	pathCert      = "/certZ/"
)

// times makes a fault happen to the first n requests that it would answer.
func times(n int, f fault) fault {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if n == 0 || !f(w, r) {
			return false
		}
		n--
		return true
	}
}

// reply answers requests whose path contains the string.
func reply(path string, status int, contentType, body string, headers ...string) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, path) {
			return false
		}
		w.Header().Set("Content-Type", contentType)
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return true
	}
}

// problemReply answers with a problem document.
func problemReply(path string, status int, typ, detail string, headers ...string) fault {
	return reply(path, status, "application/problem+json", fmt.Sprintf(`{"type":"urn:ietf:params:acme:error:%s","detail":%q,"status":%d}`, typ, detail, status), headers...)
}

// node is a server that answers challenges on real loopback ports, as the proxy does on 80 and 443.
type node struct {
	responder *Responder
	http, tls net.Listener
}

// newNode listens; it answers with the responder over the store.
func newNode(t testing.TB, store storage.Store) *node {
	t.Helper()
	n := &node{responder: NewResponder(store, zaptest.NewLogger(t))}
	n.http = listen(t)
	n.tls = listen(t)
	srv := &http.Server{Handler: n.responder.HTTP(http.NotFoundHandler()), ErrorLog: quietLog()}
	tlsSrv := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: quietLog()}
	var served sync.WaitGroup
	served.Go(func() { _ = srv.Serve(n.http) })
	served.Go(func() {
		_ = tlsSrv.Serve(tls.NewListener(n.tls, &tls.Config{NextProtos: []string{"h2", "http/1.1", "acme-tls/1"}, GetCertificate: n.responder.Certificate}))
	})
	t.Cleanup(func() {
		_ = srv.Close()
		_ = tlsSrv.Close()
		served.Wait()
	})
	return n
}

func (n *node) httpPort() int { return n.http.Addr().(*net.TCPAddr).Port }
func (n *node) tlsPort() int  { return n.tls.Addr().(*net.TCPAddr).Port }

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// freePort returns an address for a server that takes no listener. Its port is below those that the system gives to connections (32768 on Linux), so that none of
// them takes it meanwhile, and no other test of this process gets it.
func freePort(t testing.TB) string {
	t.Helper()
	for range 1000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+(os.Getpid()*61+int(portsGiven.Add(1)))%22000))
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

var portsGiven atomic.Int64

// awaitTCP waits until somebody listens.
func awaitTCP(t testing.TB, addr string) {
	t.Helper()
	for range 500 {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			conn.Close()
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatalf("nobody listens at %s", addr)
}

// quickPace asks pebble, which decides within milliseconds, more often than one may ask a real CA.
func quickPace() pace {
	p := defaultPace()
	p.afterProbe, p.unprobed = 25*time.Millisecond, 100*time.Millisecond
	p.order = []time.Duration{25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond}
	p.maxWatched, p.authzMax = 200*time.Millisecond, 200*time.Millisecond
	p.store = []time.Duration{10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond}
	return p
}

// newClient makes a Client of the pebble over the store, with a quick pace.
func newClient(t testing.TB, p *pebble, n *node, store storage.Store, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{
		Name: "pebble", Directory: p.url, Roots: p.roots, AgreeTerms: true, Contact: []string{"mailto:ops@example.test"},
		Store: store, Responder: n.responder, OrderTimeout: 30 * time.Second, Logger: zaptest.NewLogger(t),
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.pace = quickPace()
	c.wire.retries = []time.Duration{10 * time.Millisecond, 20 * time.Millisecond}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// newRequest makes a key and a CSR for the names.
func newRequest(t testing.TB, names ...string) Request {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return requestFor(t, key, names...)
}

// requestFor makes a CSR for the names with the key.
func requestFor(t testing.TB, key crypto.Signer, names ...string) Request {
	t.Helper()
	tmpl := &x509.CertificateRequest{}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return Request{Names: names, CSR: csr}
}

// setup is a node, a pebble and a client over one store.
func setup(t *testing.T, o pebbleOptions, change ...func(*Config)) (*Client, *pebble, *node, *storage.Memory) {
	t.Helper()
	store := storage.NewMemory()
	n := newNode(t, store)
	p := newPebble(t, n, o)
	return newClient(t, p, n, store, change...), p, n, store
}

// parallelSetup is setup for parallel tests.
func parallelSetup(t *testing.T) (*Client, *pebble, *node, *storage.Memory) {
	t.Helper()
	store := storage.NewMemory()
	n := newNode(t, store)
	p := newParallelPebble(t, n)
	return newClient(t, p, n, store), p, n, store
}

// obtain fails the test unless there is a certificate.
func obtain(t testing.TB, c *Client, r Request) *Certificate {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cert, err := c.Obtain(ctx, r)
	if err != nil {
		t.Fatalf("Obtain(%v): %v", r.Names, err)
	}
	return cert
}

func quietLog() *log.Logger { return log.New(io.Discard, "", 0) }
