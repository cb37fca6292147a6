package storage

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// bundleFormat is raised when a program of today must no longer believe what it reads in the first line; the pair is always readable.
const bundleFormat = 1

// Bundle is everything about one certificate, stored as one object, so that no reader ever sees a chain with another's key.
//
// As an object it is one line of JSON about the certificate, the chain and the key in PEM, and a line with the SHA-256 of that PEM: a person can
// read it, openssl can, and damage elsewhere takes nothing from a pair that is whole.
//
// A Bundle is not changed after it was stored or shared. Printing or logging one by any verb, encoder or logger shows no key.
type Bundle struct {
	// Names are the canonical names that the certificate was ordered for.
	Names []string

	// CA is the name in the configuration of the issuer; empty when that was lost.
	CA string

	// Chain is DER, leaf first. It has at least the leaf.
	Chain [][]byte

	// Key is the leaf's private key as PKCS #8 DER.
	Key []byte

	// NotBefore and NotAfter are the leaf's, to the second. Encode takes them from the leaf if they are zero.
	NotBefore, NotAfter time.Time

	// Issued is when we obtained it; zero means unknown.
	Issued time.Time

	// Fence is that of the lease under which the bundle was written: whoever holds a lesser one must not overwrite it.
	Fence uint64

	// RenewStart and RenewEnd are the window in which the CA wants it renewed (RFC 9773); zero when it does not say.
	RenewStart, RenewEnd time.Time

	// Notes are for a person. Never secrets.
	Notes map[string]string

	// Extra are fields of the first line that this program does not know: a newer one wrote them. They are kept when the bundle is stored again.
	Extra map[string]json.RawMessage

	// Lost is not stored. It says which part of the first line could not be read: that part is zero, names and dates are the leaf's, and the pair is good.
	Lost error

	parsed *tls.Certificate // by DecodeBundle; never modified
}

// Encode returns the bundle as an object. It refuses what DecodeBundle would refuse, so that no pair is stored that cannot serve.
func (b *Bundle) Encode() ([]byte, error) {
	cert, err := parsePair(b.Chain, b.Key)
	if err != nil {
		return nil, fmt.Errorf("encode bundle: %w", err)
	}
	about := newAbout(b)
	about.fromLeaf(cert.Leaf)
	var out bytes.Buffer
	if err := about.write(&out, b.Extra); err != nil {
		return nil, fmt.Errorf("encode bundle: %w", err)
	}
	pair := out.Len()
	for _, der := range b.Chain {
		if err := pem.Encode(&out, &pem.Block{Type: pemCertificate, Bytes: der}); err != nil {
			return nil, fmt.Errorf("encode bundle: %w", err)
		}
	}
	if err := pem.Encode(&out, &pem.Block{Type: pemKey, Bytes: b.Key}); err != nil {
		return nil, fmt.Errorf("encode bundle: %w", err)
	}
	out.WriteString(pairSum(out.Bytes()[pair:]))
	return out.Bytes(), nil
}

// pairSum is the last line of an object.
func pairSum(pair []byte) string { return fmt.Sprintf("%s%x\n", pairSumPrefix, sha256.Sum256(pair)) }

// DecodeBundle is the reverse of Encode. It returns a *CorruptError for the object of that name when chain and key cannot
// serve: none there, not parseable, not belonging together. Everything else that is wrong is told in Bundle.Lost. It
// does not look at the dates, nor at who signed the certificate.
func DecodeBundle(name string, data []byte) (*Bundle, error) {
	line, rest, _ := bytes.Cut(data, []byte("\n"))
	if bytes.HasPrefix(line, []byte("-----BEGIN")) {
		line, rest = nil, data
	}
	chain, key, err := decodePEM(rest)
	if err != nil {
		return nil, NewCorruptError(name, data, err)
	}
	cert, err := parsePair(chain, key)
	if err != nil {
		return nil, NewCorruptError(name, data, err)
	}
	b := &Bundle{Chain: chain, Key: key, parsed: cert}
	about, extra, lost := readAbout(line)
	about.fromLeaf(cert.Leaf)
	about.fill(b)
	b.Extra, b.Lost = extra, lost
	return b, nil
}

// TLSCertificate returns the pair ready for handshakes, with Leaf set. It shares memory with the bundle. An error can only come
// from a bundle that was made by hand.
func (b *Bundle) TLSCertificate() (*tls.Certificate, error) {
	if b.parsed != nil {
		c := *b.parsed
		return &c, nil
	}
	return parsePair(b.Chain, b.Key)
}

const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY" // PKCS #8, RFC 7468 §10
	pairSumPrefix  = "pair sha256 "
)

// maxChain bounds the certificates that we look at in one object. Public chains have two to four.
const maxChain = 16

func decodePEM(rest []byte) (chain [][]byte, key []byte, err error) {
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil && len(chain) == 0:
			return nil, nil, errors.New("it has no certificate")
		case block == nil && key == nil:
			return nil, nil, errors.New("it has no private key")
		case block == nil:
			return chain, key, nil
		case block.Type == pemCertificate && len(chain) == maxChain:
			return nil, nil, fmt.Errorf("it has more than %d certificates", maxChain)
		case block.Type == pemCertificate:
			chain = append(chain, block.Bytes)
		case block.Type == pemKey && key != nil:
			return nil, nil, errors.New("it has two private keys")
		case block.Type == pemKey:
			key = block.Bytes
		}
	}
}
