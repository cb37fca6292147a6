package migrate_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/go-jose/go-jose/v4"

	"gatelodge/storage"
	"gatelodge/storage/cmstore"
	"gatelodge/storage/migrate"
)

// accounts collects what an import yields.
type accounts []migrate.Account

func (a *accounts) take(_ context.Context, account migrate.Account) error {
	*a = append(*a, account)
	return nil
}

const leIssuer = "acme-v02.api.letsencrypt.org-directory"

func TestCaddy_ImportsCertificatesWindowsAndAccounts(t *testing.T) {
	ca, dir, store := newTestCA(t), t.TempDir(), storage.NewMemory()
	chain, key := ca.pair(t, "a.example")
	wildChain, wildKey := ca.pair(t, "*.a.example")
	site := "certificates/" + leIssuer + "/"
	write(t, dir, map[string]string{
		site + "a.example/a.example.crt": string(chain), site + "a.example/a.example.key": string(key),
		site + "a.example/a.example.json": `{"sans": ["a.example"], "issuer_data": {"url": "https://acme-v02.api.letsencrypt.org/acme/cert/1", "ca": "https://acme-v02.api.letsencrypt.org/directory",
			"account": "https://acme-v02.api.letsencrypt.org/acme/acct/1", "renewal_info": {"suggestedWindow": {"start": "2027-01-02T03:04:05Z", "end": "2027-01-04T03:04:05Z"}, "_uniqueIdentifier": "x.y"}}}`,
		site + "wildcard_.a.example/wildcard_.a.example.crt": string(wildChain), site + "wildcard_.a.example/wildcard_.a.example.key": string(wildKey),
		site + "torn.example/torn.example.crt": string(chain), site + "torn.example/torn.example.json": "{}",
		"certificates/local/internal.test/internal.test.crt":    string(chain),
		"acme/" + leIssuer + "/users/ops@a.example/ops.json":    `{"status": "valid", "contact": ["mailto:ops@a.example"], "location": "https://acme-v02.api.letsencrypt.org/acme/acct/1"}`,
		"acme/" + leIssuer + "/users/ops@a.example/ops.key":     string(keyPEM(t, newKey(t))),
		"acme/" + leIssuer + "/challenge_tokens/a.example.json": "{}",
		"last_clean.json": "{}",
	})
	var found accounts
	r := run(t, store, open(t, "caddy", dir), migrate.Options{CA: letsEncrypt, Account: found.take})
	if r.Certificates != 2 || r.Created != 2 || r.Failed != 1 || len(r.Skipped) != 1 || r.AccountsStored != 1 {
		t.Errorf("report:\n%s", r)
	}
	checkNames(t, store, "a.example", "_.a.example")
	b := bundleOf(t, store, "a.example")
	if b.CA != "le" || !b.RenewStart.Equal(time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)) || b.RenewEnd.Sub(b.RenewStart) != 48*time.Hour {
		t.Errorf("%v, renewal from %v", b, b.RenewStart)
	}
	if len(found) != 1 || found[0].Directory != "https://acme-v02.api.letsencrypt.org/directory" || found[0].URL != "https://acme-v02.api.letsencrypt.org/acme/acct/1" ||
		!slices.Equal(found[0].Contact, []string{"mailto:ops@a.example"}) {
		t.Errorf("accounts %v", found)
	}
	if _, err := migrate.Open("caddy", t.TempDir()); err == nil {
		t.Error("an empty folder is taken for Caddy's")
	}
}

func TestExport_GoesToCertmagicAndBack(t *testing.T) {
	ca, store := newTestCA(t), storage.NewMemory()
	src := t.TempDir()
	for _, names := range [][]string{{"a.example"}, {"*.b.example", "b.example"}} {
		chain, key := ca.pair(t, names...)
		write(t, src, map[string]string{names[0] + ".pem": string(chain) + string(key)})
	}
	run(t, store, open(t, "pem", src), migrate.Options{})
	der, err := x509.MarshalPKCS8PrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	account, _ := json.Marshal(map[string]any{"key": der, "url": "https://acme-v02.api.letsencrypt.org/acme/acct/9", "contact": []string{"mailto:Ops@a.example"}})
	if _, err := store.Put(t.Context(), "acme/le/account", account); err != nil {
		t.Fatal(err)
	}

	dir := filepath.Join(t.TempDir(), "new")
	for i := range 2 {
		r, err := migrate.ExportCertmagic(t.Context(), store, dir, migrate.ExportOptions{})
		if err != nil || r.Certificates != 3 || r.Created != 3*(1-i) || r.There != 3*i || r.Failed != 0 || r.AccountsStored != 1 {
			t.Fatalf("export %d: %v\n%s", i, err, r)
		}
	}
	for _, file := range []string{"certificates/" + leIssuer + "/wildcard_.b.example/wildcard_.b.example.key", "acme/" + leIssuer + "/users/ops@a.example/ops.key"} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", file, err)
		}
	}
	var found accounts
	back := storage.NewMemory()
	if r := run(t, back, open(t, "caddy", dir), migrate.Options{Account: found.take}); r.Certificates != 3 || r.Failed != 0 {
		t.Errorf("import again:\n%s", r)
	}
	checkNames(t, back, "a.example", "b.example", "_.b.example")
	if len(found) != 1 || !slices.Equal(found[0].Key, der) {
		t.Errorf("accounts %v", found)
	}
	// The same from a certmagic.Storage that is no folder.
	shown := cmstore.ToCertmagic(back, cmstore.Options{IssuerKey: func(string) string { return leIssuer }})
	if r := run(t, storage.NewMemory(), migrate.Certmagic(shown), migrate.Options{}); r.Certificates != 3 {
		t.Errorf("import from another storage:\n%s", r)
	}
	var _ certmagic.Storage = shown
}

// certbotFolder is what certbot leaves, with links as it makes them to where the folder is said to be.
func certbotFolder(t *testing.T, ca *testCA, said string) string {
	dir := t.TempDir()
	old, oldKey := ca.pair(t, "a.example", "www.a.example")
	chain, key := ca.pair(t, "a.example", "www.a.example")
	write(t, dir, map[string]string{
		"archive/a.example/fullchain9.pem": string(old), "archive/a.example/privkey9.pem": string(oldKey),
		"archive/a.example/fullchain10.pem": string(chain), "archive/a.example/privkey10.pem": string(key),
		"archive/a.example/fullchain11.pem":     "no key to it",
		"archive/noconf.example/fullchain1.pem": "broken", "archive/noconf.example/privkey1.pem": "broken",
		"live/README": "This directory contains your keys and certificates.",
		"renewal/a.example.conf": "# renew_before_expiry = 30 days\nversion = 2.9.0\narchive_dir = " + said + "/archive/a.example\ncert = " + said + "/live/a.example/cert.pem\n" +
			"fullchain = " + said + "/live/a.example/fullchain.pem\n\n# Options used in the renewal process\n[renewalparams]\naccount = 0123\nauthenticator = webroot\n" +
			"server = https://acme-v02.api.letsencrypt.org/directory\nkey_type = ecdsa\n[[webroot_map]]\na.example = /var/www\nserver = https://wrong.example/\n",
		"renewal/gone.example.conf": "version = 2.9.0\n",
	})
	if err := os.MkdirAll(filepath.Join(dir, "live/a.example"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fullchain", "privkey"} {
		target := filepath.Join(said, "archive/a.example", name+"10.pem")
		if said == "" {
			target = "../../archive/a.example/" + name + "10.pem"
		}
		if err := os.Symlink(target, filepath.Join(dir, "live/a.example", name+".pem")); err != nil {
			t.Fatal(err)
		}
	}
	account, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(jose.JSONWebKey{Key: account})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{
		"accounts/acme-v02.api.letsencrypt.org/directory/0123/private_key.json": string(jwk),
		"accounts/acme-v02.api.letsencrypt.org/directory/0123/regr.json":        `{"body": {"contact": []}, "uri": "https://acme-v02.api.letsencrypt.org/acme/acct/7"}`,
		"accounts/acme-v02.api.letsencrypt.org/directory/4567/private_key.json": `{"kty": "RSA"}`,
	})
	return dir
}

func TestCertbot_ImportsLineagesWhereverTheFolderIs(t *testing.T) {
	ca := newTestCA(t)
	for what, said := range map[string]string{"in place": "", "copied from elsewhere": "/nonexistent/letsencrypt"} {
		t.Run(what, func(t *testing.T) {
			store := storage.NewMemory()
			dir := certbotFolder(t, ca, said)
			var found accounts
			r := run(t, store, open(t, "certbot", dir), migrate.Options{CA: letsEncrypt, Account: found.take})
			if r.Certificates != 1 || r.Created != 2 || r.Failed != 3 || r.AccountsStored != 1 {
				t.Errorf("report:\n%s", r)
			}
			checkNames(t, store, "a.example", "www.a.example")
			want, err := os.ReadFile(filepath.Join(dir, "archive/a.example/fullchain10.pem"))
			if err != nil {
				t.Fatal(err)
			}
			b := bundleOf(t, store, "a.example")
			if !strings.Contains(string(want), base64.StdEncoding.EncodeToString(b.Chain[0])[:60]) || b.CA != "le" {
				t.Errorf("%v is not the newest pair", b)
			}
			if len(found) != 1 || found[0].Directory != "https://acme-v02.api.letsencrypt.org/directory" || found[0].URL != "https://acme-v02.api.letsencrypt.org/acme/acct/7" {
				t.Errorf("accounts %v", found)
			}
		})
	}
	if _, err := migrate.Open("certbot", t.TempDir()); err == nil {
		t.Error("an empty folder is taken for certbot's")
	}
}

// acmeJSON is a file of Traefik's with so many certificates.
func acmeJSON(t testing.TB, ca *testCA, resolver string, n int) map[string]any {
	t.Helper()
	key := newKey(t) // one for all: it is not what is tested
	private := keyPEM(t, key)
	var certificates []any
	for i := range n {
		name := fmt.Sprintf("%s%d.example", resolver, i)
		certificates = append(certificates, map[string]any{"domain": map[string]any{"main": name}, "Store": "default",
			"certificate": certPEM(ca.leaf(t, key, 60*24*time.Hour, name), ca.cert), "key": private})
	}
	account, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{"Certificates": certificates, "Account": map[string]any{"Email": "ops@a.example", "KeyType": "4096", "PrivateKey": x509.MarshalPKCS1PrivateKey(account),
		"Registration": map[string]any{"body": map[string]any{"status": "valid"}, "uri": "https://acme-v02.api.letsencrypt.org/acme/acct/5"}}}
}

func writeJSON(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "acme.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAcmeJSON_ImportsAllResolvers(t *testing.T) {
	ca, store := newTestCA(t), storage.NewMemory()
	path := writeJSON(t, map[string]any{"one": acmeJSON(t, ca, "one", 300), "two": acmeJSON(t, ca, "two", 2), "none": nil})
	var found accounts
	r := run(t, store, open(t, "acme.json", path), migrate.Options{CA: letsEncrypt, Account: found.take})
	if r.Certificates != 302 || r.Created != 302 || r.Failed != 0 || r.AccountsStored != 2 {
		t.Errorf("report:\n%s", r)
	}
	if b := bundleOf(t, store, "one299.example"); b.CA != "le" {
		t.Errorf("%v", b)
	}
	if found[0].URL != "https://acme-v02.api.letsencrypt.org/acme/acct/5" || !slices.Equal(found[0].Contact, []string{"mailto:ops@a.example"}) {
		t.Errorf("accounts %v", found)
	}
	if r := run(t, storage.NewMemory(), open(t, "acme.json", writeJSON(t, acmeJSON(t, ca, "old", 3))), migrate.Options{}); r.Created != 3 || r.Accounts != 1 {
		t.Errorf("v1:\n%s", r)
	}
	broken := filepath.Join(t.TempDir(), "acme.json")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := migrate.Import(t.Context(), store, migrate.AcmeJSON(broken), migrate.Options{}); err == nil {
		t.Error("half a file was taken for one without certificates")
	}
}

func TestPEM_PairsFilesByTheKeyItself(t *testing.T) {
	ca, dir, store := newTestCA(t), t.TempDir(), storage.NewMemory()
	chain, key := ca.pair(t, "a.example")
	bKey, cKey, lonely := newKey(t), newKey(t), newKey(t)
	write(t, dir, map[string]string{
		"a/fullchain.pem": string(chain), "a/secret.txt": string(key),
		"b/cert.pem": string(certPEM(ca.leaf(t, bKey, time.Hour, "b.example"))), "b/privkey.pem": string(keyPEM(t, bKey)), "b/chain.pem": string(certPEM(ca.cert, ca.root)),
		"c/backwards.pem": string(keyPEM(t, cKey)) + string(certPEM(ca.cert, ca.leaf(t, cKey, time.Hour, "c.example"))),
		"lonely.crt":      string(certPEM(ca.leaf(t, lonely, time.Hour, "lonely.example"))),
		"readme.md":       "# nothing", ".hidden": "nothing",
	})
	r := run(t, store, open(t, "pem", dir), migrate.Options{})
	if r.Created != 3 || r.Failed != 1 || !strings.Contains(r.String(), "lonely.crt: its private key is in none of the files") {
		t.Errorf("report:\n%s", r)
	}
	checkNames(t, store, "a.example", "b.example", "c.example")
	for _, name := range []string{"a.example", "b.example", "c.example"} {
		if b := bundleOf(t, store, name); len(b.Chain) != 2 {
			t.Errorf("%s has a chain of %d", name, len(b.Chain))
		}
	}
	one := storage.NewMemory()
	if r := run(t, one, open(t, "pem", filepath.Join(dir, "b/cert.pem")), migrate.Options{}); r.Created != 1 || r.Failed != 0 {
		t.Errorf("one file:\n%s", r)
	}
	checkNames(t, one, "b.example")
}

func TestOpen_RefusesWhatItDoesNotKnow(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"file": "x"})
	for _, c := range [][2]string{{"nginx", dir}, {"caddy", filepath.Join(dir, "file")}, {"certbot", filepath.Join(dir, "file")}, {"acme.json", dir}, {"pem", filepath.Join(dir, "absent")}} {
		if _, err := migrate.Open(c[0], c[1]); err == nil {
			t.Errorf("%v was opened", c)
		}
	}
}

func BenchmarkImport10000(b *testing.B) {
	path := writeJSON(b, map[string]any{"le": acmeJSON(b, newTestCA(b), "n", 10_000)})
	for b.Loop() {
		if r := run(b, storage.NewMemory(), migrate.AcmeJSON(path), migrate.Options{}); r.Created != 10_000 {
			b.Fatal(r)
		}
	}
}

func FuzzAcmeJSON(f *testing.F) {
	chain, key := newTestCA(f).pair(f, "a.example")
	whole, _ := json.Marshal(map[string]any{"le": map[string]any{"Certificates": []any{map[string]any{"domain": map[string]any{"main": "a.example"}, "certificate": chain, "key": key}}}})
	f.Add(whole)
	f.Add([]byte(`{"le": {"Account": {"PrivateKey": "AAAA", "Registration": null}, "Certificates": [null, 1, {}]}}`))
	f.Add([]byte(`{"Certificates": [], "Account": 1}`))
	f.Add([]byte(`{"a": null, "b": []}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, "acme.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		store := storage.NewMemory()
		r, err := migrate.Import(t.Context(), store, migrate.AcmeJSON(path), migrate.Options{Account: new(accounts).take})
		checkFuzzed(t, store, r, err)
	})
}

// checkFuzzed checks that what came in is good, whatever it came from.
func checkFuzzed(t *testing.T, store storage.Store, r *migrate.Report, err error) {
	t.Helper()
	names, listErr := store.List(t.Context(), "", "", 0)
	if listErr != nil || err == nil && len(names) != r.Created {
		t.Errorf("%d names, report:\n%s", len(names), r)
	}
	for _, name := range names {
		bundleOf(t, store, strings.TrimPrefix(name, "certs/"))
	}
}

func FuzzCertbot(f *testing.F) {
	chain, key := newTestCA(f).pair(f, "a.example")
	f.Add("version = 2.9.0\nserver = https://ca.example/directory\n[renewalparams]\naccount = 1\n[[webroot_map]]\n", chain, key, []byte(`{"kty":"EC"}`))
	f.Add("= =\n[", []byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"), []byte("{}"))
	f.Add("\x00'\n'='", []byte{}, []byte{}, []byte{})
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, conf string, chain, key, account []byte) {
		write(t, dir, map[string]string{"renewal/a.conf": conf, "live/a/fullchain.pem": string(chain), "live/a/privkey.pem": string(key), "accounts/ca.example/directory/1/private_key.json": string(account)})
		store := storage.NewMemory()
		src, err := migrate.Certbot(dir)
		if err != nil {
			t.Fatal(err)
		}
		r, err := migrate.Import(t.Context(), store, src, migrate.Options{CA: letsEncrypt, Account: new(accounts).take})
		checkFuzzed(t, store, r, err)
	})
}
