package acmeclient

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// published is the answer to one challenge.
type published struct {
	object  string
	record  challengeRecord
	cert    *tls.Certificate // tls-alpn-01
	seen    chan struct{}    // closed when somebody has fetched it from this process
	seeOnce sync.Once
}

// challengeRecord is the object acme/challenges/<hash>.
type challengeRecord struct {
	Type       string    `json:"type"`
	Identifier string    `json:"identifier"`
	Token      string    `json:"token"`
	KeyAuth    string    `json:"key_auth,omitempty"`    // http-01
	Cert       []byte    `json:"certificate,omitempty"` // tls-alpn-01, DER
	Key        []byte    `json:"key,omitempty"`         // of Cert, PKCS #8; good for this challenge only
	Expires    time.Time `json:"expires"`
}

// newPublished makes the answer to a challenge for the canonical identifier. cert is for tls-alpn-01 only.
func newPublished(typ, identifier, token, keyAuth string, cert *tls.Certificate) *published {
	p := &published{
		record: challengeRecord{Type: typ, Identifier: identifier, Token: token, KeyAuth: keyAuth, Expires: time.Now().Add(challengeTTL).UTC()},
		cert:   cert, seen: make(chan struct{}),
	}
	if typ == ChallengeTLSALPN01 {
		p.record.KeyAuth = "" // the certificate says it
		p.object = challengeObject(typ, sniOf(identifier), "")
	} else {
		p.object = challengeObject(typ, identifier, token)
	}
	return p
}

// challengeObject returns the object's name, a hash of what the CA will ask by: Host and token, or the server name alone.
func challengeObject(typ, asked, token string) string {
	sum := sha256.Sum256([]byte(typ + "\n" + asked + "\n" + token))
	return challengePrefix + hex.EncodeToString(sum[:16])
}

// validToken reports whether a token is one that a CA can have made: RFC 8555 §8.3 "at least 128 bits of entropy … MUST NOT contain any characters outside
// the base64url alphabet".
func validToken(token string) bool {
	return len(token) >= 22 && len(token) <= 128 && isBase64URL(token)
}

// hostOf returns the canonical host of a Host field, without port.
func hostOf(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.String()
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// sniOf returns the server name by which a CA asks for an identifier: an address as its reverse-mapping name (RFC 8738 §6).
func sniOf(identifier string) string {
	ip, err := netip.ParseAddr(identifier)
	if err != nil {
		return identifier
	}
	var b strings.Builder
	if ip.Is4() {
		for _, octet := range slices.Backward(ip.AsSlice()) {
			fmt.Fprintf(&b, "%d.", octet)
		}
		return b.String() + "in-addr.arpa"
	}
	for _, octet := range slices.Backward(ip.AsSlice()) {
		fmt.Fprintf(&b, "%x.%x.", octet&0xf, octet>>4)
	}
	return b.String() + "ip6.arpa"
}
