// Package localca is the internal CA: it issues for names that no public CA may, such as localhost, *.internal and private addresses. It is an
// issuer like any other (certs.Issuer), only that nobody is asked and nothing is proved: whoever can write the storage is the CA.
//
// A root of ten years signs an intermediate of some months, which signs certificates of some days. Both keys lie in storage, made once by
// whoever comes first; clients are told to trust the root (CA.RootPEM), and nothing changes for them when the intermediate is replaced.
package localca

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/certs"
	"gatelodge/proxy/hostname"
	"gatelodge/storage"
)

// Config describes the internal CA.
type Config struct {
	// Name is the issuer's name, stored with each certificate. Empty means "internal".
	Name string

	// Store keeps root and intermediate below "localca/". Required.
	Store storage.Store

	// Names are patterns (hostname.Match) that it serves beside those of DefaultNames.
	Names []string

	// Lifetime is that of certificates. Zero means 7 days.
	Lifetime time.Duration

	// Logger is required.
	Logger *zap.Logger
}

// DefaultNames are the patterns that the internal CA serves in any case, beside private, loopback and link-local addresses: names that RFC 6761 (localhost),
// RFC 6762 (local), RFC 8375 (home.arpa) and ICANN (internal) keep out of the public DNS.
func DefaultNames() []string {
	return []string{"localhost", "*.localhost", "*.internal", "*.local", "*.home.arpa"}
}

// CA is the internal CA. It is safe for concurrent use, also by several processes on one storage.
type CA struct {
	cfg Config

	mu     sync.Mutex // guards signer; never held during I/O
	signer *signer    // the intermediate in use, with its root; nil until it is needed
}

var _ certs.Issuer = (*CA)(nil)

// New checks the configuration. Keys are read, or made, when the first certificate is wanted.
func New(cfg Config) (*CA, error) {
	if cfg.Store == nil {
		return nil, errors.New("localca: Config.Store is missing")
	}
	if cfg.Logger == nil {
		return nil, errors.New("localca: Config.Logger is missing")
	}
	if cfg.Name == "" {
		cfg.Name = "internal"
	}
	if cfg.Lifetime == 0 {
		cfg.Lifetime = 7 * 24 * time.Hour
	}
	if cfg.Lifetime < 0 || cfg.Lifetime > maxLifetime {
		return nil, fmt.Errorf("localca: lifetime %s is not between 0 and %s", cfg.Lifetime, maxLifetime)
	}
	cfg.Logger = cfg.Logger.Named("localca")
	return &CA{cfg: cfg}, nil
}

// Name implements certs.Issuer.
func (c *CA) Name() string { return c.cfg.Name }

// Serves reports whether the CA issues for the canonical name or address.
func (c *CA) Serves(name string) bool {
	if ip, err := netip.ParseAddr(name); err == nil {
		return certs.InternalAddress(ip)
	}
	match := func(pattern string) bool { return hostname.Match(pattern, name) }
	return slices.ContainsFunc(DefaultNames(), match) || slices.ContainsFunc(c.cfg.Names, match)
}

// RootPEM returns the root that clients must trust. It makes one if there is none yet.
func (c *CA) RootPEM(ctx context.Context) ([]byte, error) {
	s, err := c.current(ctx)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.root.Raw}), nil
}

// Issue implements certs.Issuer.
func (c *CA) Issue(ctx context.Context, r *certs.Request) (*certs.Issued, error) {
	for _, name := range r.Names {
		if !c.Serves(name) {
			return nil, &refusal{fmt.Sprintf("the internal CA does not serve %s", name), "add it to internal_ca.names, or give the site another CA"}
		}
	}
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, &refusal{fmt.Sprintf("the certificate request is not good: %v", err), "this is a fault of the program, report it"}
	}
	if !slices.Equal(namesOf(csr), slices.Sorted(slices.Values(r.Names))) {
		return nil, &refusal{fmt.Sprintf("the certificate request is for %v, not for %v", namesOf(csr), r.Names), "this is a fault of the program, report it"}
	}
	s, err := c.current(ctx)
	if err != nil {
		return nil, err
	}
	leaf, err := s.sign(csr, c.cfg.Lifetime)
	if err != nil {
		return nil, fmt.Errorf("sign with the internal CA: %w", err)
	}
	sum := sha256.Sum256(s.root.Raw)
	return &certs.Issued{Chain: [][]byte{leaf, s.cert.Raw}, Notes: map[string]string{"root_sha256": hex.EncodeToString(sum[:])}}, nil
}

func namesOf(csr *x509.CertificateRequest) []string {
	names := slices.Clone(csr.DNSNames)
	for _, have := range csr.IPAddresses {
		if ip, ok := netip.AddrFromSlice(have); ok {
			names = append(names, ip.Unmap().String())
		}
	}
	return slices.Sorted(slices.Values(names))
}

// signer is an intermediate, ready to sign. It is never modified.
type signer struct {
	root, cert *x509.Certificate
	key        *ecdsa.PrivateKey
}

// sign issues for the names and the key of the request, and for nothing else that it may ask for.
func (s *signer) sign(csr *x509.CertificateRequest, lifetime time.Duration) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{}, // names are in the SAN; a common name has said nothing since RFC 6125
		NotBefore:    now.Add(-backdate(lifetime)),
		NotAfter:     earliest(now.Add(lifetime), s.cert.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     csr.DNSNames, IPAddresses: csr.IPAddresses,
		BasicConstraintsValid: true,
	}
	return x509.CreateCertificate(rand.Reader, template, s.cert, csr.PublicKey, s.key)
}

// backdate allows for clients whose clocks are a little behind.
func backdate(lifetime time.Duration) time.Duration { return min(5*time.Minute, lifetime/10) }

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // RFC 5280 §4.1.2.2: positive, at most 20 octets
}

// refusal is a failure of the name: another attempt would end the same way.
type refusal struct{ what, advice string }

var _ certs.ExplainedFailure = (*refusal)(nil)

func (r *refusal) Error() string      { return r.what }
func (r *refusal) Scope() string      { return certs.ScopeName }
func (r *refusal) RetryAt() time.Time { return time.Time{} }
func (r *refusal) Problem() certs.Problem {
	return certs.Problem{Type: "refused", Detail: r.what, Advice: r.advice}
}
