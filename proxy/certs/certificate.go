package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"gatelodge/storage"
)

// certificate is one that we obtained, ready for handshakes. It is never modified.
type certificate struct {
	tls  *tls.Certificate // with Leaf
	name string           // its own, see second.go
	ca   string           // who issued it

	// renewAt is when the next one should be obtained; see renewal.
	renewAt time.Time

	// until is when it is no longer served: the end of its life. One that is brief (see target) is made anew at renewAt instead.
	until time.Time

	issued time.Time // when we obtained it; zero if that is unknown
	early  bool      // it replaced one that had hardly begun to live
	window Window    // that came with it; may be zero
	sum    leafSum
	notes  map[string]string // nil if it comes from memory
}

// leafID tells the certificates of one name apart: the first bytes of the SHA-256.
type leafID uint64

func (c *certificate) leaf() leafID { return leafID(binary.BigEndian.Uint64(c.sum[:])) }

// extraEarly is the field of a bundle (storage.Bundle.Extra) that says certificate.early.
const extraEarly = "replaced_early"

// newCertificate makes a bundle ready. The error says why it cannot serve the name.
func newCertificate(name string, b *storage.Bundle, ratio float64) (*certificate, error) {
	pair, err := b.TLSCertificate()
	if err != nil {
		return nil, err
	}
	if !covers(pair.Leaf, subject(name)) {
		return nil, fmt.Errorf("its certificate is for %v, not for %s", pair.Leaf.DNSNames, subject(name))
	}
	return &certificate{
		tls: pair, name: name, ca: b.CA, until: pair.Leaf.NotAfter, issued: b.Issued, notes: b.Notes,
		renewAt: renewal(name, pair.Leaf, b.Issued, Window{b.RenewStart, b.RenewEnd}, ratio).UTC().Truncate(time.Second),
		window:  Window{b.RenewStart, b.RenewEnd}, sum: leafSum(sha256.Sum256(pair.Leaf.Raw)), early: string(b.Extra[extraEarly]) == "true",
	}, nil
}

// covers reports whether the certificate is good for the canonical name or wildcard.
func covers(leaf *x509.Certificate, name string) bool {
	if ip, err := netip.ParseAddr(name); err == nil {
		return slices.ContainsFunc(leaf.IPAddresses, func(have net.IP) bool {
			a, ok := netip.AddrFromSlice(have)
			return ok && a.Unmap() == ip.Unmap()
		})
	}
	return slices.Contains(leaf.DNSNames, name) || name[0] != '*' && leaf.VerifyHostname(name) == nil
}

// serves reports whether it may still be shown to clients. One before its time is shown: our clock or the CA's is wrong, and the client decides.
func (c *certificate) serves(now time.Time) bool { return c != nil && now.Before(c.until) }

// firstCheck is when its CA is first asked about its renewal: within the hour, and early in a short life.
func (c *certificate) firstCheck(now time.Time) time.Time {
	life := c.tls.Leaf.NotAfter.Sub(c.tls.Leaf.NotBefore)
	return now.Add(scale(min(firstWithin, life/20), c.identity().spread()))
}
