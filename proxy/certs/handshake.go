package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/hostname"
)

// challengeProto is the ALPN protocol of a CA that validates (RFC 8737 §4).
const challengeProto = "acme-tls/1"

// errWaited ends a handshake whose certificate is still being obtained.
var errWaited = errors.New("certs: the certificate is not there yet, it is still being obtained")

// GetCertificate returns what a handshake is served with. It returns nil without an error for names that are not ours or that nobody wants a
// certificate for, and an error when a name of ours cannot be served now. It waits for a first certificate for Settings.MaxWait at
// most; what it waits for goes on without it, and Settings.StandIn says whether the client is served meanwhile. When the certificate is in memory it allocates nothing.
func (m *Manager) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	// RFC 8737 §3: the CA offers this protocol and no other. Whoever offers more is an ordinary client.
	if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == challengeProto {
		m.metrics.Handshake("challenge")
		return m.challenge(hello)
	}
	r := m.rules.Load()
	host, ok := r.host(hello)
	if !ok {
		m.metrics.Handshake("unknown")
		return nil, nil
	}
	now := time.Now()
	m.heedRevocations(hello, now)
	if cert := m.cache.serve(hello, host, r, now); cert != nil {
		m.note(r, host, now)
		m.metrics.Handshake("warm")
		return cert, nil
	}
	cert, result, err := m.coldHandshake(hello, r, host)
	m.metrics.Handshake(result)
	if cert != nil {
		m.note(r, host, now)
	}
	if err != nil {
		if e := m.log.Check(zap.DebugLevel, "handshake without a certificate"); e != nil { // scanners' noise
			e.Write(zap.String("name", host), zap.Error(err))
		}
	}
	return cert, err
}

// host is the canonical host that the client wants: its SNI, else the default name, else the address it connected to if a site lists it (clients
// send no SNI for addresses, RFC 6066 §3).
func (r *rules) host(hello *tls.ClientHelloInfo) (string, bool) {
	sni := hello.ServerName
	if sni == "" {
		sni = r.DefaultName
	}
	if sni == "" && hello.Conn != nil {
		ip := addrOf(hello.Conn.LocalAddr())
		if !ip.IsValid() || !r.listed[ip.WithZone("").String()] {
			return "", false
		}
		sni = ip.WithZone("").String()
	}
	host, err := hostname.Normalize(sni)
	return host, err == nil
}

// coldHandshake serves a host for which memory has nothing under the present rules.
func (m *Manager) coldHandshake(hello *tls.ClientHelloInfo, r *rules, host string) (*tls.Certificate, string, error) {
	t, ok := r.resolve(host)
	if !ok {
		return nil, "unknown", nil
	}
	if t.file != nil {
		if t.file.cert.Load() == nil { // not in Settings.Own
			_ = t.file.refresh(m.log) // it told the log
		}
		cert := t.file.cert.Load()
		if cert == nil {
			return nil, "failed", fmt.Errorf("site %s: its own certificate cannot be read", t.policy.Site)
		}
		m.cache.claim(host, t, r)
		return cert, "warm", nil
	}
	if s, ok := r.secondOf(t); ok && r.wantsSecond(hello) {
		t, host = s, host+r.suffix
	}
	old := m.cache.cert(t.name)
	if old.serves(time.Now()) { // under other rules, or another host below the wildcard
		m.cache.claim(host, t, r)
		return old.tls, "warm", nil
	}
	defer m.cold.Add(-1)
	if m.cold.Add(1) > maxWaiting {
		return nil, "failed", errBusy
	}
	ctx := hello.Context()
	if ctx == nil { // a hello made by hand
		if ctx = m.life(); ctx == nil {
			return nil, "failed", errClosed
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.MaxWait, errWaited)
	defer cancel()
	cert, result, err := m.seek(ctx, r, t, clientAddr(hello))
	if err != nil && old != nil && time.Now().Before(old.tls.Leaf.NotAfter) {
		return old.tls, "warm", nil // a brief one that is only due to be made anew
	}
	if other := m.sibling(hello, r, t); other != nil && cert == nil {
		return other.tls, "warm", nil
	}
	if cert == nil {
		if stand := m.standIn(r, t, err); stand != nil {
			return stand, "standin", nil
		}
		return nil, result, err
	}
	m.cache.claim(host, t, r)
	return cert.tls, result, nil
}
