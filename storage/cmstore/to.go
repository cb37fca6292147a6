package cmstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"gatelodge/storage"
)

// Options are for ToCertmagic.
type Options struct {
	// IssuerKey returns certmagic's name of a CA by ours (storage.Bundle.CA). Nil means the same name. See the function IssuerKey.
	IssuerKey func(ca string) string

	// CA returns our name of a CA by certmagic's. Nil means the same name.
	CA func(issuerKey string) string

	// Directory returns the URL of a CA's directory by our name of it; empty if unknown. Nil means always unknown.
	Directory func(ca string) string
}

// To is a certmagic.Storage over a storage.Store.
//
// A certificate is the bundle certs/NAME of this store, the same that proxy/certs uses, shown as
// certificates/ISSUER/NAME/NAME.key, .crt and .json; everything else lies under cm/. There is one certificate for a name: where certmagic stores one from
// another issuer, it replaces the first.
//
// Storing .key and .crt only fills a draft; storing .json then writes all three as one object by compare-and-swap. So no reader ever sees a key with another's
// certificate, and a renewal that fails leaves what was there before. Until then, Load goes on to return what was there before. A .json stored alone changes what
// is known of the certificate. Deleting a part drops the draft, if there is one, else the certificate.
//
// An outage is never an absence: Exists says true when it does not know, so that nothing is ordered because of it. List and Stat of folders above a site read every
// bundle: certmagic uses them only for cleaning up, which is not for this storage.
type To struct {
	store storage.Store
	o     Options

	mu     sync.Mutex // guards what follows; never held during I/O
	drafts map[string]*draft
	seen   map[string]glance
	locks  map[string]storage.Lease
}

// draft are the parts of a certificate that were stored so far, by extension.
type draft struct {
	parts map[string][]byte
	since time.Time
}

// glance is a bundle that was just read: certmagic loads key, certificate and metadata one after the other, which should be those of one moment.
type glance struct {
	b  *storage.Bundle // nil if absent
	v  storage.Version
	at time.Time
}

const (
	glanceLife = 2 * time.Second
	maxDrafts  = 1024 // and glances
)

var (
	_ certmagic.Storage          = (*To)(nil)
	_ certmagic.TryLocker        = (*To)(nil)
	_ certmagic.LockLeaseRenewer = (*To)(nil)
)

// ToCertmagic shows a store to certmagic.
func ToCertmagic(store storage.Store, o Options) *To {
	same := func(name string) string { return name }
	if o.IssuerKey == nil {
		o.IssuerKey = same
	}
	if o.CA == nil {
		o.CA = same
	}
	if o.Directory == nil {
		o.Directory = func(string) string { return "" }
	}
	return &To{store: store, o: o, drafts: map[string]*draft{}, seen: map[string]glance{}, locks: map[string]storage.Lease{}}
}

// Load implements certmagic.Storage.
func (t *To) Load(ctx context.Context, key string) ([]byte, error) {
	p, ok := parsePart(key)
	if !ok {
		return t.loadOther(ctx, key)
	}
	b, _, err := t.bundle(ctx, p.site, p.ext == ".key")
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", key, err)
	}
	if b == nil || !t.issuedBy(b, p.issuer) {
		if part := t.drafted(p); part != nil {
			return part, nil
		}
		return t.loadOther(ctx, key)
	}
	return t.render(b, p.ext)
}

func (t *To) render(b *storage.Bundle, ext string) ([]byte, error) {
	private, chain, meta, err := Render(b, t.o.Directory(b.CA))
	if err != nil {
		return nil, err
	}
	return map[string][]byte{".key": private, ".crt": chain, ".json": meta}[ext], nil
}

func (t *To) issuedBy(b *storage.Bundle, issuer string) bool {
	return certmagic.StorageKeys.Safe(t.o.IssuerKey(b.CA)) == issuer
}

// bundle returns what the store has for a site; nil if it is absent. What was read a moment ago is good enough, unless it must be fresh.
func (t *To) bundle(ctx context.Context, site string, fresh bool) (*storage.Bundle, storage.Version, error) {
	object, ok := objectOf(site)
	if !ok {
		return nil, "", nil
	}
	if !fresh {
		t.mu.Lock()
		g, ok := t.seen[object]
		t.mu.Unlock()
		if ok && time.Since(g.at) < glanceLife {
			return g.b, g.v, nil
		}
	}
	data, version, err := t.store.Get(ctx, object)
	if err != nil && !errors.Is(err, storage.ErrNotExist) {
		return nil, "", err
	}
	var b *storage.Bundle
	if err == nil {
		if b, err = storage.DecodeBundle(object, data); err != nil {
			return nil, "", err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.seen) >= maxDrafts {
		clear(t.seen)
	}
	t.seen[object] = glance{b, version, time.Now()}
	return b, version, nil
}

// forget makes the next reads look anew.
func (t *To) forget(object string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.seen, object)
}

// Store implements certmagic.Storage.
func (t *To) Store(ctx context.Context, key string, value []byte) error {
	p, ok := parsePart(key)
	if !ok {
		return t.storeOther(ctx, key, value)
	}
	if _, ok := objectOf(p.site); !ok {
		return t.storeOther(ctx, key, value)
	}
	if p.ext != ".json" {
		return t.addDraft(p, value)
	}
	private, chain := t.drafted(p.with(".key")), t.drafted(p.with(".crt"))
	switch {
	case private == nil && chain == nil:
		return t.storeMeta(ctx, p, key, value)
	case private == nil || chain == nil:
		return fmt.Errorf("store %s: key and certificate must be stored before it, and only one of them was", key)
	}
	b, err := Parse(private, chain, value)
	if err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	if !p.isFor(b) {
		return fmt.Errorf("store %s: the certificate is for %v", key, b.Names)
	}
	if err := t.commit(ctx, p, b); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	t.dropDraft(p)
	return nil
}

// commit writes a bundle, under the fence of the lock that certmagic holds.
func (t *To) commit(ctx context.Context, p part, b *storage.Bundle) error {
	b.CA, b.Issued = t.o.CA(p.issuer), time.Now()
	object, _ := objectOf(p.site)
	defer t.forget(object)
	for range 10 {
		have, version, err := t.bundle(ctx, p.site, true)
		if err != nil {
			return err
		}
		if lease := t.held("issue_cert_" + p.name()); lease != nil {
			b.Fence = lease.Fence()
		} else if have != nil {
			b.Fence = have.Fence
		}
		if have != nil && have.Fence > b.Fence {
			return fmt.Errorf("somebody else stored a certificate under a later lease: %w", storage.ErrConflict)
		}
		data, err := b.Encode()
		if err != nil {
			return err
		}
		if _, err := t.store.PutIf(ctx, object, data, version); !errors.Is(err, storage.ErrConflict) {
			return err
		}
	}
	return storage.ErrConflict
}

// storeMeta changes what is known of a certificate.
func (t *To) storeMeta(ctx context.Context, p part, key string, value []byte) error {
	object, _ := objectOf(p.site)
	defer t.forget(object)
	for range 10 {
		have, version, err := t.bundle(ctx, p.site, true)
		if err != nil {
			return fmt.Errorf("store %s: %w", key, err)
		}
		if have == nil || !t.issuedBy(have, p.issuer) {
			return t.storeOther(ctx, key, value)
		}
		changed := *have
		if err := readMeta(&changed, value); err != nil {
			return fmt.Errorf("store %s: %w", key, err)
		}
		data, err := changed.Encode()
		if err != nil {
			return fmt.Errorf("store %s: %w", key, err)
		}
		if _, err := t.store.PutIf(ctx, object, data, version); !errors.Is(err, storage.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("store %s: %w", key, storage.ErrConflict)
}

// Delete implements certmagic.Storage.
func (t *To) Delete(ctx context.Context, key string) error {
	if p, ok := parsePart(key); ok {
		if t.dropPart(p) {
			return nil
		}
		if err := t.deleteBundle(ctx, p); err != nil {
			return fmt.Errorf("delete %s: %w", key, err)
		}
		return t.store.Delete(ctx, otherObject(key))
	}
	keys, err := t.keysBelow(ctx, key)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	for _, below := range keys {
		if p, ok := parsePart(below); ok {
			t.dropDraft(p)
			if err := t.deleteBundle(ctx, p); err != nil {
				return fmt.Errorf("delete %s: %w", below, err)
			}
		}
		if err := t.store.Delete(ctx, otherObject(below)); err != nil {
			return fmt.Errorf("delete %s: %w", below, err)
		}
	}
	return t.deleteOther(ctx, key)
}

// deleteBundle deletes the site's certificate if it is the issuer's.
func (t *To) deleteBundle(ctx context.Context, p part) error {
	b, _, err := t.bundle(ctx, p.site, true)
	if err != nil || b == nil || !t.issuedBy(b, p.issuer) {
		return err
	}
	object, _ := objectOf(p.site)
	defer t.forget(object)
	return t.store.Delete(ctx, object)
}

// Exists implements certmagic.Storage. True means too that the store does not say.
func (t *To) Exists(ctx context.Context, key string) bool {
	_, err := t.Stat(ctx, key)
	return !errors.Is(err, fs.ErrNotExist)
}

// Stat implements certmagic.Storage. The times of files other than certificates are not known.
func (t *To) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	info := certmagic.KeyInfo{Key: key, IsTerminal: true}
	data, err := t.Load(ctx, key)
	if err == nil {
		info.Size = int64(len(data))
		if p, ok := parsePart(key); ok {
			if b, _, err := t.bundle(ctx, p.site, false); err == nil && b != nil {
				info.Modified = b.Issued
			}
		}
		return info, nil
	}
	if _, part := parsePart(key); part || !errors.Is(err, fs.ErrNotExist) {
		return certmagic.KeyInfo{}, err
	}
	keys, err := t.keysBelow(ctx, key)
	if err == nil && len(keys) == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return certmagic.KeyInfo{}, fmt.Errorf("stat %s: %w", key, err)
	}
	info.IsTerminal = false
	return info, nil
}

// Lock implements certmagic.Storage.
func (t *To) Lock(ctx context.Context, name string) error {
	lease, err := t.store.Lease(ctx, lockOf(name))
	if err != nil {
		return fmt.Errorf("lock %s: %w", name, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.locks[name] = lease
	clear(t.seen) // who held it before may have done the work: the caller looks again now
	return nil
}

// tryFor is how long TryLock waits. A store that is a bucket needs three requests.
const tryFor = time.Second

// TryLock implements certmagic.TryLocker.
func (t *To) TryLock(ctx context.Context, name string) (bool, error) {
	short, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	if t.held(name) != nil {
		return false, nil
	}
	lease, err := t.store.Lease(short, lockOf(name))
	switch {
	case err == nil:
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return false, nil
	default:
		return false, fmt.Errorf("lock %s: %w", name, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.locks[name] = lease
	clear(t.seen)
	return true, nil
}

// Unlock implements certmagic.Storage.
func (t *To) Unlock(ctx context.Context, name string) error {
	t.mu.Lock()
	lease := t.locks[name]
	delete(t.locks, name)
	t.mu.Unlock()
	if lease == nil {
		return fmt.Errorf("unlock %s: it is not locked here", name)
	}
	return lease.Release(ctx)
}

// RenewLockLease implements certmagic.LockLeaseRenewer. Our leases keep themselves; it fails if this one was lost, so that the work ends.
func (t *To) RenewLockLease(_ context.Context, name string, _ time.Duration) error {
	lease := t.held(name)
	if lease == nil {
		return fmt.Errorf("renew lock %s: it is not locked here", name)
	}
	if cause := context.Cause(lease.Context()); errors.Is(cause, storage.ErrLeaseLost) {
		return fmt.Errorf("renew lock %s: %w", name, cause)
	}
	return nil
}

func (t *To) held(name string) storage.Lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.locks[name]
}

// lockOf returns the name of the lease: that of our own orders where it is the same work, so that both never order at once.
func lockOf(name string) string {
	if host, ok := cutIssue(name); ok {
		return "issue/" + host
	}
	sum := sha256.Sum256([]byte(name))
	return "cm/" + hex.EncodeToString(sum[:16])
}
