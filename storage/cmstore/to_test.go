package cmstore_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"gatelodge/storage"
	"gatelodge/storage/cmstore"
	"gatelodge/storage/storagetest"
)

// fakeIssuer signs what it is asked for. It leaves out everything else that a CA does.
type fakeIssuer struct {
	cert   *x509.Certificate
	key    crypto.Signer
	issued atomic.Int64
}

func newFakeIssuer(t testing.TB) *fakeIssuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Fake CA"}, SubjectKeyId: []byte("fake"), NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(365 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &fakeIssuer{cert: ca, key: key}
}

func (f *fakeIssuer) IssuerKey() string { return "ca.example-directory" }

func (f *fakeIssuer) Issue(_ context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	n := f.issued.Add(1)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1000 + n), DNSNames: csr.DNSNames, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, f.cert, csr.PublicKey, f.key)
	if err != nil {
		return nil, err
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.cert.Raw})...)
	meta := acme.Certificate{URL: "https://ca.example/cert/1", CA: "https://ca.example/directory", Account: "https://ca.example/acct/1", RenewalInfo: &acme.RenewalInfo{}}
	meta.RenewalInfo.SuggestedWindow.Start = time.Now().Add(60 * 24 * time.Hour)
	meta.RenewalInfo.SuggestedWindow.End = time.Now().Add(62 * 24 * time.Hour)
	return &certmagic.IssuedCertificate{Certificate: chain, Metadata: meta}, nil
}

// config is a certmagic program over the storage.
func config(t testing.TB, s certmagic.Storage, issuer certmagic.Issuer) *certmagic.Config {
	t.Helper()
	var cfg *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return cfg, nil }, Logger: zap.NewNop()})
	t.Cleanup(cache.Stop)
	cfg = certmagic.New(cache, certmagic.Config{Storage: s, Issuers: []certmagic.Issuer{issuer}, Logger: zap.NewNop(), DisableARI: true})
	return cfg
}

func bundleOf(t testing.TB, s storage.Store, name string) *storage.Bundle {
	t.Helper()
	b, _, err := storage.LoadBundle(t.Context(), s, "certs/"+name, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTo_ServesARealCertmagicProgram(t *testing.T) {
	store, issuer := storage.NewMemory(), newFakeIssuer(t)
	options := cmstore.Options{
		CA:        func(string) string { return "main" },
		IssuerKey: func(string) string { return cmstore.IssuerKey("https://ca.example/directory") },
	}
	for _, name := range []string{"a.example.com", "*.example.com"} {
		cfg := config(t, cmstore.ToCertmagic(store, options), issuer)
		if err := cfg.ManageSync(t.Context(), []string{name}); err != nil {
			t.Fatal(err)
		}
		object := map[bool]string{false: name, true: "_.example.com"}[name[0] == '*']
		b := bundleOf(t, store, object)
		if b.CA != "main" || !slices.Equal(b.Names, []string{name}) || len(b.Chain) != 2 || b.Fence == 0 || b.RenewStart.IsZero() {
			t.Errorf("%s: %v by %q, %d certificates, fence %d, renewal from %v", name, b.Names, b.CA, len(b.Chain), b.Fence, b.RenewStart)
		}
	}
	if n := issuer.issued.Load(); n != 2 {
		t.Fatalf("%d issued", n)
	}

	again := config(t, cmstore.ToCertmagic(store, options), issuer) // another process
	if err := again.ManageSync(t.Context(), []string{"a.example.com", "*.example.com"}); err != nil {
		t.Fatal(err)
	}
	cert, err := again.GetCertificate(&tls.ClientHelloInfo{ServerName: "x.example.com", SupportedVersions: []uint16{tls.VersionTLS13}})
	if err != nil || !slices.Contains(cert.Leaf.DNSNames, "*.example.com") {
		t.Errorf("served: %v", err)
	}
	if n := issuer.issued.Load(); n != 2 {
		t.Errorf("%d issued after a restart", n)
	}

	before := bundleOf(t, store, "a.example.com")
	if err := again.RenewCertSync(t.Context(), "a.example.com", true); err != nil {
		t.Fatal(err)
	}
	if after := bundleOf(t, store, "a.example.com"); slices.Equal(before.Chain[0], after.Chain[0]) || after.Fence <= before.Fence {
		t.Error("the renewed certificate is not in the store")
	}
}

func TestTo_ARenewalThatFailsLeavesThePairInUse(t *testing.T) {
	faulty, issuer := storagetest.NewFaulty(storage.NewMemory()), newFakeIssuer(t)
	to := cmstore.ToCertmagic(faulty, cmstore.Options{})
	cfg := config(t, to, issuer)
	if err := cfg.ManageSync(t.Context(), []string{"a.example.com"}); err != nil {
		t.Fatal(err)
	}
	before := bundleOf(t, faulty, "a.example.com")
	faulty.Set(storagetest.Fault{Op: storagetest.PutIf, Prefix: "certs/"})
	if err := cfg.RenewCertSync(t.Context(), "a.example.com", true); err == nil {
		t.Fatal("the failure is not told")
	}
	faulty.Set()
	if after := bundleOf(t, faulty, "a.example.com"); !slices.Equal(before.Chain[0], after.Chain[0]) || !slices.Equal(before.Key, after.Key) {
		t.Error("the pair in use was touched")
	}
	if err := cfg.RenewCertSync(t.Context(), "a.example.com", true); err != nil {
		t.Errorf("the next renewal: %v", err)
	}
}

func TestTo_NoReaderSeesAKeyWithAnothersCertificate(t *testing.T) {
	store, issuer := storage.NewMemory(), newFakeIssuer(t)
	cfg := config(t, cmstore.ToCertmagic(store, cmstore.Options{}), issuer)
	if err := cfg.ManageSync(t.Context(), []string{"a.example.com"}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			reader := cmstore.ToCertmagic(store, cmstore.Options{})
			for {
				select {
				case <-stop:
					return
				default:
				}
				var files [2][]byte
				for i, ext := range []string{".key", ".crt"} {
					var err error
					if files[i], err = reader.Load(t.Context(), "certificates/ca.example-directory/a.example.com/a.example.com"+ext); err != nil {
						t.Error(err)
						return
					}
				}
				if _, err := tls.X509KeyPair(files[1], files[0]); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 10 {
		if err := cfg.RenewCertSync(t.Context(), "a.example.com", true); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

func TestTo_AnOutageIsNoAbsence(t *testing.T) {
	faulty, issuer := storagetest.NewFaulty(storage.NewMemory()), newFakeIssuer(t)
	faulty.Set(storagetest.Fault{Op: storagetest.Get, Prefix: "certs/"})
	to := cmstore.ToCertmagic(faulty, cmstore.Options{})
	const key = "certificates/ca.example-directory/a.example.com/a.example.com.key"
	if _, err := to.Load(t.Context(), key); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("load: %v", err)
	}
	if !to.Exists(t.Context(), key) {
		t.Error("exists says no though it does not know")
	}
	if err := config(t, to, issuer).ManageSync(t.Context(), []string{"a.example.com"}); err == nil || issuer.issued.Load() != 0 {
		t.Errorf("managed with error %v, %d issued", err, issuer.issued.Load())
	}
	faulty.Set()
	if to.Exists(t.Context(), key) {
		t.Error("exists says yes to what is absent")
	}
}

func TestTo_RenewalInformationIsStoredAlone(t *testing.T) {
	store, issuer := storage.NewMemory(), newFakeIssuer(t)
	to := cmstore.ToCertmagic(store, cmstore.Options{})
	if err := config(t, to, issuer).ManageSync(t.Context(), []string{"a.example.com"}); err != nil {
		t.Fatal(err)
	}
	before := bundleOf(t, store, "a.example.com")
	const meta = "certificates/ca.example-directory/a.example.com/a.example.com.json"
	err := to.Store(t.Context(), meta, []byte(`{"sans": ["a.example.com"], "issuer_data": {"url": "u", "renewal_info": {"suggestedWindow": {"start": "2030-01-01T00:00:00Z", "end": "2030-01-02T00:00:00Z"}, "_selectedTime": "2030-01-01T01:00:00Z"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	after := bundleOf(t, store, "a.example.com")
	if after.RenewStart.Year() != 2030 || !slices.Equal(before.Key, after.Key) || after.Fence != before.Fence {
		t.Errorf("window from %v, fence %d was %d", after.RenewStart, after.Fence, before.Fence)
	}
	data, err := to.Load(t.Context(), meta)
	if err != nil || !strings.Contains(string(data), `"url"`) || !strings.Contains(string(data), "2030-01-01T01:00:00Z") {
		t.Errorf("%s, %v", data, err)
	}
}

func TestTo_TheStoreOfOneIsALeaseOfTheOther(t *testing.T) {
	store := storage.NewMemory()
	a, b := cmstore.ToCertmagic(store, cmstore.Options{}), cmstore.ToCertmagic(store, cmstore.Options{})
	if err := a.Lock(t.Context(), "issue_cert_a.example.com"); err != nil {
		t.Fatal(err)
	}
	if ok, err := b.TryLock(t.Context(), "issue_cert_a.example.com"); ok || err != nil {
		t.Errorf("two holders: %v, %v", ok, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := store.Lease(ctx, "issue/a.example.com"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("our own order would begin: %v", err)
	}
	if err := a.RenewLockLease(t.Context(), "issue_cert_a.example.com", time.Hour); err != nil {
		t.Error(err)
	}
	if err := a.Unlock(t.Context(), "issue_cert_a.example.com"); err != nil {
		t.Error(err)
	}
	if ok, err := b.TryLock(t.Context(), "issue_cert_a.example.com"); !ok || err != nil {
		t.Errorf("after unlock: %v, %v", ok, err)
	}
	if err := b.Unlock(t.Context(), "issue_cert_a.example.com"); err != nil {
		t.Error(err)
	}
	if err := b.Unlock(t.Context(), "issue_cert_a.example.com"); err == nil {
		t.Error("unlocked twice")
	}
}

// TestTo_AnswersAsFileStorageDoes asks both the same.
func TestTo_AnswersAsFileStorageDoes(t *testing.T) {
	issuer := newFakeIssuer(t)
	reference := &certmagic.FileStorage{Path: t.TempDir()}
	to := cmstore.ToCertmagic(storage.NewMemory(), cmstore.Options{})
	for _, s := range []certmagic.Storage{reference, to} {
		if err := config(t, s, issuer).ManageSync(t.Context(), []string{"a.example.com", "*.example.com"}); err != nil {
			t.Fatal(err)
		}
		for key, value := range map[string]string{"acme/x/users/me@example.com/me.json": "{}", "acme/x/users/me@example.com/me.key": "k", "last_clean.json": "{}", "ocsp/a-1": ""} {
			if err := s.Store(t.Context(), key, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
	}
	const site = "certificates/ca.example-directory/a.example.com"
	ask := func(what string, question func(s certmagic.Storage) any) {
		t.Helper()
		if want, got := question(reference), question(to); !equalAnswers(want, got) {
			t.Errorf("%s: %v, certmagic's own answers %v", what, got, want)
		}
	}
	keys := []string{"certificates", "certificates/ca.example-directory", site, site + "/a.example.com.crt", site + "/a.example.com.key", site + "/a.example.com.foo",
		"certificates/other", "certificates/ca.example-directory/b.example.com", "certificates/other/a.example.com/a.example.com.key", "acme", "acme/x/users",
		"acme/x/users/me@example.com", "acme/x/users/me@example.com/me.json", "acme/y", "last_clean.json", "ocsp/a-1", "nothing"}
	for _, key := range keys {
		ask("exists "+key, func(s certmagic.Storage) any { return s.Exists(t.Context(), key) })
		ask("stat "+key, func(s certmagic.Storage) any {
			info, err := s.Stat(t.Context(), key)
			return []any{info.Key, info.IsTerminal, errors.Is(err, fs.ErrNotExist)}
		})
		for _, recursive := range []bool{false, true} {
			if info, err := reference.Stat(t.Context(), key); err == nil && info.IsTerminal {
				continue // certmagic lists folders only
			}
			ask("list "+key, func(s certmagic.Storage) any {
				all, err := s.List(t.Context(), key, recursive)
				all = slices.DeleteFunc(all, func(k string) bool { return k == "locks" })
				slices.Sort(all)
				return []any{all, errors.Is(err, fs.ErrNotExist)}
			})
		}
	}
	for _, key := range []string{"nothing", site + "/a.example.com.crt", "certificates/ca.example-directory/wildcard_.example.com", "acme", "last_clean.json"} {
		ask("delete "+key, func(s certmagic.Storage) any { return s.Delete(t.Context(), key) })
	}
	for _, key := range []string{site + "/a.example.com.crt", "certificates/ca.example-directory/wildcard_.example.com", "acme/x/users/me@example.com/me.json", "last_clean.json", "ocsp/a-1"} {
		ask("exists after delete "+key, func(s certmagic.Storage) any { return s.Exists(t.Context(), key) })
	}
}

func TestTo_RollBackDropsTheDraftOnly(t *testing.T) {
	store, issuer := storage.NewMemory(), newFakeIssuer(t)
	to := cmstore.ToCertmagic(store, cmstore.Options{})
	if err := config(t, to, issuer).ManageSync(t.Context(), []string{"a.example.com"}); err != nil {
		t.Fatal(err)
	}
	const site = "certificates/ca.example-directory/a.example.com/a.example.com"
	was, err := to.Load(t.Context(), site+".key")
	if err != nil {
		t.Fatal(err)
	}
	for _, ext := range []string{".key", ".crt"} {
		if err := to.Store(t.Context(), site+ext, []byte("new")); err != nil {
			t.Fatal(err)
		}
	}
	if err := to.Store(t.Context(), site+".json", []byte("{}")); err == nil {
		t.Error("a pair that is none was stored")
	}
	for _, ext := range []string{".crt", ".key"} { // as certmagic does then
		if err := to.Delete(t.Context(), site+ext); err != nil {
			t.Fatal(err)
		}
	}
	if is, err := to.Load(t.Context(), site+".key"); err != nil || string(is) != string(was) {
		t.Errorf("the key in use was touched: %v", err)
	}
	if err := to.Delete(t.Context(), site+".key"); err != nil || to.Exists(t.Context(), site+".key") {
		t.Errorf("a key that is to go is still there, %v", err)
	}
}
