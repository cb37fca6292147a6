package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/certs/memo"
	"gatelodge/proxy/hostname"
)

const (
	standInsKept = 1024           // made for that many names, about 3 KB each; beyond them one is made anew, which takes one signature
	standInLife  = 24 * time.Hour // by its dates; nobody is shown it any more once there is a certificate
)

// standIns are what handshakes are served with while the first certificate of a name is on its way, if Settings.StandIn says so: certificates that nobody vouches for. All
// have one key, which lives in memory only.
type standIns struct {
	mu   sync.Mutex // guards key
	key  *ecdsa.PrivateKey
	made *memo.Memo[string, *tls.Certificate]
}

// standIn returns what to serve the target with in place of the certificate that did not come in time; nil if err says that none is on its way, or that there
// are too many handshakes to do anything for.
func (m *Manager) standIn(r *rules, t target, err error) *tls.Certificate {
	_, unavailable := errors.AsType[*UnavailableError](err)
	if !r.StandIn || !unavailable && !errors.Is(err, errWaited) && !errors.Is(err, errParked) {
		return nil
	}
	if _, ordered := m.queue.state(t.name); !ordered { // we may have waited for the permission
		return nil
	}
	cert, err := m.standIns.of(subject(t.name), time.Now())
	if err != nil {
		m.log.Error("no stand-in for a certificate", zap.String("name", t.name), zap.Error(err))
		return nil
	}
	return cert
}

// IsStandIn reports whether GetCertificate returned the certificate in place of one that is still on its way. What a client was told by it must not outlive it: a session that began with it is
// not to be resumed.
func (m *Manager) IsStandIn(cert *tls.Certificate) bool {
	if cert == nil {
		return false
	}
	key, ok := cert.PrivateKey.(*ecdsa.PrivateKey)
	m.standIns.mu.Lock()
	defer m.standIns.mu.Unlock()
	return ok && key == m.standIns.key
}

// of returns the stand-in for a host or wildcard.
func (s *standIns) of(name string, now time.Time) (*tls.Certificate, error) {
	if cert, ok := s.made.Get(name); ok {
		return cert, nil
	}
	key, err := s.signer()
	if err != nil {
		return nil, err
	}
	cert, err := newStandIn(name, key, now)
	if err == nil {
		s.made.Put(name, cert, now.Add(standInLife/2))
	}
	return cert, err
}

func (s *standIns) signer() (*ecdsa.PrivateKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.key == nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		s.key = key
	}
	return s.key, nil
}

func newStandIn(name string, key *ecdsa.PrivateKey, now time.Time) (*tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("choose a serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "The certificate is still being issued"},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.Add(standInLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	if hostname.IsIP(name) {
		template.IPAddresses = []net.IP{net.ParseIP(name)}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read what was signed: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
