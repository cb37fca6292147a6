package devca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
)

// site is what the CA validates against: the two ports of a web server that answers challenges. Everything else it refuses.
type site struct {
	httpAddr, tlsAddr string

	mu      sync.Mutex
	files   map[string]string           // host + path
	certs   map[string]*tls.Certificate // by server name
	handler http.HandlerFunc            // before files
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{files: make(map[string]string), certs: make(map[string]*tls.Certificate)}
	web := httptest.NewUnstartedServer(s)
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.Start()
	t.Cleanup(web.Close)
	secure := httptest.NewUnstartedServer(s)
	secure.TLS = &tls.Config{NextProtos: []string{"acme-tls/1", "http/1.1"}, GetCertificate: s.certificate}
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	s.httpAddr, s.tlsAddr = web.Listener.Addr().String(), secure.Listener.Addr().String()
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	handler, body := s.handler, s.files[r.Host+r.URL.Path]
	s.mu.Unlock()
	if handler != nil {
		handler(w, r)
		return
	}
	if body == "" {
		http.NotFound(w, r)
		return
	}
	_, _ = io.WriteString(w, body)
}

func (s *site) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.certs[hello.ServerName]; c != nil {
		return c, nil
	}
	return nil, errors.New("no certificate for this name")
}

// answer publishes the response to a challenge.
func (s *site) answer(t *testing.T, client *acme.Client, name string, ch *acme.Challenge) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch ch.Type {
	case challengeHTTP:
		body, err := client.HTTP01ChallengeResponse(ch.Token)
		must(t, err)
		s.files[name+client.HTTP01ChallengePath(ch.Token)] = body
	case challengeTLS:
		c, err := client.TLSALPN01ChallengeCert(ch.Token, name)
		must(t, err)
		sni := name
		if net.ParseIP(name) != nil {
			sni = reverseName(name)
		}
		s.certs[sni] = &c
	default:
		t.Fatalf("no answer for %s", ch.Type)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// syncBuffer is a log that several goroutines write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// startCA starts a CA that validates against the site, which may be nil.
func startCA(t *testing.T, s *site, cfg Config) *CA {
	t.Helper()
	if s != nil {
		cfg.HTTPAddr, cfg.TLSAddr = s.httpAddr, s.tlsAddr
	}
	ca, err := New(cfg)
	must(t, err)
	must(t, ca.Start(t.Context()))
	t.Cleanup(func() {
		if err := ca.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return ca
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

// newClient is x/crypto's client, trusting the CA's root and nothing else.
func newClient(t *testing.T, ca *CA, key crypto.Signer) *acme.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Roots()}}
	t.Cleanup(tr.CloseIdleConnections)
	return &acme.Client{
		Key: key, DirectoryURL: ca.DirectoryURL(), HTTPClient: &http.Client{Transport: tr},
		RetryBackoff: func(int, *http.Request, *http.Response) time.Duration { return -1 },
	}
}

func register(t *testing.T, client *acme.Client) string {
	t.Helper()
	a, err := client.Register(t.Context(), &acme.Account{Contact: []string{"mailto:someone@test.example"}}, acme.AcceptTOS)
	must(t, err)
	return a.URI
}

func csrFor(t testing.TB, key crypto.Signer, names ...string) []byte {
	t.Helper()
	var tmpl x509.CertificateRequest
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &tmpl, key)
	must(t, err)
	return der
}

func ids(names ...string) []acme.AuthzID {
	var out []acme.AuthzID
	for _, n := range names {
		if net.ParseIP(n) != nil {
			out = append(out, acme.AuthzID{Type: "ip", Value: n})
		} else {
			out = append(out, acme.AuthzID{Type: "dns", Value: n})
		}
	}
	return out
}

// authorize does everything of an order up to "ready".
func authorize(t *testing.T, s *site, client *acme.Client, kind string, names ...string) *acme.Order {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	o, err := client.AuthorizeOrder(ctx, ids(names...))
	must(t, err)
	for _, u := range o.AuthzURLs {
		z, err := client.GetAuthorization(ctx, u)
		must(t, err)
		if z.Status == acme.StatusValid {
			continue
		}
		for _, ch := range z.Challenges {
			if ch.Type != kind {
				continue
			}
			s.answer(t, client, z.Identifier.Value, ch)
			_, err := client.Accept(ctx, ch)
			must(t, err)
		}
		// Not WaitAuthorization: that sleeps for a second.
		for z.Status == acme.StatusPending {
			z, err = client.GetAuthorization(ctx, u)
			must(t, err)
		}
		if z.Status != acme.StatusValid {
			t.Fatalf("authorization of %s is %s: %v", z.Identifier.Value, z.Status, z.Challenges[0].Error)
		}
	}
	o, err = client.WaitOrder(ctx, o.URI)
	must(t, err)
	return o
}

func issue(t *testing.T, s *site, client *acme.Client, kind string, names ...string) (*x509.Certificate, [][]byte, *ecdsa.PrivateKey) {
	t.Helper()
	o := authorize(t, s, client, kind, names...)
	key := newKey(t)
	chain, _, err := client.CreateOrderCert(t.Context(), o.FinalizeURL, csrFor(t, key, names...), true)
	must(t, err)
	leaf, err := x509.ParseCertificate(chain[0])
	must(t, err)
	return leaf, chain, key
}

// wantProblem fails unless err is the CA's problem of that type and status.
func wantProblem(t *testing.T, err error, status int, kind string) *acme.Error {
	t.Helper()
	var e *acme.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want problem %s", err, kind)
	}
	if e.StatusCode != status || strings.TrimPrefix(e.ProblemType, namespaceV2) != kind {
		t.Fatalf("got problem %d %s (%s), want %d %s", e.StatusCode, e.ProblemType, e.Detail, status, kind)
	}
	return e
}
