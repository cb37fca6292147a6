package migrate

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"gatelodge/storage"
)

// maxCertificates bounds the certificates of one chain, as storage does.
const maxCertificates = 16

// bundle makes a bundle of what was found, and says for which names. Errors show neither key nor certificate.
func (f *found) bundle() (*storage.Bundle, []string, error) {
	key, err := parseKey(f.key)
	if err != nil {
		return nil, nil, err
	}
	chain, err := parseChain(f.chain)
	if err != nil {
		return nil, nil, err
	}
	if chain, err = leafFirst(chain, key); err != nil {
		return nil, nil, err
	}
	names, err := namesOf(chain[0])
	if err != nil {
		return nil, nil, err
	}
	b := &storage.Bundle{Names: names, NotBefore: chain[0].NotBefore, NotAfter: chain[0].NotAfter, RenewStart: f.start, RenewEnd: f.end}
	for _, cert := range chain {
		b.Chain = append(b.Chain, cert.Raw)
	}
	if b.Key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, nil, fmt.Errorf("its private key is of a kind that is not supported (%T)", key)
	}
	b.Notes = map[string]string{"imported": f.where}
	if json.Valid(f.issuerData) {
		b.Extra = map[string]json.RawMessage{"issuer_data": f.issuerData}
	}
	if _, err := b.Encode(); err != nil {
		return nil, nil, err
	}
	return b, names, nil
}

// parseKey takes the first private key out of PEM, whichever form it has.
func parseKey(data []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		if block == nil {
			return nil, errors.New("it has no private key")
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return nil, errors.New("its private key is protected by a password: remove that first (openssl pkey)")
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return parseKeyDER(block.Bytes)
		}
	}
}

func parseKeyDER(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	return nil, errors.New("its private key cannot be parsed") // a cause might quote it
}

func parseChain(data []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		switch {
		case block == nil && len(chain) == 0:
			return nil, errors.New("it has no certificate")
		case block == nil:
			return chain, nil
		case block.Type != "CERTIFICATE":
			continue
		case len(chain) == maxCertificates:
			return nil, fmt.Errorf("it has more than %d certificates", maxCertificates)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse its certificate: %w", err)
		}
		chain = append(chain, cert)
	}
}

// leafFirst puts the key's certificate first and the others behind it, each once, in their order.
func leafFirst(chain []*x509.Certificate, key crypto.Signer) ([]*x509.Certificate, error) {
	at := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return sameKey(c, key) })
	if at < 0 {
		return nil, errors.New("its private key is not that of its certificate")
	}
	sorted := []*x509.Certificate{chain[at]}
	for _, c := range chain {
		if !slices.ContainsFunc(sorted, func(have *x509.Certificate) bool { return bytes.Equal(have.Raw, c.Raw) }) {
			sorted = append(sorted, c)
		}
	}
	return sorted, nil
}

func sameKey(c *x509.Certificate, key crypto.Signer) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

// namesOf returns the names in canonical form, each once.
func namesOf(leaf *x509.Certificate) ([]string, error) {
	var names []string
	for _, name := range leaf.DNSNames {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if !isHost(strings.TrimPrefix(name, "*.")) {
			return nil, fmt.Errorf("its name %q is not one of a host", name)
		}
		names = append(names, name)
	}
	for _, raw := range leaf.IPAddresses {
		if ip, ok := netip.AddrFromSlice(raw); ok {
			names = append(names, ip.Unmap().String())
		}
	}
	if len(names) == 0 {
		return nil, errors.New("its certificate has no names")
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// isHost reports whether the name has labels of letters, digits, hyphens and underscores, 253 bytes at most.
func isHost(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
