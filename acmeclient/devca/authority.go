package devca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"
)

const (
	rootLifetime         = 20 * 365 * 24 * time.Hour
	intermediateLifetime = 10 * 365 * 24 * time.Hour
)

// authority is what signs: a root that signs one intermediate, which signs the leaves. Immutable.
type authority struct {
	root, intermediate       *x509.Certificate
	rootKey, intermediateKey *ecdsa.PrivateKey
}

func newAuthority(now time.Time) (*authority, error) {
	a := &authority{}
	var err error
	// The tail keeps apart the roots of several devcas in one trust store.
	tail := make([]byte, 4)
	_, _ = rand.Read(tail) // never fails (crypto/rand)
	name := func(what string) pkix.Name {
		return pkix.Name{Organization: []string{"gatelodge devca"}, CommonName: "devca " + what + " " + hex.EncodeToString(tail)}
	}
	if a.rootKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("make root key: %w", err)
	}
	if a.intermediateKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("make intermediate key: %w", err)
	}
	root := caTemplate(name("root"), now, rootLifetime)
	if a.root, err = createCertificate(root, root, a.rootKey.Public(), a.rootKey); err != nil {
		return nil, fmt.Errorf("make root: %w", err)
	}
	inter := caTemplate(name("intermediate"), now, intermediateLifetime)
	inter.MaxPathLenZero = true
	if a.intermediate, err = createCertificate(inter, a.root, a.intermediateKey.Public(), a.rootKey); err != nil {
		return nil, fmt.Errorf("make intermediate: %w", err)
	}
	return a, nil
}

func caTemplate(name pkix.Name, now time.Time, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               name,
		NotBefore:             now.UTC().Truncate(time.Second),
		NotAfter:              now.UTC().Truncate(time.Second).Add(life),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}

// newSerial is 18 bytes, 17 of them random; the fixed first one makes it positive and always 36 hexadecimal digits long, as Boulder's are.
func newSerial() *big.Int {
	b := make([]byte, 18)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	b[0] = 0x1d
	return new(big.Int).SetBytes(b)
}

func createCertificate(template, parent *x509.Certificate, pub crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// domainValidated is the CA/Browser Forum's policy identifier for it.
var domainValidated = asn1.ObjectIdentifier{2, 23, 140, 1, 2, 1}

// issue signs a leaf. Its life is exact: with the last second included, as the Baseline Requirements count (section 6.3.2), it is life long.
func (a *authority) issue(names []identifier, pub crypto.PublicKey, now time.Time, life time.Duration) (*x509.Certificate, error) {
	t := &x509.Certificate{
		SerialNumber:          newSerial(),
		NotBefore:             now.UTC().Truncate(time.Second),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		PolicyIdentifiers:     []asn1.ObjectIdentifier{domainValidated},
	}
	t.NotAfter = t.NotBefore.Add(life - time.Second)
	if t.NotAfter.After(a.intermediate.NotAfter) {
		t.NotAfter = a.intermediate.NotAfter
	}
	if _, ok := pub.(*rsa.PublicKey); ok {
		t.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	for _, n := range names {
		if n.Type == identIP {
			t.IPAddresses = append(t.IPAddresses, net.ParseIP(n.Value))
			continue
		}
		t.DNSNames = append(t.DNSNames, n.Value)
		// RFC 5280 appendix A.1: a common name has at most 64 characters.
		if t.Subject.CommonName == "" && len(n.Value) <= 64 {
			t.Subject.CommonName = n.Value
		}
	}
	return createCertificate(t, a.intermediate, pub, a.intermediateKey)
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// encode puts all of it into one file's worth of PEM, so that keys and certificates can never come from two different writes.
func (a *authority) encode() ([]byte, error) {
	var out bytes.Buffer
	for _, p := range []struct {
		cert *x509.Certificate
		key  *ecdsa.PrivateKey
	}{{a.root, a.rootKey}, {a.intermediate, a.intermediateKey}} {
		der, err := x509.MarshalPKCS8PrivateKey(p.key)
		if err != nil {
			return nil, fmt.Errorf("encode key: %w", err)
		}
		out.Write(pemBlock("CERTIFICATE", p.cert.Raw))
		out.Write(pemBlock("PRIVATE KEY", der))
	}
	return out.Bytes(), nil
}

func decodeAuthority(data []byte) (*authority, error) {
	var certs []*x509.Certificate
	var keys []*ecdsa.PrivateKey
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("parse certificate: %w", err)
			}
			certs = append(certs, c)
		case "PRIVATE KEY":
			k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, errors.New("parse private key: not PKCS #8")
			}
			ec, ok := k.(*ecdsa.PrivateKey)
			if !ok {
				return nil, fmt.Errorf("private key is %T, want ECDSA", k)
			}
			keys = append(keys, ec)
		}
	}
	if len(certs) != 2 || len(keys) != 2 {
		return nil, fmt.Errorf("found %d certificates and %d keys, want 2 and 2", len(certs), len(keys))
	}
	a := &authority{root: certs[0], intermediate: certs[1], rootKey: keys[0], intermediateKey: keys[1]}
	if err := a.check(); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *authority) check() error {
	if !a.rootKey.PublicKey.Equal(a.root.PublicKey) || !a.intermediateKey.PublicKey.Equal(a.intermediate.PublicKey) {
		return errors.New("keys and certificates do not belong together")
	}
	if err := a.intermediate.CheckSignatureFrom(a.root); err != nil {
		return fmt.Errorf("intermediate is not under the root: %w", err)
	}
	return nil
}

// chain is what goes into a certificate's PEM after the leaf: the intermediate; the root is what clients have already.
func (a *authority) chain(leaf []byte) string {
	var b strings.Builder
	b.Write(pemBlock("CERTIFICATE", leaf))
	b.Write(pemBlock("CERTIFICATE", a.intermediate.Raw))
	return b.String()
}
