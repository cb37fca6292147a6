package certs

import (
	"crypto/tls"
	"strings"
	"time"
)

// A host may have two certificates, for keys of two algorithms: the main one for nearly everybody, and a second for clients that cannot use it. They share
// nothing but the host. Whatever is kept of a certificate (object, pending key, failures, order, plan, entry of the index, of the cache) is kept under the
// certificate's own name: that of the host or wildcard it is for, and for the second one "+" and its algorithm behind it, which no host has in its name.
//
// So "name" means a certificate's own name throughout this package; where the host is meant, subject tells it.

// maxName is the longest name of a certificate: one segment of an object's name.
const maxName = 255

// subject is what the certificate of that name is for: a host or a wildcard.
func subject(name string) string {
	host, _, _ := strings.Cut(name, "+")
	return host
}

// isSecond reports whether the name is that of a second certificate.
func isSecond(name string) bool { return strings.Contains(name, "+") }

// secondOf returns the target for the host's second certificate. It reports false if there is none: none is configured, the site brings its own, or the
// certificate lives in memory only, where it costs a key for anybody who asks.
func (r *rules) secondOf(t target) (target, bool) {
	if r.second == "" || t.file != nil || t.brief || isSecond(t.name) || len(t.name)+len(r.suffix) > maxName {
		return t, false
	}
	t.name += r.suffix
	return t, true
}

// keyFor is the kind of key that a new certificate of the name gets.
func (r *rules) keyFor(name string) keyType {
	if isSecond(name) {
		return r.second
	}
	return r.main
}

// wantsSecond reports whether the client can be served with the second certificate of a host only. A client of which we know nothing gets the main one.
func (r *rules) wantsSecond(hello *tls.ClientHelloInfo) bool {
	return r.second != "" && !r.main.usableBy(hello) && r.second.usableBy(hello)
}

// sibling returns the other certificate of the same host if it is in memory and the client can use it: better than none, while the one that is meant for the
// client cannot be had.
func (m *Manager) sibling(hello *tls.ClientHelloInfo, r *rules, t target) *certificate {
	if r.second == "" || t.file != nil || t.brief {
		return nil
	}
	name := subject(t.name)
	if !isSecond(t.name) {
		name += r.suffix
	}
	cert := m.cache.cert(name)
	if !cert.serves(time.Now()) || !keyTypeOf(cert.tls.Leaf.PublicKey).usableBy(hello) {
		return nil
	}
	return cert
}
