package devca

import (
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
)

func TestCA_IssuesToAClientThatNobodyHereWrote(t *testing.T) {
	for _, kind := range []string{challengeHTTP, challengeTLS} {
		t.Run(kind, func(t *testing.T) {
			s := newSite(t)
			var log syncBuffer
			ca := startCA(t, s, Config{Log: &log})
			client := newClient(t, ca, newKey(t))
			register(t, client)
			names := []string{"a.localhost", "b.test.example", "127.0.0.1"}
			leaf, chain, key := issue(t, s, client, kind, names...)
			verifyChain(t, ca, leaf, chain)
			if !key.PublicKey.Equal(leaf.PublicKey) {
				t.Error("the certificate has another key than the CSR")
			}
			for _, n := range names {
				must(t, leaf.VerifyHostname(n))
			}
			if life := leaf.NotAfter.Sub(leaf.NotBefore) + time.Second; life != defaultLifetime {
				t.Errorf("lifetime is %v, want %v", life, defaultLifetime)
			}
			must(t, client.RevokeCert(t.Context(), nil, chain[0], acme.CRLReasonSuperseded))
			st := ca.Stats()
			if st.Accounts != 1 || st.Orders["a.localhost"] != 1 || st.Certificates != 1 || st.Validations != 3 || st.Requests["newOrder"] != 1 {
				t.Errorf("stats are %+v", st)
			}
			for _, want := range []string{"v2 account 1: registered", "new order for a.localhost, b.test.example, 127.0.0.1", "valid by " + kind, "issued a.localhost", "revoked a.localhost"} {
				if !strings.Contains(log.String(), want) {
					t.Errorf("log lacks %q:\n%s", want, log.String())
				}
			}
		})
	}
}

func verifyChain(t *testing.T, ca *CA, leaf *x509.Certificate, chain [][]byte) {
	t.Helper()
	if len(chain) != 2 {
		t.Fatalf("chain has %d certificates, want leaf and intermediate", len(chain))
	}
	pool := x509.NewCertPool()
	inter, err := x509.ParseCertificate(chain[1])
	must(t, err)
	pool.AddCert(inter)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: ca.Roots(), Intermediates: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	must(t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca.RootPEM()) || !roots.Equal(ca.Roots()) {
		t.Error("RootPEM is not the root")
	}
}

func TestCA_RevokesByCertificateKeyAndOnlyOnce(t *testing.T) {
	s := newSite(t)
	ca := startCA(t, s, Config{})
	client := newClient(t, ca, newKey(t))
	register(t, client)
	leaf, chain, key := issue(t, s, client, challengeHTTP, "a.localhost")

	stranger := newClient(t, ca, newKey(t))
	wantProblem(t, stranger.RevokeCert(t.Context(), newKey(t), chain[0], 0), http.StatusForbidden, "unauthorized")
	register(t, stranger)
	wantProblem(t, stranger.RevokeCert(t.Context(), nil, chain[0], 0), http.StatusForbidden, "unauthorized")
	wantProblem(t, client.RevokeCert(t.Context(), nil, chain[0], acme.CRLReasonCACompromise), http.StatusBadRequest, "badRevocationReason")
	wantProblem(t, client.RevokeCert(t.Context(), nil, chain[1], 0), http.StatusNotFound, "malformed")

	must(t, stranger.RevokeCert(t.Context(), key, chain[0], acme.CRLReasonKeyCompromise))
	if c := ca.state.certificate(serialString(leaf)); c.RevokedAt.IsZero() || c.Reason != reasonKeyCompromise {
		t.Errorf("certificate is not revoked: %+v", c)
	}
	// x/crypto takes alreadyRevoked for success, so only the status of the second answer can be seen below.
	must(t, client.RevokeCert(t.Context(), nil, chain[0], 0))
	o := authorize(t, s, client, challengeHTTP, "a.localhost")
	_, _, err := client.CreateOrderCert(t.Context(), o.FinalizeURL, csrFor(t, key, "a.localhost"), true)
	wantProblem(t, err, http.StatusBadRequest, "badCSR")
}

func TestCA_RevokesForAnAccountAuthorizedForAllNames(t *testing.T) {
	s := newSite(t)
	ca := startCA(t, s, Config{})
	first, second := newClient(t, ca, newKey(t)), newClient(t, ca, newKey(t))
	register(t, first)
	register(t, second)
	_, chain, _ := issue(t, s, first, challengeHTTP, "a.localhost", "b.localhost")
	authorize(t, s, second, challengeHTTP, "a.localhost")
	wantProblem(t, second.RevokeCert(t.Context(), nil, chain[0], 0), http.StatusForbidden, "unauthorized")
	authorize(t, s, second, challengeHTTP, "b.localhost")
	must(t, second.RevokeCert(t.Context(), nil, chain[0], 0))
}

func TestCA_KeepsRootAccountsAndCertificatesOverARestart(t *testing.T) {
	s := newSite(t)
	dir := filepath.Join(t.TempDir(), "ca")
	key := newKey(t)

	ca := startCA(t, s, Config{Dir: dir})
	client := newClient(t, ca, key)
	uri := register(t, client)
	_, chain, _ := issue(t, s, client, challengeHTTP, "a.localhost")
	root, directory := ca.RootPEM(), ca.DirectoryURL()
	must(t, ca.Close())

	again := startCA(t, s, Config{Dir: dir})
	if string(again.RootPEM()) != string(root) {
		t.Fatal("the root changed")
	}
	if again.DirectoryURL() != directory {
		t.Errorf("directory moved from %s to %s", directory, again.DirectoryURL())
	}
	client = newClient(t, again, key)
	a, err := client.GetReg(t.Context(), "")
	must(t, err)
	if a.URI != uri || len(a.Contact) != 1 {
		t.Errorf("account is %+v, want %s with its contact", a, uri)
	}
	must(t, client.RevokeCert(t.Context(), nil, chain[0], 0))
	issue(t, s, client, challengeHTTP, "b.localhost")
	checkModes(t, dir)
}

func checkModes(t *testing.T, dir string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := os.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
		return nil
	}))
}

func TestNew_RefusesAFolderThatOthersCanRead(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	if _, err := New(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("got %v, want the advice to chmod", err)
	}
}

func TestNew_SweepsLeftoversAndNamesDamagedFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	_, err := New(Config{Dir: dir})
	must(t, err)
	leftover := filepath.Join(dir, "accounts", ".tmp-123")
	must(t, os.WriteFile(leftover, []byte("{"), 0o600))
	_, err = New(Config{Dir: dir})
	must(t, err)
	if _, err := os.Stat(leftover); !os.IsNotExist(err) {
		t.Error("the leftover is still there")
	}
	must(t, os.WriteFile(filepath.Join(dir, "accounts", "1.json"), []byte("{"), 0o600))
	if _, err = New(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "1.json") {
		t.Errorf("got %v, want the damaged file's name", err)
	}
	must(t, os.Remove(filepath.Join(dir, "accounts", "1.json")))
	must(t, os.WriteFile(filepath.Join(dir, "ca.pem"), []byte("junk"), 0o600))
	if _, err = New(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "ca.pem") {
		t.Errorf("got %v, want the damaged file's name", err)
	}
}

func TestNew_RefusesAddressesThatAreNotLoopback(t *testing.T) {
	for name, cfg := range map[string]Config{
		"listen on every interface":       {Addr: ":0"},
		"listen on every IPv4 interface":  {Addr: "0.0.0.0:0"},
		"listen on every IPv6 interface":  {Addr: "[::]:0"},
		"listen on a public address":      {Addr: "192.0.2.1:443"},
		"http-01 on another machine":      {HTTPAddr: "192.0.2.1:80"},
		"tls-alpn-01 on another machine":  {TLSAddr: "[2001:db8::1]:443"},
		"resolver on another machine":     {DNSAddr: "192.0.2.53:53"},
		"mapped address, another machine": {HTTPAddr: "[::ffff:192.0.2.1]:80"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(cfg); !errors.Is(err, ErrNotLoopback) {
				t.Errorf("got %v, want ErrNotLoopback", err)
			}
		})
	}
	for name, cfg := range map[string]Config{
		"no port":            {Addr: "127.0.0.1"},
		"lifetime too short": {Lifetime: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(cfg); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestDial_LooksAtTheAddressOnceMore(t *testing.T) {
	conn, err := dialLoopback(t.Context(), "tcp", "192.0.2.1:9")
	if err == nil {
		_ = conn.Close()
	}
	if !errors.Is(err, ErrNotLoopback) {
		t.Errorf("got %v, want ErrNotLoopback", err)
	}
}

func TestCA_StartsOnceAndNotAfterClose(t *testing.T) {
	ca := startCA(t, nil, Config{Addr: "localhost:0", PlainHTTP: true})
	if !strings.HasPrefix(ca.DirectoryURL(), "http://127.0.0.1:") {
		t.Errorf("directory is %s", ca.DirectoryURL())
	}
	if err := ca.Start(t.Context()); err == nil {
		t.Error("started twice")
	}
	must(t, ca.Close())
	if err := ca.Start(t.Context()); err == nil {
		t.Error("started after Close")
	}
}
