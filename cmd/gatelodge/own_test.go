package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"gatelodge/acmeclient/devca"
	"gatelodge/cmd/internal/config"
)

// writePair makes a self-signed certificate for a name, trusted by the lodge's clients.
func (l *lodge) writePair(name, certFile, keyFile string) {
	l.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		l.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		l.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		l.t.Fatal(err)
	}
	pair := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	l.roots.AppendCertsFromPEM(pair)
	l.write(certFile, string(pair))
	l.write(keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}

func TestProgram_KeepsASitesOwnCertificateOverReloadsThatCannotReadIt(t *testing.T) {
	l := newLodge(t, devca.Config{})
	site := "[[site]]\nhosts = [\"own.test\"]\nto = \"" + l.upstream.URL + "\"\ncertificate = \"own.pem\"\nkey = \"own.key\"\n"
	l.configure(l.ca.DirectoryURL(), site)
	l.writePair("own.test", "own.pem", "own.key")
	l.start()
	for range 2 { // reloads that nobody's handshake comes between
		if err := l.program.reload(); err != nil {
			t.Fatal(err)
		}
	}
	l.write("own.pem", "damaged")
	if err := l.program.reload(); err != nil {
		t.Logf("a reload that reads the broken pair: %v", err)
	}
	if _, err := l.handshake("own.test"); err != nil {
		t.Errorf("the pair that was good is not served any more: %v", err)
	}
	if n := l.orders("own.test"); n != 0 {
		t.Errorf("%d orders for a site with its own certificate", n)
	}
}

func TestProgram_DoesNotStartWithAPairThatDoesNotBelongTogether(t *testing.T) {
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), "[[site]]\nhosts = [\"own.test\"]\nto = \""+l.upstream.URL+"\"\ncertificate = \"own.pem\"\nkey = \"other.key\"\n")
	l.writePair("own.test", "own.pem", "own.key")
	l.writePair("other.test", "other.pem", "other.key")
	cfg, err := config.Load(l.path("gatelodge.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := verifyFiles(cfg); err == nil || !strings.Contains(err.Error(), "other.key") {
		t.Errorf("check: %v; want an error that names the files", err)
	}
	p, err := newProgram(t.Context(), cfg, nil, nil)
	if err == nil {
		p.close()
		t.Fatal("it started")
	}
	if !strings.Contains(err.Error(), "own.pem") {
		t.Errorf("the error does not name the file: %v", err)
	}
}
