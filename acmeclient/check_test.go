package acmeclient

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0") // to make the keys that are refused
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// requestWith is newRequest with a key on the curve.
func requestWith(t *testing.T, curve elliptic.Curve, names ...string) Request {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return requestFor(t, key, names...)
}

func issueCert(t *testing.T, tmpl, parent *x509.Certificate, pub crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCheckChain_TakesOnlyWhatWasAskedFor(t *testing.T) {
	now := time.Now()
	caKey, otherCAKey, key, otherKey := newKey(t), newKey(t), newKey(t), newKey(t)
	caTmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	issuer := issueCert(t, caTmpl, caTmpl, caKey.Public(), caKey)
	otherIssuer := issueCert(t, caTmpl, caTmpl, otherCAKey.Public(), otherCAKey)
	csrDER, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"a.test"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, _ := x509.ParseCertificateRequest(csrDER)
	leaf := func(pub crypto.PublicKey, from, to time.Time, names ...string) []byte {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: names, NotBefore: from, NotAfter: to}
		return issueCert(t, tmpl, issuer, pub, caKey).Raw
	}
	good := leaf(key.Public(), now.Add(-time.Minute), now.Add(time.Minute), "a.test")
	for _, tt := range []struct {
		name  string
		chain [][]byte
		wrong string // empty: taken
	}{
		{"as asked", [][]byte{good, issuer.Raw}, ""},
		{"leaf alone", [][]byte{good}, ""},
		{"name in capitals", [][]byte{leaf(key.Public(), now, now.Add(time.Minute), "A.TEST"), issuer.Raw}, ""},
		{"valid from soon", [][]byte{leaf(key.Public(), now.Add(time.Minute), now.Add(time.Hour), "a.test"), issuer.Raw}, ""},
		{"another key", [][]byte{leaf(otherKey.Public(), now, now.Add(time.Minute), "a.test"), issuer.Raw}, "another key"},
		{"a name more", [][]byte{leaf(key.Public(), now, now.Add(time.Minute), "a.test", "evil.test"), issuer.Raw}, "evil.test"},
		{"another name", [][]byte{leaf(key.Public(), now, now.Add(time.Minute), "evil.test"), issuer.Raw}, "evil.test"},
		{"ended", [][]byte{leaf(key.Public(), now.Add(-time.Hour), now.Add(-time.Minute), "a.test"), issuer.Raw}, "clock"},
		{"begins tomorrow", [][]byte{leaf(key.Public(), now.Add(24*time.Hour), now.Add(48*time.Hour), "a.test"), issuer.Raw}, "clock"},
		{"signed by another", [][]byte{good, otherIssuer.Raw}, "not signed by the next"},
		{"out of order", [][]byte{issuer.Raw, good}, "another key"},
		{"empty", nil, "0 certificates"},
		{"too long", [][]byte{good, good, good, good, good, good, good, good, good}, "9 certificates"},
		{"garbage", [][]byte{{1, 2, 3}}, "parse"},
		{"garbage above", [][]byte{good, {1, 2, 3}}, "parse"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := checkChain(tt.chain, []string{"a.test"}, csr, now)
			if tt.wrong == "" && err != nil || tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestCheckChain_LeavesOutWhatDoesNotBelongToTheChain(t *testing.T) {
	now := time.Now()
	authority := func(name string, parent *x509.Certificate, key, parentKey crypto.Signer) *x509.Certificate {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
		if parent == nil {
			parent = tmpl
		}
		return issueCert(t, tmpl, parent, key.Public(), parentKey)
	}
	rootKey, lowerKey, otherKey, key := newKey(t), newKey(t), newKey(t), newKey(t)
	root := authority("root", nil, rootKey, rootKey)
	lower := authority("lower", root, lowerKey, rootKey)
	stranger := authority("stranger", nil, otherKey, otherKey)
	csrDER, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"a.test"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, _ := x509.ParseCertificateRequest(csrDER)
	leaf := issueCert(t, &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"a.test"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Minute)}, lower, key.Public(), lowerKey)
	for name, tt := range map[string]struct{ sent, want []*x509.Certificate }{
		"as it should be":       {[]*x509.Certificate{leaf, lower, root}, []*x509.Certificate{leaf, lower, root}},
		"a stranger at the end": {[]*x509.Certificate{leaf, lower, stranger}, []*x509.Certificate{leaf, lower}},
		"a stranger in between": {[]*x509.Certificate{leaf, stranger, lower, root}, []*x509.Certificate{leaf, lower, root}},
		"one twice":             {[]*x509.Certificate{leaf, lower, lower}, []*x509.Certificate{leaf, lower}},
		"the root twice":        {[]*x509.Certificate{leaf, lower, root, root}, []*x509.Certificate{leaf, lower, root}},
		"another order":         {[]*x509.Certificate{leaf, root, lower}, []*x509.Certificate{leaf, lower, root}},
	} {
		var sent, want [][]byte
		for _, c := range tt.sent {
			sent = append(sent, c.Raw)
		}
		for _, c := range tt.want {
			want = append(want, c.Raw)
		}
		got, err := checkChain(sent, []string{"a.test"}, csr, now)
		if err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%s: %d certificates of %d, error %v", name, len(got), len(sent), err)
		}
	}
}

func TestCheckRequest_RefusesBeforeAnythingIsAsked(t *testing.T) {
	good := newRequest(t, "a.test", "192.0.2.1", "2001:db8::1")
	if names, _, err := checkRequest(&good); err != nil || len(names) != 3 {
		t.Errorf("good request: %v, %v", names, err)
	}
	for name, r := range map[string]Request{
		"no names":               {CSR: good.CSR},
		"other names in the CSR": {Names: []string{"b.test"}, CSR: good.CSR},
		"no CSR":                 {Names: []string{"a.test"}},
		"too many names":         {Names: make([]string, maxNames+1), CSR: good.CSR},
		"key on P-521":           requestWith(t, elliptic.P521(), "a.test"),
	} {
		if _, _, err := checkRequest(&r); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, key := range []crypto.PublicKey{rsaKey(t, 1024).Public(), rsaKey(t, 2056).Public(), ed25519.PublicKey{}} {
		if err := checkKey(key); err == nil {
			t.Errorf("%T is taken", key)
		}
	}
	for _, key := range []crypto.PublicKey{rsaKey(t, 2048).Public(), newKey(t).Public()} {
		if err := checkKey(key); err != nil {
			t.Error(err)
		}
	}
}

func TestCertificateID_IsThatOfTheRFC(t *testing.T) {
	// RFC 9773 §4.1: key identifier 69:88:5B:6B:87:46:40:41:E1:B3:7B:84:7B:A0:AE:2C:DE:01:C8:D4, serial 00:87:65:43:21.
	key := newKey(t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(0x87654321), NotAfter: time.Now().Add(time.Hour),
		AuthorityKeyId: []byte{0x69, 0x88, 0x5B, 0x6B, 0x87, 0x46, 0x40, 0x41, 0xE1, 0xB3, 0x7B, 0x84, 0x7B, 0xA0, 0xAE, 0x2C, 0xDE, 0x01, 0xC8, 0xD4}}
	parent := &x509.Certificate{SerialNumber: big.NewInt(1), SubjectKeyId: tmpl.AuthorityKeyId}
	cert := issueCert(t, tmpl, parent, key.Public(), key)
	if got, want := certificateID([][]byte{cert.Raw}), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"; got != want {
		t.Errorf("got %s, wanted %s", got, want)
	}
	for _, chain := range [][][]byte{nil, {{1}}} {
		if got := certificateID(chain); got != "" {
			t.Errorf("id of %v is %q", chain, got)
		}
	}
}
