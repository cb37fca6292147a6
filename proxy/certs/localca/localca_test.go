package localca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"gatelodge/proxy/certs"
	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newCA(t testing.TB, store storage.Store) *CA {
	t.Helper()
	ca, err := New(Config{Store: store, Names: []string{"*.lan.example"}, Logger: zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel))})
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func request(t testing.TB, names ...string) *certs.Request {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.CertificateRequest{}
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return &certs.Request{Names: names, CSR: csr}
}

// verify does what a client does that trusts the root alone.
func verify(t testing.TB, ca *CA, chain [][]byte, host string) *x509.Certificate {
	t.Helper()
	rootPEM, err := ca.RootPEM(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	roots, inters := x509.NewCertPool(), x509.NewCertPool()
	if !roots.AppendCertsFromPEM(rootPEM) {
		t.Fatal("the root is no PEM")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, der := range chain[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		inters.AddCert(c)
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	paths, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: inters, CurrentTime: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if len(paths[0]) != 3 {
		t.Errorf("a path of %d", len(paths[0]))
	}
	return leaf
}

func TestCA_IssuesWhatClientsOfItsRootAccept(t *testing.T) {
	ca := newCA(t, storage.NewMemory())
	for _, name := range []string{"localhost", "a.b.localhost", "db.internal", "printer.local", "x.home.arpa", "nas.lan.example", "127.0.0.1", "10.1.2.3", "fe80::1", "fd00::1"} {
		issued, err := ca.Issue(t.Context(), request(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		leaf := verify(t, ca, issued.Chain, name)
		if life := time.Until(leaf.NotAfter); life < 6*24*time.Hour || life > 7*24*time.Hour || leaf.IsCA {
			t.Errorf("%s lives for %s", name, life)
		}
	}
}

func TestCA_RefusesOtherNames(t *testing.T) {
	ca := newCA(t, storage.NewMemory())
	for _, c := range []struct {
		why string
		req *certs.Request
	}{
		{"a public name", request(t, "example.com")},
		{"one that only ends alike", request(t, "evillocalhost")},
		{"a public address", request(t, "8.8.8.8")},
		{"a public name beside one of its own", request(t, "localhost", "example.com")},
		{"a request for more than was said", &certs.Request{Names: []string{"localhost"}, CSR: request(t, "localhost", "example.com").CSR}},
		{"no request", &certs.Request{Names: []string{"localhost"}, CSR: []byte("x")}},
	} {
		_, err := ca.Issue(t.Context(), c.req)
		failure, ok := errors.AsType[certs.ExplainedFailure](err)
		if !ok || failure.Scope() != certs.ScopeName || failure.Problem().Advice == "" {
			t.Errorf("%s: %v", c.why, err)
		}
	}
}

func TestCA_KeepsItsRootAcrossRestartsAndProcesses(t *testing.T) {
	store := storage.NewMemory()
	var mu sync.Mutex
	roots := map[string]bool{}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			root, err := newCA(t, store).RootPEM(t.Context())
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			roots[string(root)] = true
		})
	}
	all.Wait()
	if len(roots) != 1 {
		t.Errorf("%d roots", len(roots))
	}
}

func TestCA_ReplacesItsIntermediateBeforeItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storage.NewMemory()
		ca := newCA(t, store)
		first, err := ca.RootPEM(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		inters := map[string]bool{}
		for range 365 {
			issued, err := ca.Issue(t.Context(), request(t, "localhost"))
			if err != nil {
				t.Fatal(err)
			}
			leaf := verify(t, ca, issued.Chain, "localhost")
			if time.Until(leaf.NotAfter) < 6*24*time.Hour {
				t.Fatalf("cut short by its intermediate: %s", time.Until(leaf.NotAfter))
			}
			inters[string(issued.Chain[1])] = true
			time.Sleep(24 * time.Hour)
		}
		if len(inters) < 4 || len(inters) > 6 {
			t.Errorf("%d intermediates in a year", len(inters))
		}
		again, err := newCA(t, store).RootPEM(t.Context())
		if err != nil || string(again) != string(first) {
			t.Error("the root changed")
		}
	})
}

func TestCA_StorageTroubleIsNoFaultOfTheName(t *testing.T) {
	store := storagetest.NewFaulty(storage.NewMemory(), storagetest.Fault{Op: storagetest.Get})
	ca := newCA(t, store)
	_, err := ca.Issue(t.Context(), request(t, "localhost"))
	if _, failure := errors.AsType[certs.Failure](err); err == nil || failure {
		t.Errorf("%v", err)
	}
	store.Set(storagetest.Fault{Op: storagetest.PutIf, Applied: true, Times: 1})
	_, _ = ca.Issue(t.Context(), request(t, "localhost")) // the root was stored, though storage said otherwise
	root, err := ca.RootPEM(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := newCA(t, store).RootPEM(t.Context()); err != nil || string(again) != string(root) {
		t.Errorf("two roots, %v", err)
	}
}

func TestNew_ChecksTheConfiguration(t *testing.T) {
	store, log := storage.NewMemory(), zap.NewNop()
	for _, cfg := range []Config{{Logger: log}, {Store: store}, {Store: store, Logger: log, Lifetime: -time.Hour}, {Store: store, Logger: log, Lifetime: 1000 * time.Hour}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func TestManagerWithLocalCA_ServesLocalhostWithoutNetwork(t *testing.T) {
	store := storage.NewMemory()
	ca := newCA(t, store)
	m, err := certs.New(certs.Config{Store: store, Logger: zap.NewNop()}, certs.Settings{
		Lookup: func(string) (certs.Policy, bool) { return certs.Policy{Site: "localhost"}, true },
		Listed: []string{"localhost", "127.0.0.1", "*.localhost"},
		CAs:    []certs.CA{{Issuer: ca, Names: DefaultNames(), Internal: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: m.GetCertificate})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	})
	roots := x509.NewCertPool()
	rootPEM, err := ca.RootPEM(t.Context())
	if err != nil || !roots.AppendCertsFromPEM(rootPEM) {
		t.Fatal(err)
	}
	for _, name := range []string{"localhost", "demo.localhost", "127.0.0.1"} {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", listener.Addr().String(), &tls.Config{ServerName: name, RootCAs: roots})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		conn.Close()
	}
	listener.Close()
	serving.Wait()
	if block, _ := pem.Decode(rootPEM); block == nil || block.Type != "CERTIFICATE" {
		t.Error("the root is no PEM")
	}
}

func BenchmarkIssue(b *testing.B) {
	ca := newCA(b, storage.NewMemory())
	req := request(b, "localhost")
	for b.Loop() {
		if _, err := ca.Issue(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}
