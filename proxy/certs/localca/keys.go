package localca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// Where the keys lie, and the lease of whoever makes them.
const (
	rootObject         = "localca/root"
	intermediateObject = "localca/intermediate"
	makeLease          = "localca"
)

const (
	rootLife         = 10 * 365 * 24 * time.Hour
	intermediateLife = 120 * 24 * time.Hour

	// maxLifetime lets a certificate end before the intermediate that signs it: see fit.
	maxLifetime = 30 * 24 * time.Hour

	releaseTimeout = 10 * time.Second
)

// authority is a certificate with its key, as stored: a storage.Bundle with a chain of one.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// fit reports whether the authority can sign for a while: for the longest life of what it signs, and a month to spare.
func (a *authority) fit(life time.Duration, now time.Time) bool {
	return a != nil && now.Add(life+30*24*time.Hour).Before(a.cert.NotAfter)
}

// current returns the intermediate to sign with. A new one replaces it long before it ends.
func (c *CA) current(ctx context.Context) (*signer, error) {
	c.mu.Lock()
	s := c.signer
	c.mu.Unlock()
	if s != nil && (&authority{s.cert, s.key}).fit(c.cfg.Lifetime, time.Now()) {
		return s, nil
	}
	s, err := c.read(ctx)
	if err == nil && s == nil {
		s, err = c.create(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("keys of the internal CA: %w", err)
	}
	c.mu.Lock()
	c.signer = s
	c.mu.Unlock()
	return s, nil
}

// read returns the stored keys; nil if there are none that fit.
func (c *CA) read(ctx context.Context) (*signer, error) {
	root, _, err := c.load(ctx, rootObject)
	if err != nil || !root.fit(intermediateLife, time.Now()) {
		return nil, err
	}
	inter, _, err := c.load(ctx, intermediateObject)
	if err != nil || !inter.fit(c.cfg.Lifetime, time.Now()) || inter.cert.CheckSignatureFrom(root.cert) != nil {
		return nil, err
	}
	return &signer{root.cert, inter.cert, inter.key}, nil
}

// create makes what is missing. One process does so at a time.
func (c *CA) create(ctx context.Context) (_ *signer, err error) {
	lease, err := c.cfg.Store.Lease(ctx, makeLease)
	if err != nil {
		return nil, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		if err := lease.Release(ctx); err != nil {
			c.cfg.Logger.Warn("lease could not be released", zap.Error(err))
		}
	}()
	ctx = lease.Context()
	if s, err := c.read(ctx); s != nil || err != nil {
		return s, err // somebody else was faster
	}
	root, version, err := c.load(ctx, rootObject)
	if err != nil {
		return nil, err
	}
	if !root.fit(intermediateLife, time.Now()) {
		if root, err = newAuthority("gatelodge internal CA root", rootLife, nil); err != nil {
			return nil, err
		}
		if err := c.save(ctx, rootObject, root, lease.Fence(), version); err != nil {
			return nil, err
		}
		c.cfg.Logger.Warn("new root of the internal CA, clients must be told to trust it", zap.Time("not_after", root.cert.NotAfter))
	}
	_, version, err = c.load(ctx, intermediateObject)
	if err != nil {
		return nil, err
	}
	inter, err := newAuthority("gatelodge internal CA", intermediateLife, root)
	if err != nil {
		return nil, err
	}
	if err := c.save(ctx, intermediateObject, inter, lease.Fence(), version); err != nil {
		return nil, err
	}
	c.cfg.Logger.Info("new intermediate of the internal CA", zap.Time("not_after", inter.cert.NotAfter))
	return &signer{root.cert, inter.cert, inter.key}, nil
}

// load reads an authority; nil if there is none.
func (c *CA) load(ctx context.Context, object string) (*authority, storage.Version, error) {
	b, version, err := storage.LoadBundle(ctx, c.cfg.Store, object, c.cfg.Logger)
	if errors.Is(err, storage.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	pair, err := b.TLSCertificate()
	if err != nil {
		return nil, "", err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, "", fmt.Errorf("%s is not what this program stores there: move it away", object)
	}
	return &authority{pair.Leaf, key}, version, nil
}

func (c *CA) save(ctx context.Context, object string, a *authority, fence uint64, v storage.Version) error {
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return err
	}
	b := &storage.Bundle{
		Names: []string{a.cert.Subject.CommonName}, CA: c.cfg.Name, Chain: [][]byte{a.cert.Raw}, Key: key, Issued: time.Now(), Fence: fence,
	}
	data, err := b.Encode()
	if err != nil {
		return err
	}
	_, err = c.cfg.Store.PutIf(ctx, object, data, v)
	return err
}

// newAuthority makes a CA certificate, signed by the parent or, if that is nil, by itself.
func newAuthority(name string, life time.Duration, parent *authority) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name + " " + serial.Text(16)[:8]}, // roots of two installations must not share a name
		NotBefore:    now.Add(-backdate(life)),
		NotAfter:     now.Add(life),
		KeyUsage:     x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:         true, BasicConstraintsValid: true,
	}
	signer := &authority{template, key}
	if parent != nil {
		template.MaxPathLenZero = true // it signs no further CA
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		signer = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, &key.PublicKey, signer.key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert, key}, err
}
