//go:build peers

package acmeclient

import (
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/letsencrypt/challtestsrv"
	"go.uber.org/zap/zaptest"

	"gatelodge/storage"
)

// stepCA is smallstep's step-ca: a CA that nobody here wrote, with habits of its own. Its directory has no meta, no renewalInfo and no profiles; it validates and
// signs while the client waits, sends no Retry-After, issues for 24 hours and does not change account keys.
type stepCA struct {
	addr  string
	roots *x509.CertPool
}

// newStepCA starts one that validates at the node's ports, with the provisioners "acme" and, with external account binding required, "eab".
func newStepCA(t *testing.T, n *node) *stepCA {
	t.Helper()
	dir := t.TempDir()
	s := &stepCA{addr: freePort(t), roots: x509.NewCertPool()}
	root, rootKey := caCert(t, "Root", nil, nil)
	inter, interKey := caCert(t, "Intermediate", root, rootKey)
	s.roots.AddCert(root)
	interDER, err := x509.MarshalECPrivateKey(interKey)
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{
		"root": filepath.Join(dir, "root.crt"), "crt": filepath.Join(dir, "int.crt"), "key": filepath.Join(dir, "int.key"),
		"address": s.addr, "dnsNames": []string{"127.0.0.1"}, "logger": map[string]string{"format": "text"},
		"db": map[string]string{"type": "badgerv2", "dataSource": filepath.Join(dir, "db")},
		"authority": map[string]any{"provisioners": []map[string]any{
			{"type": "ACME", "name": "acme"}, {"type": "ACME", "name": "eab", "requireEAB": true},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"root.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}),
		"int.crt":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: inter.Raw}),
		"int.key":  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: interDER}),
		"ca.json":  config,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.start(t, dir, n)
	return s
}

// start runs the program until the test ends.
func (s *stepCA) start(t *testing.T, dir string, n *node) {
	t.Helper()
	resolver := freePort(t)
	dns, err := challtestsrv.New(challtestsrv.Config{Log: quietLog(), DNSAddrs: []string{resolver}})
	if err != nil {
		t.Fatal(err)
	}
	dns.SetDefaultDNSIPv4("127.0.0.1")
	dns.SetDefaultDNSIPv6("")
	dns.Run()
	t.Cleanup(dns.Shutdown)
	var out lockedBuffer
	cmd := exec.Command("step-ca", filepath.Join(dir, "ca.json"), "--insecure",
		"--acme-http-port", fmt.Sprint(n.httpPort()), "--acme-tls-port", fmt.Sprint(n.tlsPort()), "--resolver", resolver)
	cmd.Env = append(os.Environ(), "STEPPATH="+dir, "HOME="+dir)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("step-ca:\n%s", out.String())
		}
	})
	awaitTCP(t, resolver)
	awaitTCP(t, s.addr)
}

// caCert makes a CA certificate, self-signed without a parent.
func caCert(t *testing.T, name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "Peer " + name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
	}
	if parent == nil {
		parent, parentKey = tmpl, key
	}
	return issueCert(t, tmpl, parent, key.Public(), parentKey), key
}

// client makes a Client of one of its provisioners.
func (s *stepCA) client(t *testing.T, n *node, store storage.Store, provisioner string, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{
		Name: "step-" + provisioner, Directory: "https://" + s.addr + "/acme/" + provisioner + "/directory", Roots: s.roots, AgreeTerms: true,
		Contact: []string{"mailto:ops@example.test"}, Store: store, Responder: n.responder, OrderTimeout: 30 * time.Second, Logger: zaptest.NewLogger(t),
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestPeerStepCA(t *testing.T) {
	store := storage.NewMemory()
	n := newNode(t, store)
	s := newStepCA(t, n)
	for _, typ := range []string{ChallengeHTTP01, ChallengeTLSALPN01} {
		t.Run("issues, renews and revokes by "+typ, func(t *testing.T) {
			testStepCALife(t, s, s.client(t, n, store, "acme", func(cfg *Config) { cfg.Challenges = []string{typ} }))
		})
	}
	t.Run("leaves out what it does not know", func(t *testing.T) {
		c := s.client(t, n, store, "acme", withProfile("shortlived", false), func(cfg *Config) {
			cfg.PreferredChain, cfg.Preflight = "Nobody's Root", PreflightAdvise
		})
		if cert := obtain(t, c, newRequest(t, "www.example.test")); cert.Profile != "" {
			t.Errorf("profile is %q", cert.Profile)
		}
	})
	t.Run("takes a new contact", func(t *testing.T) {
		contact := []string{"mailto:new@example.test"}
		acct, err := s.client(t, n, store, "acme", func(cfg *Config) { cfg.Contact = contact }).Account(t.Context())
		if err != nil || !slices.Equal(acct.Contact, contact) {
			t.Errorf("account is %+v, error %v", acct, err)
		}
	})
	t.Run("does not change account keys, and the account lives on", func(t *testing.T) {
		c := s.client(t, n, store, "acme")
		before, err := c.Account(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		key := c.accounts.get().key
		if _, err := c.RollKey(t.Context()); err == nil {
			t.Error("RollKey: no error; step-ca has learnt it")
		}
		again := s.client(t, n, store, "acme")
		obtain(t, again, newRequest(t, "www.example.test"))
		if now := again.accounts.get(); now.URL != before.URL || !sameKey(now.key, key) || now.Pending != nil {
			t.Errorf("account was %s, is %s; same key %v", before.URL, now.URL, sameKey(now.key, key))
		}
	})
	t.Run("wants a binding", func(t *testing.T) {
		_, err := s.client(t, n, store, "eab").Account(t.Context())
		var p *Problem
		if !errors.As(err, &p) || kind(p.Type) != "externalAccountRequired" || p.Scope() != ScopeCA {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("leaves a challenge pending that it cannot validate", func(t *testing.T) {
		c := s.client(t, &node{responder: NewResponder(storage.NewMemory(), zaptest.NewLogger(t))}, store, "acme",
			func(cfg *Config) { cfg.Challenges = []string{ChallengeHTTP01}; cfg.OrderTimeout = 3 * time.Second }) // nobody answers with what it publishes
		_, err := c.Obtain(t.Context(), newRequest(t, "unanswered.example.test"))
		var p *Problem
		if !errors.As(err, &p) || p.Scope() != ScopeName || p.Advice == "" || p.RetryAt().IsZero() {
			t.Errorf("error is %v", err)
		}
	})
}

// testStepCALife takes certificates from order to revocation.
func testStepCALife(t *testing.T, s *stepCA, c *Client) {
	start := time.Now()
	first := obtain(t, c, newRequest(t, "www.example.test", "example.test"))
	t.Logf("issued in %v", time.Since(start).Round(time.Millisecond))
	leaf := leafOf(t, first)
	pool := x509.NewCertPool()
	for _, der := range first.Chain[1:] {
		inter, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		pool.AddCert(inter)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: s.roots, Intermediates: pool, DNSName: "www.example.test"}); err != nil {
		t.Error(err)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life < 23*time.Hour || life > 25*time.Hour {
		t.Errorf("it lives for %v", life)
	}
	if _, err := c.RenewalInfo(t.Context(), first.Chain); !errors.Is(err, ErrNoRenewalInfo) {
		t.Errorf("renewal information: %v", err)
	}
	r, key := withKey(t, "www.example.test", "example.test")
	r.Predecessor = first.Chain
	second := obtain(t, c, r)
	if leafOf(t, second).SerialNumber.Cmp(leaf.SerialNumber) == 0 {
		t.Error("the renewed certificate is the old one")
	}
	for range 2 { // again is no error
		if err := c.Revoke(t.Context(), first.Chain, nil, ReasonSuperseded); err != nil {
			t.Errorf("revoke by the account: %v", err)
		}
	}
	if err := c.Revoke(t.Context(), second.Chain, key, ReasonKeyCompromise); err != nil {
		t.Errorf("revoke by the key: %v", err)
	}
}
