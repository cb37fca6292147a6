package certs

import (
	"crypto/tls"
	"crypto/x509"
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
	notes  map[string]string
}

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
		renewAt: renewal(name, pair.Leaf, b.Issued, Window{b.RenewStart, b.RenewEnd}, ratio),
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

// loyalUntil is when so little of its life is left that its renewal may go to another CA than usual.
func (c *certificate) loyalUntil() time.Time {
	return c.tls.Leaf.NotAfter.Add(-scale(c.tls.Leaf.NotAfter.Sub(c.tls.Leaf.NotBefore), lifeForFailover))
}

// serves reports whether it may still be shown to clients. One before its time is shown: our clock or the CA's is wrong, and the client decides.
func (c *certificate) serves(now time.Time) bool { return c != nil && now.Before(c.until) }

// fresh reports whether it serves and is not due for renewal either.
func (c *certificate) fresh(now time.Time) bool { return c.serves(now) && now.Before(c.renewAt) }
