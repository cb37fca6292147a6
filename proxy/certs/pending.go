package certs

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// pendingLife is how long a pending key is used again. CAs forget orders after a week at most.
const pendingLife = 7 * 24 * time.Hour

// pendingKey is what an order begins with: the key and the request, stored before the CA hears of them. After a crash the next process finds them
// and goes on with the same order, since issuers know orders by their CSR; and no certificate is ever issued for a key that is lost.
type pendingKey struct {
	Names   []string  `json:"names"`
	Key     []byte    `json:"key"` // PKCS #8 DER
	CSR     []byte    `json:"csr"` // DER
	Created time.Time `json:"created"`
	Maker   string    `json:"maker,omitempty"` // the process that made it, or has it now

	private crypto.Signer
	foreign bool // it was another process's until now, which may have begun an order with it
}

// String keeps the key out of logs.
func (p *pendingKey) String() string { return fmt.Sprintf("pending key for %v", p.Names) }

// newPendingKey makes a key and a request for the names.
func newPendingKey(names []string, kind keyType, now time.Time) (*pendingKey, error) {
	private, err := kind.generate()
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	request := &x509.CertificateRequest{}
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil {
			request.IPAddresses = append(request.IPAddresses, ip.AsSlice())
		} else {
			request.DNSNames = append(request.DNSNames, name)
		}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, request, private)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return &pendingKey{Names: names, Key: key, CSR: csr, Created: now, private: private}, nil
}

// pendingFor returns the stored key for the name if it is of the wanted kind, or stores a new one. The key of the certificate in use (may be nil) is not used
// again: then the object is a left-over of the order that made it. It is called under the name's lease.
func (m *Manager) pendingFor(ctx context.Context, name string, kind keyType, inUse *certificate) (*pendingKey, error) {
	store, object := m.store, pendingObject(name)
	data, version, err := store.Get(ctx, object)
	if _, damaged := errors.AsType[*storage.CorruptError](err); err != nil && !damaged && !errors.Is(err, storage.ErrNotExist) {
		return nil, fmt.Errorf("read the pending key of %s: %w", name, err)
	} else if damaged {
		version = "" // nothing of worth in it: no certificate was issued for it that we know of
		m.log.Warn("pending key is damaged; if an order began with it, that is lost and another one is placed", zap.String("object", object), zap.Error(err))
		if err := store.Delete(ctx, object); err != nil {
			return nil, fmt.Errorf("remove the damaged pending key of %s: %w", name, err)
		}
	}
	now := time.Now()
	if p := decodePending(data); err == nil && p.usable(name, kind, inUse, now) {
		if blocked, err := KeyBlocked(ctx, store, p.private.Public()); err != nil {
			return nil, err
		} else if !blocked {
			return p, m.adopt(ctx, p, object, version)
		}
	}
	p, err := newPendingKey([]string{subject(name)}, kind, now)
	if err != nil {
		return nil, err
	}
	if blocked, err := KeyBlocked(ctx, store, p.private.Public()); err != nil {
		return nil, err
	} else if blocked { // a machine that was cloned, or has no randomness, makes keys twice
		return nil, fmt.Errorf("the new key for %s is one that was compromised before: this machine's random numbers cannot be trusted", name)
	}
	p.Maker = m.members.self
	if data, err = json.Marshal(p); err != nil {
		return nil, fmt.Errorf("encode the pending key of %s: %w", name, err)
	}
	if _, err := store.PutIf(ctx, object, data, version); err != nil {
		return nil, fmt.Errorf("store the pending key of %s: %w", name, err)
	}
	return p, nil
}

// adopt notes that the key is ours now, if another process made it: should that come back, it is told that we may have begun an order with it.
func (m *Manager) adopt(ctx context.Context, p *pendingKey, object string, version storage.Version) error {
	if p.Maker == m.members.self {
		return nil
	}
	p.Maker, p.foreign = m.members.self, true
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode the pending key of %v: %w", p.Names, err)
	}
	if _, err := m.store.PutIf(ctx, object, data, version); err != nil {
		return fmt.Errorf("store the pending key of %v: %w", p.Names, err)
	}
	return nil
}

// decodePending returns nil for what is no pending key.
func decodePending(data []byte) *pendingKey {
	p := new(pendingKey)
	if json.Unmarshal(data, p) != nil {
		return nil
	}
	key, err := x509.ParsePKCS8PrivateKey(p.Key)
	if err != nil {
		return nil
	}
	csr, err := x509.ParseCertificateRequest(p.CSR)
	if err != nil {
		return nil
	}
	private, ok := key.(crypto.Signer)
	if !ok || !sameKey(private.Public(), csr.PublicKey) {
		return nil
	}
	p.private = private
	return p
}

func (p *pendingKey) usable(name string, kind keyType, inUse *certificate, now time.Time) bool {
	if p == nil || !slices.Equal(p.Names, []string{subject(name)}) || now.Sub(p.Created) > pendingLife || keyTypeOf(p.private.Public()) != kind {
		return false
	}
	return inUse == nil || !sameKey(p.private.Public(), inUse.tls.Leaf.PublicKey)
}

func sameKey(a, b crypto.PublicKey) bool {
	public, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(b)
}
