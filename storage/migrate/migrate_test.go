package migrate_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
	"gatelodge/storage/migrate"
	"gatelodge/storage/storagetest"
)

// testCA signs what other programs had before: a root, an intermediate, leaves.
type testCA struct {
	root, cert *x509.Certificate
	key        *ecdsa.PrivateKey
	serial     int64
}

func newTestCA(t testing.TB) *testCA {
	t.Helper()
	rootKey, key := newKey(t), newKey(t)
	template := func(name string, serial int64) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, SubjectKeyId: []byte(name), NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().AddDate(5, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	}
	root := sign(t, template("Root", 1), template("Root", 1), rootKey.Public(), rootKey)
	return &testCA{root: root, cert: sign(t, template("Intermediate", 2), root, key.Public(), rootKey), key: key, serial: 100}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf signs a certificate that ends in so long.
func (ca *testCA) leaf(t testing.TB, key crypto.Signer, life time.Duration, names ...string) *x509.Certificate {
	t.Helper()
	ca.serial++
	template := &x509.Certificate{SerialNumber: big.NewInt(ca.serial), NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(life)}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return sign(t, template, ca.cert, key.Public(), ca.key)
}

// pair returns chain and key of a new certificate for 60 days, as PEM.
func (ca *testCA) pair(t testing.TB, names ...string) (chain, key []byte) {
	t.Helper()
	private := newKey(t)
	return certPEM(ca.leaf(t, private, 60*24*time.Hour, names...), ca.cert), keyPEM(t, private)
}

func certPEM(certs ...*x509.Certificate) (out []byte) {
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// keyPEM writes keys as old programs do: SEC 1, PKCS #1, or else PKCS #8.
func keyPEM(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	block := &pem.Block{}
	var err error
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		block.Type = "EC PRIVATE KEY"
		block.Bytes, err = x509.MarshalECPrivateKey(key)
	case *rsa.PrivateKey:
		block.Type, block.Bytes = "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)
	default:
		block.Type = "PRIVATE KEY"
		block.Bytes, err = x509.MarshalPKCS8PrivateKey(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block)
}

// write writes files below a folder.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func open(t testing.TB, kind, path string) migrate.Source {
	t.Helper()
	src, err := migrate.Open(kind, path)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func run(t testing.TB, dst storage.Store, src migrate.Source, o migrate.Options) *migrate.Report {
	t.Helper()
	r, err := migrate.Import(t.Context(), dst, src, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func bundleOf(t testing.TB, s storage.Store, name string) *storage.Bundle {
	t.Helper()
	b, _, err := storage.LoadBundle(t.Context(), s, "certs/"+name, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkNames checks that the store has certificates for exactly these names, all good.
func checkNames(t testing.TB, s storage.Store, names ...string) {
	t.Helper()
	objects, err := s.List(t.Context(), "certs/", "", 0)
	if err != nil || len(objects) != len(names) {
		t.Errorf("%q, %v; wanted %q", objects, err, names)
	}
	for _, name := range names {
		if _, err := bundleOf(t, s, name).TLSCertificate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func letsEncrypt(url string) string {
	return migrate.ByURL(map[string]string{"le": "https://acme-v02.api.letsencrypt.org/directory", "other": "https://ca.example/directory"})(url)
}

func TestImport_IsIdempotentAndReplacesOnlyWhatEndsEarlier(t *testing.T) {
	ca, dir, store := newTestCA(t), t.TempDir(), storage.NewMemory()
	chain, key := ca.pair(t, "a.example", "*.A.example", "192.0.2.1", "2001:db8::1")
	write(t, dir, map[string]string{"all.pem": string(chain) + string(key)})

	if r := run(t, store, open(t, "pem", dir), migrate.Options{DryRun: true}); r.Certificates != 1 || r.Created != 4 {
		t.Errorf("dry run:\n%s", r)
	}
	checkNames(t, store)
	if r := run(t, store, open(t, "pem", dir), migrate.Options{}); r.Certificates != 1 || r.Created != 4 || r.There != 0 {
		t.Errorf("first:\n%s", r)
	}
	checkNames(t, store, "a.example", "_.a.example", "192.0.2.1", "2001:db8::1")
	for _, dry := range []bool{true, false} {
		if r := run(t, store, open(t, "pem", dir), migrate.Options{DryRun: dry}); r.Created != 0 || r.There != 4 {
			t.Errorf("again, dry %v:\n%s", dry, r)
		}
	}

	later := newKey(t)
	write(t, dir, map[string]string{"later.pem": string(certPEM(ca.leaf(t, later, 80*24*time.Hour, "a.example"), ca.cert)) + string(keyPEM(t, later))})
	for _, dry := range []bool{true, false} {
		if r := run(t, store, open(t, "pem", dir), migrate.Options{DryRun: dry}); r.Replaced != 1 || r.Created != 0 {
			t.Errorf("a later one, dry %v:\n%s", dry, r)
		}
	}
	if r := run(t, store, open(t, "pem", dir), migrate.Options{}); r.Replaced != 0 || r.Newer != 1 || r.There != 4 {
		t.Errorf("the earlier one again:\n%s", r)
	}
}

func TestImport_KeepsWhatSaysWhenToRenew(t *testing.T) {
	ca, dir, store := newTestCA(t), t.TempDir(), storage.NewMemory()
	private := newKey(t)
	leaf := ca.leaf(t, private, 60*24*time.Hour, "a.example")
	write(t, dir, map[string]string{"a.pem": string(certPEM(leaf, ca.cert)) + string(keyPEM(t, private))})
	run(t, store, open(t, "pem", dir), migrate.Options{})
	b := bundleOf(t, store, "a.example")
	cert, err := b.TLSCertificate()
	if err != nil || !b.NotBefore.Equal(leaf.NotBefore) || !b.NotAfter.Equal(leaf.NotAfter) || len(b.Chain) != 2 || !b.Issued.IsZero() {
		t.Errorf("%v: %d certificates, %v", b, len(b.Chain), err)
	}
	if string(cert.Leaf.AuthorityKeyId) != "Intermediate" || cert.Leaf.SerialNumber.Cmp(leaf.SerialNumber) != 0 {
		t.Error("what RFC 9773 asks by is lost")
	}
}

func TestImport_TellsOfEveryCertificateThatIsStored(t *testing.T) {
	ca, dir, store := newTestCA(t), t.TempDir(), storage.NewMemory()
	for i := range 20 {
		chain, key := ca.pair(t, fmt.Sprintf("n%d.example", i))
		write(t, dir, map[string]string{fmt.Sprintf("%d.pem", i): string(chain) + string(key)})
	}
	for range 2 {
		told := map[string]bool{}
		run(t, store, open(t, "pem", dir), migrate.Options{Stored: func(_ context.Context, name string, b *storage.Bundle) error {
			told[name] = b.Names[0] == name
			return nil
		}})
		if len(told) != 20 || !told["n7.example"] {
			t.Errorf("told of %v", told)
		}
	}
	broken := errors.New("index broken")
	_, err := migrate.Import(t.Context(), store, open(t, "pem", dir), migrate.Options{Stored: func(context.Context, string, *storage.Bundle) error { return broken }})
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

func TestImport_LeavesOutKeysThatAreBlocked(t *testing.T) {
	ca, dir, store := newTestCA(t), t.TempDir(), storage.NewMemory()
	for _, name := range []string{"a.example", "b.example"} {
		chain, key := ca.pair(t, name)
		write(t, dir, map[string]string{name + ".pem": string(chain) + string(key)})
	}
	var first crypto.PublicKey
	known := func(_ context.Context, public crypto.PublicKey) (bool, error) {
		if first == nil {
			first = public
		}
		return first.(interface{ Equal(crypto.PublicKey) bool }).Equal(public), nil
	}
	r := run(t, store, open(t, "pem", dir), migrate.Options{Blocked: known, Parallel: 1})
	if r.Created != 1 || r.Failed != 1 || !strings.Contains(r.Problems[0].What, "blocked") {
		t.Errorf("report:\n%v", r)
	}
	away := errors.New("the store is away")
	o := migrate.Options{Blocked: func(context.Context, crypto.PublicKey) (bool, error) { return false, away }}
	if _, err := migrate.Import(t.Context(), storage.NewMemory(), open(t, "pem", dir), o); !errors.Is(err, away) {
		t.Errorf("an outage: %v", err)
	}
}

func TestImport_EndsWithAnOutageAndGoesOnTheNextTime(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	for i := range 30 {
		chain, key := ca.pair(t, fmt.Sprintf("n%d.example", i))
		write(t, dir, map[string]string{fmt.Sprintf("%d.pem", i): string(chain) + string(key)})
	}
	store := storagetest.NewFaulty(storage.NewMemory(), storagetest.Fault{Op: storagetest.PutIf, Skip: 10})
	if _, err := migrate.Import(t.Context(), store, open(t, "pem", dir), migrate.Options{}); !errors.Is(err, storagetest.ErrInjected) {
		t.Fatalf("error %v", err)
	}
	store.Set()
	if r := run(t, store, open(t, "pem", dir), migrate.Options{}); r.There != 10 || r.Created != 20 {
		t.Errorf("next:\n%s", r)
	}
}

func TestImport_DamagedEntriesAreReportedOneByOne(t *testing.T) {
	ca, dir, store := newTestCA(t), t.TempDir(), storage.NewMemory()
	chain, key := ca.pair(t, "good.example")
	_, otherKey := ca.pair(t, "x.example")
	odd := newKey(t)
	entries := []any{
		map[string]any{"domain": map[string]any{"main": "good.example"}, "certificate": chain, "key": key},
		map[string]any{"domain": map[string]any{"main": "swapped.example"}, "certificate": chain, "key": otherKey},
		map[string]any{"domain": map[string]any{"main": "cut.example"}, "certificate": chain[:100], "key": key},
		map[string]any{"domain": map[string]any{"main": "keyless.example"}, "certificate": chain},
		map[string]any{"domain": map[string]any{"main": "ended.example"}, "certificate": certPEM(ca.leaf(t, odd, -time.Hour, "ended.example")), "key": keyPEM(t, odd)},
		map[string]any{"domain": map[string]any{"main": "nameless"}, "certificate": certPEM(ca.leaf(t, odd, time.Hour)), "key": keyPEM(t, odd)},
		map[string]any{"domain": map[string]any{"main": "odd"}, "certificate": certPEM(ca.leaf(t, odd, time.Hour, "a/../b")), "key": keyPEM(t, odd)},
		map[string]any{"certificate": "!!!"},
		"not an object", nil,
	}
	file, err := json.Marshal(map[string]any{"le": map[string]any{"Account": nil, "Certificates": entries}, "empty": map[string]any{"Account": nil, "Certificates": nil}, "broken": 7})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"acme.json": string(file)})
	r := run(t, store, open(t, "acme.json", filepath.Join(dir, "acme.json")), migrate.Options{})
	if r.Created != 1 || r.Ended != 1 || r.Failed != 9 {
		t.Errorf("report:\n%s", r)
	}
	checkNames(t, store, "good.example")
	for _, want := range []string{"certificate 2 (swapped.example): its private key is not that of its certificate", "(keyless.example): it has no private key", "(cut.example): it has no certificate",
		"broken: it is not a resolver", "9 not imported"} {
		if !strings.Contains(r.String(), want) {
			t.Errorf("%q is not in\n%s", want, r)
		}
	}
	if strings.Contains(r.String(), "PRIVATE KEY") || strings.Contains(r.String(), "MHcC") {
		t.Errorf("the report shows a key:\n%s", r)
	}
}

func TestImport_EveryKindOfKey(t *testing.T) {
	ca, dir, store := newTestCA(t), t.TempDir(), storage.NewMemory()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ec.example": newKey(t), "rsa.example": rsaKey, "ed.example": edKey} {
		write(t, dir, map[string]string{name + ".pem": string(certPEM(ca.leaf(t, key, time.Hour, name), ca.cert)) + string(keyPEM(t, key))})
	}
	write(t, dir, map[string]string{"locked.key": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"})
	r := run(t, store, open(t, "pem", dir), migrate.Options{})
	checkNames(t, store, "ec.example", "rsa.example", "ed.example")
	if r.Failed != 1 || !strings.Contains(r.String(), "password") {
		t.Errorf("report:\n%s", r)
	}
}

func TestByURL_FindsTheCA(t *testing.T) {
	for url, want := range map[string]string{
		"https://acme-v02.api.letsencrypt.org/directory":     "le",
		"https://acme-v02.api.letsencrypt.org/directory/":    "le",
		"https://acme-v02.api.letsencrypt.org/acme/acct/123": "le",
		"https://ca.example/acct/1":                          "other",
		"https://elsewhere.example/directory":                "",
		"":                                                   "",
		"::":                                                 "",
	} {
		if got := letsEncrypt(url); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
	two := migrate.ByURL(map[string]string{"a": "https://ca.example/a", "b": "https://ca.example/b"})
	if got := two("https://ca.example/acct/1"); got != "" {
		t.Errorf("two at one host: %q", got)
	}
}

func TestAccount_IsNeverPrinted(t *testing.T) {
	account := migrate.Account{URL: "https://ca.example/1", Key: []byte("secretsecret")}
	data, err := json.Marshal(account)
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{fmt.Sprintf("%v %+v %#v %s %x %d", account, account, &account, account, account, account), string(data)} {
		for _, leak := range []string{"secretsecret", "115 101", "736563", "c2VjcmV0"} {
			if strings.Contains(out, leak) {
				t.Errorf("%q is in %s", leak, out)
			}
		}
	}
}
