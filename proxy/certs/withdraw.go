package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

const (
	listEvery   = time.Minute      // a process that serves reads the list so often
	listGrace   = 90 * time.Second // until every one has seen it
	revokeLease = 10 * time.Second // to wait for a process that works on the same revocation
	revokeFirst = 5 * time.Minute  // between attempts, doubled each time
	revokeLast  = time.Hour

	revokeTimeout = time.Minute // one attempt at the CA
)

// errElsewhere ends an attempt because another process works on the revocation.
var errElsewhere = errors.New("another process is at it")

// revokingObject holds chain and key of a certificate until it is revoked.
func revokingObject(leaf leafSum) string { return "revoking/" + leaf.String() }

// resumeRevocations reads the list once after the start, and goes on with what others began.
func (m *Manager) resumeRevocations(ctx context.Context) {
	for m.readRevocations(ctx) != nil {
		if !sleep(ctx, listEvery) {
			return
		}
	}
}

func (m *Manager) readRevocations(ctx context.Context) error {
	err := m.revocations.read(ctx)
	if err != nil && ctx.Err() == nil {
		m.log.Warn("the list of revocations cannot be read, trying again in a minute", zap.Error(err))
	}
	m.obey()
	for leaf, r := range *m.revocations.known.Load() {
		if r.Done.IsZero() {
			m.carryOut(leaf)
		}
	}
	return err
}

// heedRevocations is called by each handshake with the time. While handshakes come, the list is read once a minute, and none of them waits. The first one
// after a pause waits for it, so that an idle process, which reads nothing, serves nothing that was revoked meanwhile; if storage does not answer, not for long.
func (m *Manager) heedRevocations(hello *tls.ClientHelloInfo, now time.Time) {
	age := now.Sub(time.Unix(0, m.revocations.readAt.Load()))
	if age < listEvery {
		return
	}
	read := m.rereadRevocations()
	if age < 2*listEvery {
		return
	}
	ctx := hello.Context()
	if ctx == nil { // a hello made by hand
		if ctx = m.life(); ctx == nil {
			return
		}
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	select {
	case <-read:
	case <-ctx.Done():
	}
}

// rereadRevocations reads the list in the background. The channel is closed when that, or what somebody else began, has ended.
func (m *Manager) rereadRevocations() <-chan struct{} {
	l := m.revocations
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reading != nil {
		return l.reading
	}
	read := make(chan struct{})
	if !m.goWork(func(ctx context.Context) {
		_ = m.readRevocations(ctx) // it told the log
		l.mu.Lock()
		defer l.mu.Unlock()
		l.readAt.Store(time.Now().UnixNano())
		l.reading = nil
		close(read)
	}) {
		close(read)
		return read
	}
	l.reading = read
	return read
}

// obey drops from memory what must not be served. What was put in its place is loaded by a look at the name.
func (m *Manager) obey() {
	for leaf, r := range *m.revocations.known.Load() {
		if cert := m.cache.cert(r.Name); r.serves() || cert == nil || cert.sum != leaf {
			continue
		}
		m.cache.drop(r.Name)
		if !r.Gone.IsZero() {
			m.planner.plan(r.Name, time.Now())
		}
	}
}

// carryOut works on the revocation in the background, until it is done. It returns nil if the Manager does not run.
func (m *Manager) carryOut(leaf leafSum) *revoker {
	w, fresh := m.revocations.worker(leaf)
	if !fresh {
		return w
	}
	run := func(ctx context.Context) {
		for pause := revokeFirst; ; pause = min(2*pause, revokeLast) {
			done, err := m.attemptRevocation(ctx, leaf)
			if ctx.Err() != nil {
				done = true // the next process goes on
			}
			if err != nil && ctx.Err() == nil && !errors.Is(err, errElsewhere) {
				m.log.Warn("revocation is not done yet", zap.Stringer("certificate", leaf), zap.Bool("given_up", done), zap.Error(err))
			}
			m.revocations.ended(leaf, w, err, done)
			if done || !w.rest(ctx, pause, capped(time.Now(), retryOf(err))) {
				return
			}
		}
	}
	if !m.goWork(run) {
		m.revocations.ended(leaf, w, errClosed, true)
		return nil
	}
	return w
}

// rest waits until the next attempt: for the pause, or until somebody asks for one, but not before the CA's own word. It reports whether ctx still lives.
func (w *revoker) rest(ctx context.Context, pause time.Duration, retryAt time.Time) bool {
	if !sleep(ctx, max(0, time.Until(retryAt))) {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-w.again:
	case <-timer.C:
	}
	return true
}

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
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
		defer cancel()
		if err := lease.Release(ctx); err != nil {
			m.log.Warn("lease could not be released, others wait until it ends", zap.Error(err))
		}
	}()
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
	b, _, err := storage.LoadBundle(ctx, w.store, revokingObject(w.r.leaf), w.Manager.log)
	if err == nil || !errors.Is(err, storage.ErrNotExist) {
		w.old = b
		return err
	}
	b, _, err = storage.LoadBundle(ctx, w.store, certObject(w.r.Name), w.Manager.log)
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
		b, version, err := storage.LoadBundle(ctx, w.store, object, w.Manager.log)
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
func (w *withdrawal) remove(ctx context.Context, object string, v storage.Version) error {
	if s, ok := w.store.(storage.Salvager); ok {
		return s.DeleteIf(ctx, object, v)
	}
	return w.store.Delete(ctx, object)
}

// replace gets a certificate with another key stored. The order goes before all others and ignores our own back-off, but no CA's Retry-After.
func (w *withdrawal) replace(ctx context.Context) error {
	for range 3 {
		b, _, err := storage.LoadBundle(ctx, w.store, certObject(w.r.Name), w.Manager.log)
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

// revokeAtCA tells the CA: in the name of our account, else by the certificate's key.
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
	err := revoker.Revoke(ctx, chain, nil, w.r.Reason)
	if err != nil && key != nil && retryOf(err).IsZero() {
		w.log.Info("CA does not revoke for the account, trying the key of the certificate", zap.Error(err))
		if byKey := revoker.Revoke(ctx, chain, key, w.r.Reason); byKey == nil {
			return nil
		}
	}
	return err
}

// wipe removes what is stored of the key. If others know it, that is every place where it may be; the record that it is blocked stays.
func (w *withdrawal) wipe(ctx context.Context, revoked bool) error {
	if w.r.Reason == ReasonKeyCompromise {
		pending := pendingObject(w.r.Name)
		for _, object := range []string{pending, "quarantine/" + pending, "quarantine/" + certObject(w.r.Name)} {
			if err := w.wipeObject(ctx, object); err != nil {
				return err
			}
		}
	}
	if err := w.store.Delete(ctx, revokingObject(w.r.leaf)); err != nil {
		return fmt.Errorf("remove the key: %w", err)
	}
	if w.r.Reason != ReasonKeyCompromise || !revoked {
		return nil
	}
	return w.block(ctx, &w.r, time.Now().UTC().Truncate(time.Second))
}

// wipeObject removes the object if it has the key in it, or may have: if it is damaged.
func (w *withdrawal) wipeObject(ctx context.Context, object string) error {
	data, _, err := w.store.Get(ctx, object)
	if errors.Is(err, storage.ErrNotExist) || w.old == nil {
		return nil
	}
	damaged := false
	if err != nil {
		if _, damaged = errors.AsType[*storage.CorruptError](err); !damaged {
			return fmt.Errorf("look for the key in %s: %w", object, err)
		}
	}
	if !damaged && !holdsKey(data, w.old.Key) {
		return nil
	}
	if err := w.store.Delete(ctx, object); err != nil {
		return fmt.Errorf("remove the key: %w", err)
	}
	return nil
}

// holdsKey reports whether the key is in the bytes, as PEM or JSON have it.
func holdsKey(data, key []byte) bool {
	return bytes.Contains(data, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})) ||
		bytes.Contains(data, []byte(base64.StdEncoding.EncodeToString(key)))
}
