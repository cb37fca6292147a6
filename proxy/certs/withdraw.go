package certs

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

const (
	revokeLease   = 10 * time.Second // to wait for a process that works on the same revocation
	revokeTimeout = time.Minute      // one attempt at the CA
)

// errElsewhere ends an attempt because another process works on the revocation.
var errElsewhere = errors.New("another process is at it")

// attemptRevocation takes the steps that are left, unless another process is at it. It reports whether none is left, which it may with an error too: then
// the CA cannot be told.
func (m *Manager) attemptRevocation(ctx context.Context, leaf leafSum) (done bool, err error) {
	r := (*m.revocations.known.Load())[leaf]
	if r == nil || !r.Done.IsZero() {
		return true, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	impatience := time.AfterFunc(revokeLease, func() { cancel(errElsewhere) })
	lease, err := m.store.Lease(ctx, revokeLeaseName(r.Name))
	impatience.Stop()
	if err != nil {
		if context.Cause(ctx) == errElsewhere {
			return false, errElsewhere
		}
		return false, fmt.Errorf("get the lease of the revocation: %w", err)
	}
	defer release(ctx, lease, m.log.With(zap.String("name", r.Name)))
	ctx = lease.Context()
	if err := m.revocations.read(ctx); err != nil { // whoever held the lease before may have got further
		return false, err
	}
	if r = (*m.revocations.known.Load())[leaf]; r == nil || !r.Done.IsZero() {
		return true, nil
	}
	w := &withdrawal{Manager: m, r: *r, log: m.log.With(zap.String("name", r.Name), zap.String("ca", r.CA), zap.String("serial", r.Serial))}
	return w.takeSteps(ctx)
}

// withdrawal is one attempt to get through with a revocation. The order of its steps is that of facts/acme-v2.md 5.11.
type withdrawal struct {
	*Manager
	r   revocation
	log *zap.Logger
	old *storage.Bundle // chain and key; nil if both were lost
}

func (w *withdrawal) takeSteps(ctx context.Context) (done bool, err error) {
	if w.r.Reason == ReasonKeyCompromise {
		if err := w.block(ctx, &w.r, time.Time{}); err != nil {
			return false, err
		}
	}
	if err := w.putAside(ctx); err != nil {
		return false, err
	}
	if w.r.Gone.IsZero() {
		if err := w.takeAway(ctx); err != nil {
			return false, err
		}
		if err := w.note(ctx, func(r *revocation) { r.Gone = time.Now().UTC().Truncate(time.Second) }); err != nil {
			return false, err
		}
	}
	w.obey()
	if w.r.Compromised && !sleep(ctx, time.Until(w.r.Gone.Add(listGrace))) { // others still serve it
		return false, context.Cause(ctx)
	}
	refused := w.revokeAtCA(ctx)
	if refused != nil && !errors.Is(refused, ErrCannotRevoke) {
		return false, refused
	}
	if err := w.wipe(ctx, refused == nil); err != nil {
		return false, err
	}
	err = w.note(ctx, func(r *revocation) {
		r.Done, r.Certificate = time.Now().UTC().Truncate(time.Second), nil
		if refused != nil {
			r.Unrevoked = refused.Error()
		}
	})
	if err != nil {
		return false, err
	}
	w.log.Info("certificate revoked", zap.Int("reason", w.r.Reason), zap.Bool("ca_told", refused == nil), zap.Bool("key_blocked", w.r.Reason == ReasonKeyCompromise))
	return true, refused
}

// note writes progress into the list.
func (w *withdrawal) note(ctx context.Context, f func(*revocation)) error {
	f(&w.r)
	return w.revocations.update(ctx, w.r.leaf, f)
}

// putAside keeps chain and key apart from what is served, until the CA is told: the certificate's key can revoke it when our account cannot.
func (w *withdrawal) putAside(ctx context.Context) error {
	b, _, err := loadStored(ctx, w.store, revokingObject(w.r.leaf), w.Manager.log)
	if err == nil || !errors.Is(err, storage.ErrNotExist) {
		w.old = b
		return err
	}
	b, _, err = loadStored(ctx, w.store, certObject(w.r.Name), w.Manager.log)
	if errors.Is(err, storage.ErrNotExist) || err == nil && !w.isOld(b) {
		return nil // it was replaced in this moment, or this is the second time; the certificate is in the list
	}
	if err != nil {
		return err
	}
	data, err := b.Encode()
	if err != nil {
		return err
	}
	if _, err = w.store.Put(ctx, revokingObject(w.r.leaf), data); err != nil {
		return fmt.Errorf("keep the certificate for its revocation: %w", err)
	}
	w.old = b
	return nil
}

func (w *withdrawal) isOld(b *storage.Bundle) bool { return bytes.Equal(b.Chain[0], w.r.Certificate) }

// takeAway sees to it that no object has the certificate that is served from. That of a compromised key is replaced if a site claims the name.
func (w *withdrawal) takeAway(ctx context.Context) error {
	if _, claimed := w.rules.Load().managed(w.r.Name); claimed && w.r.Compromised {
		return w.replace(ctx)
	}
	object := certObject(w.r.Name)
	for range 3 {
		b, version, err := loadStored(ctx, w.store, object, w.Manager.log)
		if errors.Is(err, storage.ErrNotExist) || err == nil && !w.isOld(b) {
			break
		}
		if err != nil {
			return err
		}
		if err = w.remove(ctx, object, version); err == nil {
			break
		} else if !errors.Is(err, storage.ErrConflict) {
			return fmt.Errorf("remove %s: %w", object, err)
		}
	}
	if _, claimed := w.rules.Load().managed(w.r.Name); claimed {
		w.planner.plan(w.r.Name, time.Now())
	} else {
		w.forget(w.r.Name)
	}
	return nil
}

// remove deletes the object at that version, where the store can.
func (m *Manager) remove(ctx context.Context, object string, v storage.Version) error {
	if s, ok := m.store.(storage.Salvager); ok {
		return s.DeleteIf(ctx, object, v)
	}
	return m.store.Delete(ctx, object)
}

// replace gets a certificate with another key stored. The order goes before all others and ignores our own back-off, but no CA's Retry-After.
func (w *withdrawal) replace(ctx context.Context) error {
	for range 3 {
		b, _, err := loadStored(ctx, w.store, certObject(w.r.Name), w.Manager.log)
		if err == nil && !w.isOld(b) {
			return nil
		}
		if err != nil && !errors.Is(err, storage.ErrNotExist) {
			return err
		}
		round, err := w.queue.want(wish{name: w.r.Name, kind: kindReplace})
		if err != nil {
			return fmt.Errorf("replace the certificate: %w", err)
		}
		if _, err := w.queue.wait(ctx, round); err != nil {
			return fmt.Errorf("replace the certificate: %w", err)
		}
	}
	return errors.New("replace the certificate: it could not be stored yet")
}

// revokeAtCA tells the CA: in the name of our account, else by the certificate's key. For a compromised key the order is the other way round: a CA blocks a key, for
// everybody, when whoever asks has shown to hold it.
func (w *withdrawal) revokeAtCA(ctx context.Context) error {
	if time.Now().After(w.r.NotAfter) {
		return nil // it has ended
	}
	issuer := w.rules.Load().issuer(w.r.CA)
	if issuer == nil {
		return fmt.Errorf("CA %q is configured no more: add it again, so that it can be told", w.r.CA)
	}
	revoker, ok := issuer.(Revoker)
	if !ok {
		return fmt.Errorf("%w: it is of CA %q", ErrCannotRevoke, w.r.CA)
	}
	chain := [][]byte{w.r.Certificate}
	var key crypto.Signer
	if w.old != nil {
		chain = w.old.Chain
		if pair, err := w.old.TLSCertificate(); err == nil {
			key, _ = pair.PrivateKey.(crypto.Signer)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	if key == nil {
		return revoker.Revoke(ctx, chain, nil, w.r.Reason)
	}
	first, second := crypto.Signer(nil), key
	if w.r.Reason == ReasonKeyCompromise {
		first, second = key, nil
	}
	err := revoker.Revoke(ctx, chain, first, w.r.Reason)
	if err == nil || !retryOf(err).IsZero() {
		return err
	}
	w.log.Info("CA does not revoke, trying the other way", zap.Bool("by_account", first == nil), zap.Error(err))
	if other := revoker.Revoke(ctx, chain, second, w.r.Reason); other != nil {
		return errors.Join(other, err) // the first has no Retry-After, the second may
	}
	return nil
}
