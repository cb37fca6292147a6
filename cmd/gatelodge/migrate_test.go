package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/crypto/acme"

	"gatelodge/acmeclient/devca"
)

func TestImport_TakesOverTheAccountSoThatNoNewOneIsRegistered(t *testing.T) {
	for _, c := range []struct {
		source string
		key    func() (crypto.Signer, error)
		lay    func(l *lodge, key crypto.Signer, account string)
	}{
		{"caddy", func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }, (*lodge).layCaddyAccount},
		{"certbot", func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }, (*lodge).layCertbotAccount},
	} {
		t.Run(c.source, func(t *testing.T) {
			l := newLodge(t, devca.Config{})
			l.configure(l.ca.DirectoryURL(), "")
			key, err := c.key()
			if err != nil {
				t.Fatal(err)
			}
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: l.roots}}
			defer transport.CloseIdleConnections()
			client := &acme.Client{Key: key, DirectoryURL: l.ca.DirectoryURL(), HTTPClient: &http.Client{Transport: transport}}
			made, err := client.Register(t.Context(), &acme.Account{}, acme.AcceptTOS)
			if err != nil {
				t.Fatal(err)
			}
			for _, folder := range []string{"certificates", "live"} { // what the program has in any case
				if err := os.MkdirAll(filepath.Join(l.path("old"), folder), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			c.lay(l, key, made.URI)
			for _, times := range []string{"first", "second"} {
				out, err := exec.CommandContext(t.Context(), "gatelodge", "storage", "import", c.source, l.path("old"), "-c", l.path("gatelodge.toml")).CombinedOutput()
				if err != nil || !strings.Contains(string(out), "1 accounts taken over") {
					t.Fatalf("the %s import: %v\n%s", times, err, out)
				}
			}
			l.start()
			if _, err := l.handshake("a.test"); err != nil {
				t.Fatal(err)
			}
			if n := l.ca.Stats().Accounts; n != 1 {
				t.Errorf("the CA has %d accounts, want the imported one", n)
			}
		})
	}
}

func (l *lodge) lay(path string, data []byte) {
	l.t.Helper()
	file := filepath.Join(l.path("old"), path)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// layCaddyAccount writes an account as certmagic does.
func (l *lodge) layCaddyAccount(key crypto.Signer, account string) {
	l.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		l.t.Fatal(err)
	}
	directory := strings.TrimPrefix(l.ca.DirectoryURL(), "https://")
	host, path, _ := strings.Cut(directory, "/")
	user := "acme/" + certmagic.StorageKeys.Safe(host) + "-" + strings.ReplaceAll(path, "/", "-") + "/users/default/default"
	l.lay(user+".json", fmt.Appendf(nil, `{"status":"valid","location":%q}`, account))
	l.lay(user+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// layCertbotAccount writes an account as certbot does.
func (l *lodge) layCertbotAccount(key crypto.Signer, account string) {
	l.t.Helper()
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key})
	if err != nil {
		l.t.Fatal(err)
	}
	folder := "accounts/" + strings.TrimPrefix(l.ca.DirectoryURL(), "https://") + "/0123456789abcdef/"
	l.lay(folder+"private_key.json", jwk)
	l.lay(folder+"regr.json", fmt.Appendf(nil, `{"body":{},"uri":%q}`, account))
}
