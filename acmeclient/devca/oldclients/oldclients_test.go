package oldclients

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
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

	lego "github.com/xenolf/lego/acme"
	"golang.org/x/crypto/acme"

	"gatelodge/acmeclient/devca"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// syncBuffer is a log that several goroutines write to.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
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

// startCA serves v1 alone.
func startCA(t *testing.T, httpAddr, tlsAddr string) (*devca.CA, *syncBuffer) {
	t.Helper()
	lines := new(syncBuffer)
	ca, err := devca.New(devca.Config{Protocols: devca.ProtocolsV1, HTTPAddr: httpAddr, TLSAddr: tlsAddr, Log: lines})
	must(t, err)
	must(t, ca.Start(t.Context()))
	t.Cleanup(func() {
		if err := ca.Close(); err != nil {
			t.Error(err)
		}
	})
	return ca, lines
}

func transportFor(t *testing.T, ca *devca.CA) *http.Transport {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Roots()}}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

func csrFor(t *testing.T, key crypto.Signer, name string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, key)
	must(t, err)
	return der
}

// verify holds a chain to the CA's root and the name.
func verify(t *testing.T, ca *devca.CA, chain [][]byte, name string) {
	t.Helper()
	if len(chain) != 2 {
		t.Fatalf("chain has %d certificates, want leaf and intermediate", len(chain))
	}
	leaf, err := x509.ParseCertificate(chain[0])
	must(t, err)
	inter, err := x509.ParseCertificate(chain[1])
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(inter)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: ca.Roots(), Intermediates: pool, DNSName: name})
	must(t, err)
}

func wantLog(t *testing.T, lines *syncBuffer, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(lines.String(), w) {
			t.Errorf("devca's log lacks %q:\n%s", w, lines.String())
		}
	}
}

// answers is a web server for challenges.
type answers struct {
	mu    sync.Mutex
	files map[string]string
	certs map[string]*tls.Certificate
}

func (a *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, _ = io.WriteString(w, a.files[r.Host+r.URL.Path])
}

func (a *answers) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.certs[hello.ServerName]; c != nil {
		return c, nil
	}
	return nil, errors.New("no certificate for this name")
}

func newAnswers(t *testing.T) (a *answers, httpAddr, tlsAddr string) {
	t.Helper()
	a = &answers{files: make(map[string]string), certs: make(map[string]*tls.Certificate)}
	web := httptest.NewServer(a)
	t.Cleanup(web.Close)
	secure := httptest.NewUnstartedServer(a)
	secure.TLS = &tls.Config{NextProtos: []string{"acme-tls/1"}, GetCertificate: a.certificate}
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	return a, web.Listener.Addr().String(), secure.Listener.Addr().String()
}

// solve publishes the answer to the challenge of that type.
func (a *answers) solve(t *testing.T, c *acme.Client, z *acme.Authorization, kind string) *acme.Challenge {
	t.Helper()
	name := z.Identifier.Value
	for _, ch := range z.Challenges {
		if ch.Type != kind {
			continue
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if kind == "http-01" {
			body, err := c.HTTP01ChallengeResponse(ch.Token)
			must(t, err)
			a.files[name+c.HTTP01ChallengePath(ch.Token)] = body
			return ch
		}
		cert, err := c.TLSALPN01ChallengeCert(ch.Token, name)
		must(t, err)
		a.certs[name] = &cert
		return ch
	}
	t.Fatalf("no %s among the challenges", kind)
	return nil
}

func TestXCryptoOf2020_IssuesAndRevokesOverV1(t *testing.T) {
	for _, kind := range []string{"http-01", "tls-alpn-01"} {
		t.Run(kind, func(t *testing.T) {
			a, httpAddr, tlsAddr := newAnswers(t)
			ca, lines := startCA(t, httpAddr, tlsAddr)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			c := &acme.Client{Key: newKey(t), DirectoryURL: ca.DirectoryURL(), HTTPClient: &http.Client{Transport: transportFor(t, ca)}}

			acct, err := c.Register(ctx, &acme.Account{Contact: []string{"mailto:someone@test.example"}}, acme.AcceptTOS)
			must(t, err)
			if acct.URI == "" || acct.AgreedTerms == "" {
				t.Errorf("account is %+v", acct)
			}
			z, err := c.Authorize(ctx, "a.localhost")
			must(t, err)
			_, err = c.Accept(ctx, a.solve(t, c, z, kind))
			must(t, err)
			_, err = c.WaitAuthorization(ctx, z.URI)
			must(t, err)
			again, err := c.Authorize(ctx, "a.localhost")
			must(t, err)
			if again.Status != acme.StatusValid || again.URI != z.URI {
				t.Errorf("asked again, the authorization is %+v", again)
			}
			chain, _, err := c.CreateCert(ctx, csrFor(t, newKey(t), "a.localhost"), 0, true)
			must(t, err)
			verify(t, ca, chain, "a.localhost")
			must(t, c.RevokeCert(ctx, nil, chain[0], acme.CRLReasonSuperseded))
			wantLog(t, lines, "v1 account 1: registered", "a.localhost valid by "+kind, "v1 account 1: issued a.localhost", "v1 account 1: revoked a.localhost")
		})
	}
}

func TestXCryptoOf2020_RevokesByTheCertificatesKeyAndMovesToV2WithItsAccount(t *testing.T) {
	a, httpAddr, tlsAddr := newAnswers(t)
	ca, lines := startCA(t, httpAddr, tlsAddr)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	key := newKey(t)
	client := func() *acme.Client {
		return &acme.Client{Key: key, DirectoryURL: ca.DirectoryURL(), HTTPClient: &http.Client{Transport: transportFor(t, ca)}}
	}
	c := client()
	_, err := c.Register(ctx, &acme.Account{}, acme.AcceptTOS)
	must(t, err)
	z, err := c.Authorize(ctx, "a.localhost")
	must(t, err)
	_, err = c.Accept(ctx, a.solve(t, c, z, "http-01"))
	must(t, err)
	_, err = c.WaitAuthorization(ctx, z.URI)
	must(t, err)
	certKey := newKey(t)
	chain, _, err := c.CreateCert(ctx, csrFor(t, certKey, "a.localhost"), 0, true)
	must(t, err)
	must(t, c.RevokeCert(ctx, certKey, chain[0], acme.CRLReasonKeyCompromise))

	// The same URL turns into v2; this client reads the directory and follows.
	ca.Upgrade()
	c = client()
	_, err = c.Register(ctx, &acme.Account{}, acme.AcceptTOS)
	if !errors.Is(err, acme.ErrAccountAlreadyExists) {
		t.Fatalf("over v2 the key's account is not found: %v", err)
	}
	o, err := c.AuthorizeOrder(ctx, acme.DomainIDs("b.localhost"))
	must(t, err)
	z, err = c.GetAuthorization(ctx, o.AuthzURLs[0])
	must(t, err)
	_, err = c.Accept(ctx, a.solve(t, c, z, "tls-alpn-01"))
	must(t, err)
	o, err = c.WaitOrder(ctx, o.URI)
	must(t, err)
	chain, _, err = c.CreateOrderCert(ctx, o.FinalizeURL, csrFor(t, newKey(t), "b.localhost"), true)
	must(t, err)
	verify(t, ca, chain, "b.localhost")
	wantLog(t, lines, "v1 account none (certificate key): revoked a.localhost", "v2 account 1 order")
}

// legoUser is what lego wants to know about an account.
type legoUser struct {
	key crypto.PrivateKey
	reg *lego.RegistrationResource
}

func (u *legoUser) GetEmail() string                            { return "someone@test.example" }
func (u *legoUser) GetRegistration() *lego.RegistrationResource { return u.reg }
func (u *legoUser) GetPrivateKey() crypto.PrivateKey            { return u.key }

func TestLegoOf2017_IssuesAndRevokesOverV1(t *testing.T) {
	port := freePort(t)
	ca, lines := startCA(t, port, "")
	lego.HTTPClient = http.Client{Transport: transportFor(t, ca), Timeout: 30 * time.Second} // lego's only way to trust a root
	lego.Logger = log.New(io.Discard, "", 0)

	user := &legoUser{key: newKey(t)}
	c, err := lego.NewClient(ca.DirectoryURL(), user, lego.EC256)
	must(t, err)
	must(t, c.SetHTTPAddress(port))
	c.ExcludeChallenges([]lego.Challenge{lego.TLSSNI01})
	user.reg, err = c.Register()
	must(t, err)
	must(t, c.AgreeToTOS())
	cert, failures := c.ObtainCertificate([]string{"a.localhost", "www.a.localhost"}, true, nil, false)
	if len(failures) > 0 {
		t.Fatalf("obtain: %v", failures)
	}
	verify(t, ca, decodeChain(cert.Certificate), "www.a.localhost")
	must(t, c.RevokeCertificate(cert.Certificate))

	// A known key: 409, and the account is found by its Location.
	twin := &legoUser{key: user.key}
	c, err = lego.NewClient(ca.DirectoryURL(), twin, lego.EC256)
	must(t, err)
	twin.reg, err = c.Register()
	must(t, err)
	if twin.reg.URI != user.reg.URI {
		t.Errorf("registered again, the account is %s, was %s", twin.reg.URI, user.reg.URI)
	}
	wantLog(t, lines, "v1 account 1: registered", "www.a.localhost valid by http-01", "v1 account 1: issued a.localhost, www.a.localhost", "v1 account 1: revoked")
	if n := ca.Stats().Accounts; n != 1 {
		t.Errorf("%d accounts were made", n)
	}
}

func decodeChain(data []byte) [][]byte {
	var chain [][]byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, block.Bytes)
	}
	return chain
}

// freePort is an address that lego's own server can listen on for each challenge.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, ln.Close())
	return ln.Addr().String()
}
