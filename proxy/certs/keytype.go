package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// keyType is a kind of key that a certificate is for, as Settings.Keys names it.
type keyType string

// The kinds that public CAs take (Let's Encrypt: RSA of 2048, 3072 or 4096 bits, P-256, P-384).
const (
	ecdsaP256 keyType = "ecdsa-p256"
	ecdsaP384 keyType = "ecdsa-p384"
	rsa2048   keyType = "rsa-2048"
	rsa3072   keyType = "rsa-3072"
	rsa4096   keyType = "rsa-4096"
)

func keyTypes() []keyType { return []keyType{ecdsaP256, ecdsaP384, rsa2048, rsa3072, rsa4096} }

// parseKeys checks Settings.Keys: one kind, or two of different algorithms. The second is empty if there is one only.
func parseKeys(keys []string) (first, second keyType, err error) {
	if len(keys) > 2 {
		return "", "", fmt.Errorf("%d kinds of keys, at most two make sense: one ECDSA, one RSA", len(keys))
	}
	for _, k := range keys {
		if !slices.Contains(keyTypes(), keyType(k)) {
			return "", "", fmt.Errorf("key %q is none of %v", k, keyTypes())
		}
	}
	if len(keys) == 0 {
		return ecdsaP256, "", nil
	}
	first = keyType(keys[0])
	if len(keys) == 2 {
		if second = keyType(keys[1]); second.algorithm() == first.algorithm() {
			return "", "", fmt.Errorf("keys %q and %q are of one algorithm: a client that cannot use the first cannot use the second either", first, second)
		}
	}
	return first, second, nil
}

// algorithm is "ecdsa" or "rsa".
func (k keyType) algorithm() string {
	algorithm, _, _ := strings.Cut(string(k), "-")
	return algorithm
}

// generate makes a new key. One of RSA takes from a tenth of a second to some seconds of CPU.
func (k keyType) generate() (crypto.Signer, error) {
	switch k {
	case ecdsaP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ecdsaP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case rsa2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case rsa3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case rsa4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return nil, fmt.Errorf("no such kind of key: %q", k) // cannot happen: parseKeys
}

// keyTypeOf says of which kind a public key is; empty for one that we do not make.
func keyTypeOf(public crypto.PublicKey) keyType {
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		return keyType(fmt.Sprintf("ecdsa-p%d", public.Params().BitSize))
	case *rsa.PublicKey:
		return keyType(fmt.Sprintf("rsa-%d", public.N.BitLen()))
	}
	return ""
}

// usableBy reports whether a client can be served with a certificate for such a key, as its hello says: what tls.ClientHelloInfo.SupportsCertificate
// tells, but before there is a certificate, and without allocating.
func (k keyType) usableBy(hello *tls.ClientHelloInfo) bool {
	// RFC 8446 §4.2.3: in TLS 1.3 an ECDSA scheme is bound to its curve, RSA keys sign with PSS, and cipher suites say nothing about keys.
	if slices.Contains(hello.SupportedVersions, tls.VersionTLS13) {
		return slices.ContainsFunc(hello.SignatureSchemes, k.signsTLS13)
	}
	return slices.ContainsFunc(hello.SignatureSchemes, k.signsTLS12) &&
		slices.ContainsFunc(hello.CipherSuites, k.suitsTLS12) &&
		slices.ContainsFunc(hello.SupportedCurves, k.curveTLS12)
}

func (k keyType) signsTLS13(s tls.SignatureScheme) bool {
	switch s {
	case tls.ECDSAWithP256AndSHA256:
		return k == ecdsaP256
	case tls.ECDSAWithP384AndSHA384:
		return k == ecdsaP384
	case tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512:
		return k.isRSA()
	}
	return false
}

// signsTLS12: SHA-1 is left out, as crypto/tls does.
func (k keyType) signsTLS12(s tls.SignatureScheme) bool {
	switch s {
	case tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512:
		return !k.isRSA()
	case tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512, tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512:
		return k.isRSA()
	}
	return false
}

// suitsTLS12 knows the suites that crypto/tls takes unless it is told otherwise.
func (k keyType) suitsTLS12(suite uint16) bool {
	switch suite {
	case tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:
		return !k.isRSA()
	case tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:
		return k.isRSA()
	}
	return false
}

// curveTLS12: RFC 8422 §5.1.1: up to TLS 1.2 the list of curves is for the key of the certificate too.
func (k keyType) curveTLS12(c tls.CurveID) bool {
	switch k {
	case ecdsaP256:
		return c == tls.CurveP256
	case ecdsaP384:
		return c == tls.CurveP384
	}
	return c == tls.X25519 || c == tls.CurveP256 || c == tls.CurveP384 || c == tls.CurveP521
}

func (k keyType) isRSA() bool { return k == rsa2048 || k == rsa3072 || k == rsa4096 }
