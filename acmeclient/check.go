package acmeclient

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// maxNames is what Let's Encrypt's default profile takes; other CAs take fewer and say so.
const maxNames = 100

// checkRequest returns the sorted names of a request whose CSR is for exactly these names, and the CSR. The names themselves are checked before.
func checkRequest(r *Request) ([]string, *x509.CertificateRequest, error) {
	if len(r.Names) == 0 || len(r.Names) > maxNames {
		return nil, nil, fmt.Errorf("%d names, allowed are 1 to %d", len(r.Names), maxNames)
	}
	names := slices.Compact(slices.Sorted(slices.Values(r.Names)))
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return nil, nil, fmt.Errorf("parse the CSR: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, nil, fmt.Errorf("check the CSR's signature: %w", err)
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, nil, err
	}
	if got := sans(csr.DNSNames, csr.IPAddresses); !slices.Equal(got, names) {
		return nil, nil, fmt.Errorf("the CSR is for %s, not for %s", strings.Join(got, ", "), strings.Join(names, ", "))
	}
	return names, csr, nil
}

// checkKey refuses keys that public CAs do not sign: Let's Encrypt takes P-256, P-384 and RSA with 2048, 3072 or 4096 bits.
func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("the CSR's key is on the curve %s, allowed are P-256 and P-384", k.Params().Name)
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits != 2048 && bits != 3072 && bits != 4096 {
			return fmt.Errorf("the CSR's RSA key has %d bits, allowed are 2048, 3072 and 4096", bits)
		}
		return nil
	}
	return fmt.Errorf("the CSR's key is a %T, allowed are ECDSA and RSA", key)
}

// sans returns names and addresses, sorted, in lower case, each once.
func sans(dns []string, ips []net.IP) []string {
	var all []string
	for _, n := range dns {
		all = append(all, strings.ToLower(n))
	}
	for _, ip := range ips {
		if a, ok := netip.AddrFromSlice(ip); ok {
			all = append(all, a.Unmap().String())
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// maxChain bounds a chain, leaf included.
const maxChain = 8

// clockSkew is how far the CA's clock may be ahead of ours.
const clockSkew = 10 * time.Minute

// errClock is wrapped where a certificate's dates make no sense at our time.
var errClock = errors.New("the CA's clock or ours is wrong")

// checkChain decides whether the answer is what was asked for: our key, our names, dates that make sense, and a chain that leads up from it, which it returns. Whether
// anybody trusts the last one is not for us to say: the CA was configured by a person.
func checkChain(chain [][]byte, names []string, csr *x509.CertificateRequest, now time.Time) ([][]byte, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, fmt.Errorf("the chain has %d certificates, allowed are 1 to %d", len(chain), maxChain)
	}
	certs := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		var err error
		if certs[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("parse certificate %d of the chain: %w", i+1, err)
		}
	}
	if err := checkLeaf(certs[0], names, csr, now); err != nil {
		return nil, err
	}
	return linked(certs)
}

// checkLeaf is checkChain for the certificate itself.
func checkLeaf(leaf *x509.Certificate, names []string, csr *x509.CertificateRequest, now time.Time) error {
	if !bytes.Equal(leaf.RawSubjectPublicKeyInfo, csr.RawSubjectPublicKeyInfo) {
		return errors.New("the certificate is for another key")
	}
	if got := sans(leaf.DNSNames, leaf.IPAddresses); !slices.Equal(got, names) {
		return fmt.Errorf("the certificate is for %s, not for %s", clean(strings.Join(got, ", ")), strings.Join(names, ", "))
	}
	switch {
	case !leaf.NotAfter.After(leaf.NotBefore) || !leaf.NotAfter.After(now):
		return fmt.Errorf("the certificate ends at %s: %w", leaf.NotAfter.UTC().Format(time.RFC3339), errClock)
	case leaf.NotBefore.After(now.Add(clockSkew)):
		return fmt.Errorf("the certificate begins at %s: %w", leaf.NotBefore.UTC().Format(time.RFC3339), errClock)
	}
	return nil
}

// linked returns what leads up from the first certificate, each signed by the next (RFC 8446 §4.4.2). CAs send others besides: cross-signed ones that lead elsewhere, the
// same one twice, the right ones in another order. To ask for another certificate would not help. None at all above the first is an error, unless it came alone.
func linked(certs []*x509.Certificate) ([][]byte, error) {
	top, rest := certs[0], certs[1:]
	chain := [][]byte{top.Raw}
	for len(rest) > 0 {
		i := slices.IndexFunc(rest, func(c *x509.Certificate) bool { return !c.Equal(top) && top.CheckSignatureFrom(c) == nil })
		if i < 0 {
			break
		}
		top = rest[i]
		chain, rest = append(chain, top.Raw), slices.Concat(rest[:i], rest[i+1:])
	}
	if len(chain) == 1 && len(certs) > 1 {
		return nil, fmt.Errorf("the certificate is not signed by the next of the chain, nor by another: %w", top.CheckSignatureFrom(certs[1]))
	}
	return chain, nil
}

// replacedID returns the id of the predecessor of a certificate for the sorted names, empty if it cannot be one: RFC 9773 §5 asks for an identifier in common.
func replacedID(chain [][]byte, names []string) string {
	if len(chain) == 0 {
		return ""
	}
	cert, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return ""
	}
	for _, n := range sans(cert.DNSNames, cert.IPAddresses) {
		if slices.Contains(names, n) {
			return certificateID(chain)
		}
	}
	return ""
}

// certificateID returns the id of a certificate (RFC 9773 §4.1), empty if it has none.
func certificateID(chain [][]byte) string {
	if len(chain) == 0 {
		return ""
	}
	cert, err := x509.ParseCertificate(chain[0])
	if err != nil || len(cert.AuthorityKeyId) == 0 || cert.SerialNumber.Sign() <= 0 {
		return ""
	}
	serial := cert.SerialNumber.Bytes()
	if serial[0] >= 0x80 {
		serial = append([]byte{0}, serial...) // the DER integer's own leading zero belongs to it
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return b64(cert.AuthorityKeyId) + "." + b64(serial)
}
