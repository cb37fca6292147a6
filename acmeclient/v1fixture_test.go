package acmeclient

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"gatelodge/acmeclient/devca"
	"gatelodge/storage"
)

// oldCA is devca with v1 in process, with a place for faults before it and a log of who was asked what.
type oldCA struct {
	*devca.CA
	url string // scheme and host

	mu       sync.Mutex
	faults   []fault
	rewrites []rewrite
	log      []string // "METHOD /path"
}

// newOldCA starts a CA that validates at the node's ports. It speaks plain HTTP, since the tests look at what is sent.
func newOldCA(t *testing.T, n *node, cfg devca.Config) *oldCA {
	t.Helper()
	cfg.HTTPAddr, cfg.TLSAddr, cfg.PlainHTTP = n.http.Addr().String(), n.tls.Addr().String(), true
	if cfg.Protocols == "" {
		cfg.Protocols = devca.ProtocolsV1
	}
	ca, err := devca.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	o := &oldCA{CA: ca}
	srv := httptest.NewServer(o)
	o.url = srv.URL
	t.Cleanup(func() {
		srv.Close()
		if err := ca.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

func (o *oldCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.log = append(o.log, r.Method+" "+r.URL.Path)
	faults, rewrites := slices.Clone(o.faults), slices.Clone(o.rewrites)
	o.mu.Unlock()
	for _, f := range faults {
		if f(w, r) {
			return
		}
	}
	rec := httptest.NewRecorder()
	o.Handler().ServeHTTP(rec, r)
	for _, rw := range rewrites {
		rw(r, rec)
	}
	for k, v := range rec.Header() {
		if k != "Content-Length" {
			w.Header()[k] = v
		}
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

func (o *oldCA) fail(faults ...fault) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.faults = faults
}

func (o *oldCA) rewrite(rewrites ...rewrite) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rewrites = rewrites
}

// requests returns the log of requests from number from on.
func (o *oldCA) requests(from int) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.log[from:])
}

// count returns how many requests had a "METHOD /path" that contains one of the strings.
func (o *oldCA) count(contains ...string) (n int) {
	for _, line := range o.requests(0) {
		if slices.ContainsFunc(contains, func(s string) bool { return strings.Contains(line, s) }) {
			n++
		}
	}
	return n
}

// The paths of devca's v1.
const (
	pathDirectory = "/directory"
	pathNewReg    = "/acme/new-reg"
	pathReg       = "/acme/reg/"
	pathNewAuthz  = "/acme/new-authz"
	pathAuthzV1   = "/acme/authz-v3/"
	pathChallV1   = "/acme/chall-v3/"
	pathNewCert   = "/acme/new-cert"
	pathCertV1    = "/acme/cert/"
	pathIssuer    = "/acme/issuer-cert"
	pathsV1       = "/acme/" // all of them but the directory
)

// newOldClient makes a client of the CA over the store, with a quick pace.
func newOldClient(t *testing.T, o *oldCA, n *node, store storage.Store, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{
		Name: "old", Directory: o.url + pathDirectory, AgreeTerms: true, Contact: []string{"mailto:ops@example.test"},
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

// oldSetup is a node, a CA that speaks v1, and a client over one store.
func oldSetup(t *testing.T, cfg devca.Config, change ...func(*Config)) (*Client, *oldCA, *node, *storage.Memory) {
	t.Helper()
	store := storage.NewMemory()
	n := newNode(t, store)
	o := newOldCA(t, n, cfg)
	return newOldClient(t, o, n, store, change...), o, n, store
}

// logged returns a logger whose entries of a level and above can be looked at.
func logged(level zap.AtomicLevel) (*zap.Logger, *observer.ObservedLogs) {
	core, logs := observer.New(level)
	return zap.New(core), logs
}

// negotiated reads what the store knows of the CA.
func negotiated(t *testing.T, store storage.Store, ca string) negotiation {
	t.Helper()
	data, _, err := store.Get(t.Context(), "acme/"+ca+"/negotiation")
	if err != nil {
		t.Fatal(err)
	}
	var n negotiation
	if err := json.Unmarshal(data, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
