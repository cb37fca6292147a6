package certs

import (
	"crypto/tls"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestParseKeys_Table(t *testing.T) {
	for _, c := range []struct {
		keys          string
		first, second keyType
		wrong         string
	}{
		{"", ecdsaP256, "", ""},
		{"ecdsa-p384", ecdsaP384, "", ""},
		{"rsa-2048", rsa2048, "", ""},
		{"ecdsa-p256 rsa-2048", ecdsaP256, rsa2048, ""},
		{"rsa-4096 ecdsa-p384", rsa4096, ecdsaP384, ""},
		{"ecdsa-p256 ecdsa-p384", "", "", "one algorithm"},
		{"rsa-2048 rsa-2048", "", "", "one algorithm"},
		{"ecdsa-p256 rsa-2048 rsa-4096", "", "", "at most two"},
		{"rsa-1024", "", "", "none of"},
		{"ed25519", "", "", "none of"},
	} {
		first, second, err := parseKeys(strings.Fields(c.keys))
		if first != c.first || second != c.second || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%q: %q, %q, %v", c.keys, first, second, err)
		}
	}
}

func TestKeyType_GeneratesWhatItIsNamed(t *testing.T) {
	for _, k := range keyTypes() {
		if testing.Short() && k == rsa4096 {
			continue // seconds of CPU with the race detector
		}
		key, err := k.generate()
		if err != nil || keyTypeOf(key.Public()) != k {
			t.Errorf("%s: %v, %v", k, keyTypeOf(key.Public()), err)
		}
	}
}

// What crypto/tls would say of a certificate that is there is what we say before there is one.
func TestKeyType_IsUsableByWhomTLSCanServe(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	schemes := []tls.SignatureScheme{
		tls.PKCS1WithSHA1, tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PSSWithSHA256, tls.PSSWithSHA512, tls.ECDSAWithP256AndSHA256,
		tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512, tls.ECDSAWithSHA1, tls.Ed25519,
	}
	suites := []uint16{
		tls.TLS_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
	}
	curves := []tls.CurveID{tls.CurveP256, tls.CurveP384, tls.CurveP521, tls.X25519, tls.X25519MLKEM768}
	for _, k := range []keyType{ecdsaP256, ecdsaP384, rsa2048} {
		key, err := k.generate()
		if err != nil {
			t.Fatal(err)
		}
		cert, agreed := &tls.Certificate{PrivateKey: key}, 0
		for range 20000 {
			hello := &tls.ClientHelloInfo{
				SupportedVersions: some(random, []uint16{tls.VersionTLS12, tls.VersionTLS13}), SignatureSchemes: some(random, schemes),
				CipherSuites: some(random, suites), SupportedCurves: some(random, curves),
			}
			err := hello.SupportsCertificate(cert)
			if got := k.usableBy(hello); got != (err == nil) {
				t.Fatalf("%s for %+v: %v, crypto/tls says %v", k, hello, got, err)
			}
			if err == nil {
				agreed++
			}
		}
		if agreed < 1000 {
			t.Errorf("%s: only %d of the hellos could use it, the test says little", k, agreed)
		}
	}
}

// some returns a part of all, at least one.
func some[T any](random *rand.Rand, all []T) []T {
	var part []T
	for len(part) == 0 {
		for _, v := range all {
			if random.IntN(3) == 0 {
				part = append(part, v)
			}
		}
	}
	return part
}
