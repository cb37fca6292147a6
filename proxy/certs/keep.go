package certs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// keep stores what was issued, then serves it: a certificate that is in use is one that survives a crash. If storage fails just now it is served
// from memory, and kept aside until it could be stored; the pending key and the order stay where they are, so that nothing is lost if we end before.
func (a *attempt) keep(ctx context.Context, issued *issuance) (*certificate, error) {
	b := issued.bundle
	cert, err := newCertificate(a.o.name, b, a.r.RenewAt)
	if err != nil {
		return nil, err
	}
	theirs, err := a.save(ctx, b)
	if err != nil {
		a.log.Error("certificate could not be stored, it is served from memory until it can be", zap.String("ca", b.CA), zap.Error(err))
		a.trouble(a.o.name, &storageError{err})
		a.emitStorage(err)
		a.unsaved.put(a.o.name, issued)
		a.cache.put(cert)
		a.planner.retry(a.o.name, true)
		return cert, nil
	}
	if theirs != nil {
		cert = theirs
	}
	a.unsaved.forget(a.o.name)
	a.install(cert)
	a.queue.answer(a.o, cert)
	if a.prior != nil || a.failures.remembered(a.o.name) != nil {
		a.failures.clear(ctx, a.o.name)
	}
	issued.stored(ctx)
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := a.store.Delete(ctx, pendingObject(a.o.name)); err != nil {
		a.log.Debug("pending key could not be deleted, the next order replaces it", zap.Error(err))
	}
	return cert, nil
}

// save writes the bundle over the version that we saw. It returns another's certificate if that was written in the meantime under a later lease:
// then ours came too late.
func (a *attempt) save(ctx context.Context, b *storage.Bundle) (*certificate, error) {
	data, err := b.Encode()
	if err != nil {
		return nil, err
	}
	if context.Cause(ctx) == storage.ErrLeaseLost {
		return nil, storage.ErrLeaseLost
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout) // what is issued is stored, even if we are closing
	defer cancel()
	object, version := certObject(a.o.name), a.version
	for range 3 {
		_, err := a.store.PutIf(ctx, object, data, version)
		if !errors.Is(err, storage.ErrConflict) {
			return nil, err
		}
		there, v, err := loadStored(ctx, a.store, object, a.log)
		switch {
		case errors.Is(err, storage.ErrNotExist):
			version = ""
			continue
		case err != nil:
			return nil, err
		case slices.EqualFunc(there.Chain, b.Chain, bytes.Equal):
			return nil, nil // our own write, of which we had no answer
		case there.Fence > b.Fence:
			return newCertificate(a.o.name, there, a.r.RenewAt)
		}
		version = v
	}
	return nil, fmt.Errorf("write %s: %w", object, storage.ErrConflict)
}

// unsaved are issued certificates that storage has not taken yet. They are few: while storage does not write, nothing is ordered.
type unsaved struct {
	mu sync.Mutex // guards m
	m  map[string]*issuance
}

func (u *unsaved) put(name string, i *issuance) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.m[name] = i
}

func (u *unsaved) get(name string) *issuance {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.m[name]
}

// forget returns what it forgot, nil if there was nothing.
func (u *unsaved) forget(name string) *issuance {
	u.mu.Lock()
	defer u.mu.Unlock()
	i := u.m[name]
	delete(u.m, name)
	return i
}
