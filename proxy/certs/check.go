package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// clockSkew is how far the CA's clock may be ahead of ours.
const clockSkew = 10 * time.Minute

// checkIssued reports why a chain must not be stored for the key and the names: a CA's mistake would otherwise replace a certificate that works.
func checkIssued(chain [][]byte, key crypto.PublicKey, names []string, now time.Time) (*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, errors.New("the chain is empty")
	}
	certs := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parse certificate %d of the chain: %w", i, err)
		}
		certs[i] = c
	}
	leaf := certs[0]
	switch {
	case !sameKey(leaf.PublicKey, key):
		return nil, errors.New("the certificate is for another key")
	case !slices.Equal(namesOf(leaf), sorted(names)):
		return nil, fmt.Errorf("the certificate is for %v, asked for were %v", namesOf(leaf), names)
	case !leaf.NotAfter.After(leaf.NotBefore) || !leaf.NotAfter.After(now):
		return nil, fmt.Errorf("the certificate ended at %s", leaf.NotAfter.Format(time.RFC3339))
	case leaf.NotBefore.After(now.Add(clockSkew)):
		return nil, fmt.Errorf("the certificate begins at %s, which is in the future: check the clock", leaf.NotBefore.Format(time.RFC3339))
	}
	return leaf, checkLinks(certs)
}

// checkLinks reports whether each certificate was signed by the next (RFC 8446 §4.4.2). Whom the last one leads to is for clients to judge.
func checkLinks(certs []*x509.Certificate) error {
	for i, c := range certs[:len(certs)-1] {
		parent := certs[i+1]
		if !bytes.Equal(c.RawIssuer, parent.RawSubject) {
			return fmt.Errorf("certificate %d of the chain was issued by %q, followed by %q", i, c.Issuer, parent.Subject)
		}
		if err := parent.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
			return fmt.Errorf("certificate %d of the chain is not signed by the next: %w", i, err)
		}
	}
	return nil
}

// namesOf returns the names and addresses of a certificate in canonical form, sorted.
func namesOf(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, have := range c.IPAddresses {
		if ip, ok := netip.AddrFromSlice(have); ok {
			names = append(names, ip.Unmap().String())
		}
	}
	return sorted(names)
}

func sorted(names []string) []string { return slices.Sorted(slices.Values(names)) }
