package acmeclient

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/acmeclient/devca"
)

func TestV1_IssuesByEachChallengeAndRenews(t *testing.T) {
	for _, typ := range []string{ChallengeTLSALPN01, ChallengeHTTP01} { // dns-01 is among the tests of DNSSolver
		t.Run(typ, func(t *testing.T) {
			c, o, _, _ := oldSetup(t, devca.Config{}, func(cfg *Config) { cfg.Challenges = []string{typ} })
			cert := obtain(t, c, newRequest(t, "a.localhost", "b.localhost"))
			if cert.Protocol != ProtocolV1 || cert.Order != "" || cert.Account != o.url+"/acme/reg/1" || len(cert.Chain) != 2 || cert.URL == "" || len(cert.Authorizations) != 2 {
				t.Errorf("certificate is %+v", cert)
			}
			s := c.Status()
			if s.Negotiation.State != "v1" || !s.Negotiation.Deprecated || s.Negotiation.OrdersV1 != 1 || s.Account != cert.Account {
				t.Errorf("status is %+v", s)
			}
			before := len(o.requests(0))
			r := newRequest(t, "a.localhost", "b.localhost")
			r.Predecessor = cert.Chain
			again := obtain(t, c, r)
			if bytes.Equal(again.Chain[0], cert.Chain[0]) || again.Protocol != ProtocolV1 {
				t.Errorf("renewed certificate is %+v", again)
			}
			// The authorizations are valid still: two are asked for, and the certificate with its issuer.
			want := []string{"POST " + pathNewAuthz, "POST " + pathNewAuthz, "POST " + pathNewCert, "GET " + pathIssuer}
			if got := o.requests(before); !slices.Equal(got, want) {
				t.Errorf("renewal asked for %v", got)
			}
		})
	}
}

// TestV1_RegistersAgreesAndIsFound: the account is made in two steps, and found again by its key.
func TestV1_RegistersAgreesAndIsFound(t *testing.T) {
	c, o, n, store := oldSetup(t, devca.Config{})
	first, err := c.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := c.accounts.get().V1.Terms; got != o.url+"/terms/v1" {
		t.Errorf("agreed to %q", got)
	}
	want := []string{"GET " + pathDirectory, "POST " + pathNewReg, "POST " + pathReg + "1"} // the directory brought the first nonce
	if got := o.requests(0); !slices.Equal(got, want) {
		t.Errorf("asked for %v", got)
	}
	forgetRegistration(t, c)
	again, err := newOldClient(t, o, n, store).Account(t.Context())
	if err != nil || again.URL != first.URL || o.Stats().Accounts != 1 {
		t.Errorf("found %+v of %d accounts: %v", again, o.Stats().Accounts, err)
	}
}

// forgetRegistration leaves only the key in the store, as a crash does before the CA's answer was stored.
func forgetRegistration(t *testing.T, c *Client) {
	t.Helper()
	_, err := c.underLease(t.Context(), func(ctx context.Context) (*account, error) {
		acct, version, err := c.loadAccount(ctx)
		if err != nil {
			return nil, err
		}
		acct.V1 = nil
		_, err = c.storeAccount(ctx, acct, version)
		return acct, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestV1_NeedsTheTermsToBeAgreedTo(t *testing.T) {
	for _, meta := range []bool{true, false} { // named by the directory, or by the answer to new-reg alone
		c, o, _, _ := oldSetup(t, devca.Config{}, func(cfg *Config) { cfg.AgreeTerms = false })
		if !meta {
			o.rewrite(withoutMeta)
		}
		_, err := c.Account(t.Context())
		p := problemAt(t, err, "old", ScopeCA)
		if !strings.Contains(p.Advice, o.url+"/terms/v1") || meta && o.count("POST") != 0 {
			t.Errorf("problem is %v, requests %v", p, o.requests(0))
		}
		if meta {
			continue
		}
		c.cfg.AgreeTerms = true
		if _, err := c.Account(t.Context()); err != nil { // the registration that was made is used
			t.Error(err)
		}
		if n := o.Stats().Accounts; n != 1 {
			t.Errorf("%d accounts", n)
		}
	}
}

// withoutMeta takes "meta" out of the directory.
func withoutMeta(r *http.Request, resp *httptest.ResponseRecorder) {
	if r.URL.Path == pathDirectory {
		body := regexp.MustCompile(`(?s)"meta": \{.*?\},?`).ReplaceAllString(resp.Body.String(), `"meta": null,`)
		resp.Body = bytes.NewBufferString(body)
	}
}

func TestV1_RefusesWhatItLacksBeforeAnythingIsSent(t *testing.T) {
	for _, tt := range []struct {
		name   string
		names  []string
		change func(*Config)
		scope  string
		says   string
	}{
		{"an address", []string{"a.localhost", "127.0.0.1"}, func(*Config) {}, ScopeName, "certificates for addresses"},
		{"a profile", []string{"a.localhost"}, func(cfg *Config) { cfg.Profile, cfg.ProfileRequired = "short", true }, ScopeName, "profiles"},
		{"a binding", []string{"a.localhost"}, func(cfg *Config) { cfg.EAB = EAB{KID: "k", HMAC: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"} }, ScopeCA, "bindings"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, o, _, store := oldSetup(t, devca.Config{}, func(cfg *Config) {
				cfg.Private, cfg.Challenges = true, []string{ChallengeHTTP01}
				tt.change(cfg)
			})
			_, err := c.Obtain(t.Context(), newRequest(t, tt.names...))
			p := problemAt(t, err, "old", tt.scope)
			if !strings.Contains(p.Error(), tt.says) || !p.Elsewhere() {
				t.Errorf("problem is %v, elsewhere %v", p, p.Elsewhere())
			}
			if got := o.requests(0); len(got) != 1 || got[0] != "GET "+pathDirectory {
				t.Errorf("asked for %v", got)
			}
			if left, _ := store.List(t.Context(), "acme/old/account", "", 0); len(left) != 0 {
				t.Errorf("an account was made: %v", left)
			}
		})
	}
	t.Run("a wildcard", func(t *testing.T) { // which needs a DNS provider to come this far
		c, _, _, _ := oldSetup(t, devca.Config{})
		p := problemAt(t, c.v1(mustSettle(t, c)).refuse([]string{"*.localhost"}, orderOptions{}), "old", ScopeName)
		if !strings.Contains(p.Error(), "wildcards") || p.Identifier != "*.localhost" || !p.Elsewhere() {
			t.Errorf("problem is %v", p)
		}
	})
	t.Run("a profile that may be left out", func(t *testing.T) {
		c, _, _, _ := oldSetup(t, devca.Config{}, func(cfg *Config) { cfg.Profile = "short" })
		obtain(t, c, newRequest(t, "a.localhost"))
	})
}

func TestV1_RevokesByAccountAndByTheCertificatesKey(t *testing.T) {
	c, o, n, store := oldSetup(t, devca.Config{})
	cert := obtain(t, c, newRequest(t, "a.localhost"))
	for i := range 2 { // that it is revoked already is no error
		if err := c.Revoke(t.Context(), cert.Chain, nil, ReasonSuperseded); err != nil {
			t.Errorf("revocation %d by the account: %v", i+1, err)
		}
	}
	r, key := requestWithKey(t, "b.localhost")
	cert = obtain(t, c, r)
	before := len(o.requests(0))
	if err := newOldClient(t, o, n, store).Revoke(t.Context(), cert.Chain, key, ReasonKeyCompromise); err != nil {
		t.Errorf("revocation by the certificate's key: %v", err)
	}
	if got := o.requests(before); o.count("POST /acme/revoke-cert") != 3 || slices.Contains(got, "POST "+pathNewReg) {
		t.Errorf("asked for %v", got)
	}
	err := c.Revoke(t.Context(), foreignChain(t), nil, ReasonUnspecified)
	var p *Problem
	if !errors.As(err, &p) || p.Status != 404 {
		t.Errorf("revocation of a stranger's certificate: %v", err)
	}
}

func requestWithKey(t *testing.T, names ...string) (Request, *ecdsa.PrivateKey) {
	t.Helper()
	key := newKey(t)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
	if err != nil {
		t.Fatal(err)
	}
	return Request{Names: names, CSR: csr}, key
}

// foreignChain is a certificate for www.localhost that no CA here made.
func foreignChain(t *testing.T) [][]byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), DNSNames: []string{"www.localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	return [][]byte{issueCert(t, tmpl, tmpl, key.Public(), key).Raw}
}

func TestV1_RollsItsKeyUpdatesItsContactAndEnds(t *testing.T) {
	c, o, n, store := oldSetup(t, devca.Config{})
	cert := obtain(t, c, newRequest(t, "a.localhost"))
	old := c.accounts.get().key
	if _, err := c.RollKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sameKey(c.accounts.get().key, old) || o.count("POST /acme/key-change") != 1 {
		t.Error("the key is the old one")
	}
	obtain(t, c, newRequest(t, "b.localhost"))
	other := newOldClient(t, o, n, store, func(cfg *Config) { cfg.Contact = []string{"mailto:new@example.test"} })
	if acct, err := other.Account(t.Context()); err != nil || !slices.Equal(acct.Contact, []string{"mailto:new@example.test"}) {
		t.Errorf("account is %+v, %v", acct, err)
	}
	if err := other.DeactivateAuthorization(t.Context(), cert.Authorizations[0]); err != nil {
		t.Errorf("deactivate the authorization: %v", err)
	}
	az, err := c.v1(mustSettle(t, c)).authorization(t.Context(), cert.Authorizations[0])
	if err != nil || az.status != statusDeactivated {
		t.Errorf("authorization is %+v, %v", az, err)
	}
	if err := other.DeactivateAccount(t.Context()); err != nil {
		t.Errorf("deactivate the account: %v", err)
	}
	age(t, other, store)
	_, err = newOldClient(t, o, n, store).Obtain(t.Context(), newRequest(t, "c.localhost"))
	if p := problemAt(t, err, "old", ScopeAccount); !strings.Contains(p.Advice, "deactivated") {
		t.Errorf("problem is %v", p)
	}
}

// mustSettle returns the directory that is spoken by.
func mustSettle(t *testing.T, c *Client) *directory {
	t.Helper()
	_, dir, err := c.negotiator.settle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestV1_SurvivesSixRefusedNoncesInTen(t *testing.T) {
	c, o, _, _ := oldSetup(t, devca.Config{})
	var mu sync.Mutex
	rnd := mathrand.New(mathrand.NewPCG(1, 2))
	o.fail(func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.Method != http.MethodPost || rnd.IntN(10) >= 6 {
			return false
		}
		w.Header().Set("Replay-Nonce", "AAAA") // not good either
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"type":"urn:acme:error:badNonce","detail":"JWS has invalid anti-replay nonce","status":400}`))
		return true
	})
	var wg sync.WaitGroup
	for i := range 10 {
		r := newRequest(t, fmt.Sprintf("n%d.localhost", i))
		wg.Go(func() {
			if _, err := c.Obtain(t.Context(), r); err != nil {
				t.Errorf("Obtain(%v): %v", r.Names, err)
			}
		})
	}
	wg.Wait()
	orders := o.Stats().Orders
	if len(orders) != 10 || o.Stats().Certificates != 10 {
		t.Errorf("orders are %v", orders)
	}
}

func TestV1_ObeysRateLimitsWithAndWithoutRetryAfter(t *testing.T) {
	limited := func(path, detail string, headers ...string) fault {
		return reply(path, 429, "application/problem+json", `{"type":"urn:acme:error:rateLimited","detail":"`+detail+`","status":429}`, headers...)
	}
	for _, tt := range []struct {
		name, path, detail string
		headers            []string
		scope              string
		wait               time.Duration
	}{
		{"new-authz, two minutes", pathNewAuthz, "Error creating new authz :: too many new orders recently", []string{"Retry-After", "120"}, ScopeAccount, 2 * time.Minute},
		{"new-authz, no time", pathNewAuthz, "Error creating new authz :: too many failed authorizations recently: see https://letsencrypt.org/docs/rate-limits/", nil, ScopeName, 0},
		{"new-cert, two minutes", pathNewCert, "Error creating new cert :: too many certificates already issued for: a.localhost: see https://letsencrypt.org/docs/rate-limits/", []string{"Retry-After", "120"}, ScopeDomain, 2 * time.Minute},
		{"new-reg, an hour", pathNewReg, "Error creating new registration :: too many registrations for this IP address", []string{"Retry-After", "3600"}, ScopeAddress, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, o, _, _ := oldSetup(t, devca.Config{})
			o.fail(limited(tt.path, tt.detail, tt.headers...))
			_, err := c.Obtain(t.Context(), newRequest(t, "a.localhost"))
			p := problemAt(t, err, "old", tt.scope)
			if got := time.Until(p.RetryAt()); tt.wait > 0 && (got < tt.wait-5*time.Second || got > tt.wait) || tt.wait == 0 && !p.RetryAt().IsZero() {
				t.Errorf("retry in %v", got)
			}
			if n := o.count("POST " + tt.path); n != 1 {
				t.Errorf("%d requests", n)
			}
			before := len(o.requests(0))
			_, err = c.Obtain(t.Context(), newRequest(t, "a.localhost"))
			if err == nil || tt.wait > 0 && len(o.requests(before)) != 0 {
				t.Errorf("asked again for %v: %v", o.requests(before), err)
			}
		})
	}
}

// TestV1_SurvivesAFaultOfTheCAAtEachStep: each is out of order once, with what it did done or not.
func TestV1_SurvivesAFaultOfTheCAAtEachStep(t *testing.T) {
	for _, path := range []string{pathNewReg, pathReg, pathNewAuthz, pathAuthzV1, pathChallV1, pathNewCert, pathIssuer} {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, done: %v", path, done), func(t *testing.T) {
				t.Parallel()
				c, o, _, _ := oldSetup(t, devca.Config{})
				if done {
					var once sync.Once
					o.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
						if strings.HasPrefix(r.URL.Path, path) {
							once.Do(func() { resp.Code = http.StatusServiceUnavailable; resp.Body = bytes.NewBufferString("<html>") })
						}
					})
				} else {
					o.fail(times(1, reply(path, 503, "text/html", "<html>")))
				}
				obtain(t, c, newRequest(t, "a.localhost"))
				if n := o.Stats().Accounts; n != 1 {
					t.Errorf("%d accounts", n)
				}
				// Nobody can ask v1 whether a CSR arrived, so that one, and only that one, may come twice.
				if n := o.Stats().Certificates; n != 1 && !(path == pathNewCert && done && n == 2) {
					t.Errorf("%d certificates", n)
				}
			})
		}
	}
}

func TestV1_AwaitsACertificateThatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newBubble(t, devca.Config{Protocols: devca.ProtocolsV1, ProcessingTime: 10 * time.Second, RetryAfter: 3 * time.Second})
		cert := obtain(t, o.client(t), newRequest(t, "a.localhost"))
		if cert.URL == "" || o.count("GET "+pathCertV1) < 2 || o.count("POST "+pathNewCert) != 1 || len(cert.Chain) != 2 {
			t.Errorf("certificate is %+v, requests %v", cert, o.requests(0))
		}
	})
}

// TestV1_ChecksTheCertificate, since anybody's answer may be a certificate.
func TestV1_ChecksTheCertificate(t *testing.T) {
	body := func(path string, change func([]byte) []byte) rewrite {
		return func(r *http.Request, resp *httptest.ResponseRecorder) {
			if strings.HasPrefix(r.URL.Path, path) && resp.Code < 300 {
				resp.Body = bytes.NewBuffer(change(resp.Body.Bytes()))
			}
		}
	}
	up := func(to func(*http.Request) string) rewrite {
		return func(r *http.Request, resp *httptest.ResponseRecorder) {
			if strings.HasPrefix(r.URL.Path, pathIssuer) {
				resp.Header().Set("Link", "<"+to(r)+">;rel=up")
			}
		}
	}
	stranger := foreignChain(t)[0]
	n := 0
	for _, tt := range []struct {
		name    string
		rewrite rewrite
		says    string
	}{
		{"cut short", body("/acme/", func(b []byte) []byte {
			if len(b) > 300 && b[0] == 0x30 {
				return b[:len(b)-1]
			}
			return b
		}), "no certificate in DER"},
		{"somebody else's", body(pathNewCert, func([]byte) []byte { return stranger }), "another key"},
		{"HTML", body(pathNewCert, func([]byte) []byte { return []byte("<html>") }), ""}, // it is read again where it lies
		{"somebody else's issuer", body(pathIssuer, func([]byte) []byte { return stranger }), "not signed by the next"},
		{"an issuer in HTML", body(pathIssuer, func([]byte) []byte { return []byte("<html>") }), "no certificate in DER"},
		{"issuers without end", up(func(r *http.Request) string { n++; return fmt.Sprintf("http://%s/acme/issuer-cert?%d", r.Host, n) }), "longer than"},
		{"issuers that go round", up(func(r *http.Request) string { return "http://" + r.Host + r.URL.Path }), "round"},
		{"an issuer elsewhere", up(func(*http.Request) string { return "http://127.0.0.1:1/issuer" }), "another host"},
		{"an issuer by ftp", up(func(r *http.Request) string { return "ftp://" + r.Host + "/issuer" }), "not an absolute https URL"},
		{"an issuer of another host by plain http", up(func(*http.Request) string { return "http://ca.test/issuer" }), "another host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, o, _, _ := oldSetup(t, devca.Config{})
			o.rewrite(tt.rewrite)
			r := newRequest(t, "www.localhost")
			_, err := c.Obtain(t.Context(), r)
			if tt.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if p := problemAt(t, err, "old", ScopeCA); !strings.Contains(p.Error(), tt.says) {
				t.Errorf("problem does not say %q: %v", tt.says, p)
			}
			if got := o.count("GET " + pathIssuer); got > maxChain {
				t.Errorf("%d issuers were asked for", got)
			}
			o.rewrite()
			obtain(t, c, r)
		})
	}
}

// TestV1_IsContinuedByASuccessor: whatever the moment of the crash, one registration; and one certificate, unless the crash hid new-cert's answer.
func TestV1_IsContinuedByASuccessor(t *testing.T) {
	for _, path := range []string{pathNewReg, pathReg, pathNewAuthz, pathAuthzV1, pathChallV1, pathNewCert, pathIssuer} {
		for _, arrived := range []bool{false, true} {
			t.Run(fmt.Sprintf("crash at %s, request arrived: %v", path, arrived), func(t *testing.T) {
				t.Parallel()
				testCrashV1(t, path, arrived)
			})
		}
	}
}

func testCrashV1(t *testing.T, path string, arrived bool) {
	c, o, n, store := oldSetup(t, devca.Config{})
	ctx, crash := context.WithCancel(t.Context())
	die := func(r *http.Request) {
		if strings.HasPrefix(r.URL.Path, path) && ctx.Err() == nil {
			crash()
			panic(http.ErrAbortHandler)
		}
	}
	if arrived {
		o.rewrite(func(r *http.Request, _ *httptest.ResponseRecorder) { die(r) })
	} else {
		o.fail(func(_ http.ResponseWriter, r *http.Request) bool { die(r); return false })
	}
	r := newRequest(t, "a.localhost", "b.localhost")
	if _, err := c.Obtain(ctx, r); err == nil {
		t.Fatal("no error of the one that crashes")
	}
	obtain(t, newOldClient(t, o, n, store), r)
	s := o.Stats()
	if s.Accounts != 1 || s.Certificates != 1 && !(path == pathNewCert && arrived && s.Certificates == 2) || s.Failures != 0 {
		t.Errorf("%+v", s)
	}
	if left, _ := store.List(t.Context(), "acme/old/orders/", "", 0); len(left) != 0 {
		t.Errorf("orders left behind: %v", left)
	}
}

func TestV1_GivesTheSameCertificateAgainUntilTheOrderIsForgotten(t *testing.T) {
	c, o, n, store := oldSetup(t, devca.Config{})
	r := newRequest(t, "a.localhost")
	r.Hold = true
	first := obtain(t, c, r)
	again := obtain(t, newOldClient(t, o, n, store), r)
	if s := o.Stats(); s.Certificates != 1 || !bytes.Equal(again.Chain[0], first.Chain[0]) {
		t.Errorf("%d certificates, and the successor got the same one: %v", s.Certificates, bytes.Equal(again.Chain[0], first.Chain[0]))
	}
	c.Forget(t.Context(), r.CSR)
	if left, _ := store.List(t.Context(), "acme/old/orders/", "", 0); len(left) != 0 {
		t.Errorf("orders left behind: %v", left)
	}
}

func TestV1_TellsWhyAValidationFailedAndRotates(t *testing.T) {
	c, o, n, _ := oldSetup(t, devca.Config{})
	n.http.Close()
	n.tls.Close()
	for _, typ := range []string{ChallengeTLSALPN01, ChallengeHTTP01} {
		_, err := c.Obtain(t.Context(), newRequest(t, "a.localhost"))
		p := problemAt(t, err, "old", ScopeName)
		if p.Op != "validate "+typ || p.Identifier != "a.localhost" || !strings.HasPrefix(p.Type, "urn:acme:error:") {
			t.Errorf("problem is %+v", p)
		}
	}
	if n := o.count("POST " + pathAuthzV1); n != 0 {
		t.Error("an authorization was deactivated")
	}
}

// TestV1_TellsTheEndFromAnOutage, step by step as it came.
func TestV1_TellsTheEndFromAnOutage(t *testing.T) {
	t.Run("no new registrations", func(t *testing.T) {
		c, o, n, store := oldSetup(t, devca.Config{V1: devca.V1Switches{NoNewRegistrations: true}})
		_, err := c.Obtain(t.Context(), newRequest(t, "a.localhost"))
		p := problemAt(t, err, "old", ScopeCA)
		if !strings.Contains(p.Advice, "no new accounts over ACME v1") || time.Until(p.RetryAt()) < 9*time.Minute || o.count("POST "+pathNewReg) != 1 {
			t.Errorf("problem is %v, requests %v", p, o.requests(0))
		}
		o.SetV1(devca.V1Switches{})
		obtain(t, newOldClient(t, o, n, store), newRequest(t, "a.localhost"))
		o.SetV1(devca.V1Switches{NoNewRegistrations: true})
		obtain(t, newOldClient(t, o, n, store), newRequest(t, "b.localhost")) // a known account goes on
	})
	t.Run("no new names", func(t *testing.T) {
		c, o, _, _ := oldSetup(t, devca.Config{})
		obtain(t, c, newRequest(t, "a.localhost"))
		o.SetV1(devca.V1Switches{NoNewNames: true})
		_, err := c.Obtain(t.Context(), newRequest(t, "b.localhost"))
		p := problemAt(t, err, "old", ScopeName)
		if !strings.Contains(p.Advice, "no new names over ACME v1") || !p.Elsewhere() || p.Identifier != "b.localhost" {
			t.Errorf("problem is %v", p)
		}
		obtain(t, c, newRequest(t, "a.localhost")) // renewal goes on
	})
	for status, detail := range map[int]string{403: "ACMEv1 is deprecated and you can no longer get certificates from this endpoint.", 410: "gone"} {
		t.Run(fmt.Sprintf("off with %d", status), func(t *testing.T) {
			c, o, _, _ := oldSetup(t, devca.Config{})
			obtain(t, c, newRequest(t, "a.localhost"))
			o.fail(reply("/", status, "application/problem+json", fmt.Sprintf(`{"type":"urn:acme:error:serverInternal","detail":%q}`, detail)))
			_, err := c.Obtain(t.Context(), newRequest(t, "b.localhost"))
			p := problemAt(t, err, "old", ScopeCA)
			if !strings.Contains(p.Error(), "closed ACME v1") || !strings.Contains(p.Error(), detail) || o.count("POST "+pathNewAuthz) != 2 {
				t.Errorf("problem is %v, requests %v", p, o.requests(0))
			}
		})
	}
	t.Run("an outage with the same type", func(t *testing.T) {
		c, o, _, _ := oldSetup(t, devca.Config{})
		obtain(t, c, newRequest(t, "a.localhost"))
		o.fail(times(2, reply(pathNewAuthz, 500, "application/problem+json", `{"type":"urn:acme:error:serverInternal","detail":"boom"}`)))
		obtain(t, c, newRequest(t, "b.localhost")) // tried again at once
	})
}

func TestV1_RegistersALostAccountAgainWithTheSameKey(t *testing.T) {
	c, o, n, store := oldSetup(t, devca.Config{})
	obtain(t, c, newRequest(t, "a.localhost"))
	key := c.accounts.get().key
	successor, err := devca.New(devca.Config{Protocols: devca.ProtocolsV1, HTTPAddr: n.http.Addr().String(), TLSAddr: n.tls.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer successor.Close()
	o.fail(func(w http.ResponseWriter, r *http.Request) bool {
		successor.Handler().ServeHTTP(w, r)
		return true
	})
	age(t, c, store)
	c = newOldClient(t, o, n, store)
	obtain(t, c, newRequest(t, "b.localhost"))
	if !sameKey(c.accounts.get().key, key) || successor.Stats().Accounts != 1 {
		t.Errorf("%d accounts, same key %v", successor.Stats().Accounts, sameKey(c.accounts.get().key, key))
	}
}

// TestV1_AgreesWhereAnOlderAccountNeverDid: what the CA refuses for the account's sake is put right, and asked for once more.
func TestV1_AgreesWhereAnOlderAccountNeverDid(t *testing.T) {
	c, o, _, _ := oldSetup(t, devca.Config{})
	o.rewrite(withoutTerms)
	if _, err := c.Account(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.rewrite(withoutMeta)
	obtain(t, c, newRequest(t, "a.localhost"))
	if o.count("POST "+pathNewAuthz) != 2 || o.count("POST "+pathReg) != 2 || o.Stats().Accounts != 1 {
		t.Errorf("asked for %v", o.requests(0))
	}
}

// withoutTerms is a CA that names its terms nowhere.
func withoutTerms(r *http.Request, resp *httptest.ResponseRecorder) {
	withoutMeta(r, resp)
	if r.URL.Path == pathNewReg {
		resp.Header().Del("Link")
	}
}

// TestV1_CopesWithTheOtherDialect: what x/crypto's own test CA of 2018 made of the protocol (facts/acme-v1, a, at the end).
func TestV1_CopesWithTheOtherDialect(t *testing.T) {
	c, o, n, store := oldSetup(t, devca.Config{})
	o.rewrite(withoutMeta)
	if _, err := c.Account(t.Context()); err != nil { // that CA knows no terms, this one has to have them agreed to
		t.Fatal(err)
	}
	forgetRegistration(t, c)
	o.rewrite(otherDialect)
	c = newOldClient(t, o, n, store)
	cert := obtain(t, c, newRequest(t, "a.localhost"))
	if cert.Account != "" || cert.URL != "" || len(cert.Chain) != 2 {
		t.Errorf("certificate is %+v", cert)
	}
	o.fail(reply(pathNewAuthz, 400, "text/plain", "no way"))
	_, err := c.Obtain(t.Context(), newRequest(t, "b.localhost"))
	if p := problemAt(t, err, "old", ScopeCA); p.Status != 400 {
		t.Errorf("problem is %+v", p)
	}
}

// otherDialect makes devca's answers those of the other CA.
func otherDialect(r *http.Request, resp *httptest.ResponseRecorder) {
	withoutTerms(r, resp)
	h := resp.Header()
	if link := h.Get("Link"); link != "" {
		h.Set("Link", strings.ReplaceAll(strings.ReplaceAll(link, `"`, ""), ";", "; "))
	}
	empty := func() {
		resp.Code, resp.Body = http.StatusOK, bytes.NewBufferString("{}")
		h.Del("Location")
	}
	switch {
	case r.Method == http.MethodPost && (r.URL.Path == pathNewReg || strings.HasPrefix(r.URL.Path, pathChallV1)):
		empty()
	case r.URL.Path == pathNewCert && resp.Code == http.StatusCreated:
		resp.Code = http.StatusOK
		h.Del("Location")
	case strings.Contains(r.URL.Path, "authz"):
		var az map[string]any
		if json.Unmarshal(resp.Body.Bytes(), &az) == nil {
			delete(az, "expires")
			delete(az, "combinations")
			resp.Body.Reset()
			_ = json.NewEncoder(resp.Body).Encode(az)
		}
	}
}

func TestV1_NonceComesFromNewRegWhereTheDirectoryHasNone(t *testing.T) {
	c, o, _, _ := oldSetup(t, devca.Config{})
	obtain(t, c, newRequest(t, "a.localhost"))
	o.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
		if r.URL.Path == pathDirectory {
			resp.Header().Del("Replay-Nonce")
		}
	})
	c.wire.noncesV1 = noncePool{}
	before := len(o.requests(0))
	obtain(t, c, newRequest(t, "b.localhost"))
	if got := o.requests(before); len(got) < 3 || got[0] != "HEAD "+pathDirectory || got[1] != "HEAD "+pathNewReg || !strings.HasPrefix(got[2], "POST ") {
		t.Errorf("asked for %v", got)
	}
}

// TestV1_NoncesOfOneProtocolAreNotUsedInTheOther: beside each other they may be two servers.
func TestV1_NoncesOfOneProtocolAreNotUsedInTheOther(t *testing.T) {
	c, _, _, _ := oldSetup(t, devca.Config{})
	obtain(t, c, newRequest(t, "a.localhost"))
	if _, ok := c.wire.nonces.take(time.Now()); ok {
		t.Error("a nonce of v1 is among those of v2")
	}
	if _, ok := c.wire.noncesV1.take(time.Now()); !ok {
		t.Error("no nonce of v1 was kept")
	}
}

func FuzzV1Answers(f *testing.F) {
	f.Add(200, `{"identifier":{"type":"dns","value":"a.test"},"status":"valid","expires":"2026-12-21T17:50:29Z","challenges":[{"type":"http-01","status":"valid","uri":"http://ca.test/c","token":"plq_N4evGuvYi3f-M0M51dOThmEwTgysqm2MCtvm51k"}],"combinations":[[0]]}`, `<http://ca.test/up>;rel="up"`, "1")
	f.Add(202, `{"challenges":[{"type":"x"},{"type":"y"}],"combinations":[[0,1],[5],[-1],[]]}`, "", "")
	f.Add(403, `{"type":"urn:acme:error:serverInternal","detail":"ACMEv1 Brownout in Progress."}`, "", "86400")
	f.Add(429, `{"type":"urn:acme:error:rateLimited"}`, "<>;rel=next", "soon")
	f.Add(400, `[]`, "<a>; rel=up, <b>;rel=\"up next\"", "-1")
	f.Fuzz(func(t *testing.T, status int, body, link, wait string) {
		ex := &exchange{endpoint: endpointNewAuthz, status: status, header: http.Header{"Link": {link}, "Retry-After": {wait}}}
		if status >= 400 {
			ex.problem, ex.isProblem = parseDocument([]byte(body))
		}
		if az, _, err := parseAuthzV1("http://ca.test/a", ex, []byte(body)); err == nil {
			if az.status == "" || az.retryAfter < 0 {
				t.Errorf("authorization is %+v", az)
			}
			for _, ch := range az.challenges {
				if ch.problem != nil && clean(ch.problem.detail) != ch.problem.detail {
					t.Errorf("unclean: %q", ch.problem.detail)
				}
			}
		}
		(&order{}).took(ex, []byte(body))
		d := &v1{wire: &wire{ca: "fuzz"}, moved: func() {}, pause: func() time.Duration { return time.Hour }}
		for _, endpoint := range []string{endpointNewReg, endpointNewAuthz, endpointNewCert, endpointAuthz, endpointRevokeV1} {
			ex.endpoint = endpoint
			var p *Problem
			if err := d.explain("fuzz", ex, errors.New("x")); !errors.As(err, &p) || p.scope == "" || p.Advice == "" || !p.retryAt.IsZero() && time.Until(p.retryAt) < 0 {
				t.Errorf("problem is %+v", p)
			}
		}
	})
}
