package certs

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A LackFailure is a Failure that may say: this CA lacks what was asked for (wildcards over ACME v1, a kind of identifier), as was known before anything was
// sent. The next CA is asked at once, and nothing is held against the name or the CA; only if all of them lack it, the last one has failed, in its scope.
type LackFailure interface {
	Failure
	Elsewhere() bool
}

// A KeyFailure is a Failure that may say: the CA refuses the certificate's key or request. It is asked once more at once, with another key.
type KeyFailure interface {
	Failure
	RefusesKey() bool
}

func lacks(err error) bool {
	f, ok := errors.AsType[LackFailure](err)
	return ok && f.Elsewhere()
}

func refusesKey(err error) bool {
	f, ok := errors.AsType[KeyFailure](err)
	return ok && f.RefusesKey()
}

// anotherKey replaces the pending key by a new one: no CA will be asked with the old one again.
func (a *attempt) anotherKey(ctx context.Context) (*pendingKey, error) {
	if err := a.store.Delete(ctx, pendingObject(a.o.name)); err != nil {
		return nil, &storageError{fmt.Errorf("remove the refused key of %s: %w", a.o.name, err)}
	}
	key, err := a.pendingFor(ctx, a.o.name, a.r.keyFor(a.o.name), a.stored)
	if err != nil {
		return nil, &storageError{err}
	}
	return key, nil
}

// lacking leaves the CA out until the order is queued again, if another one is left, and reports whether one is. Unlike one that was asked, it does not count as the
// first CA that a renewal waits for.
func (q *queue) lacking(o *order, ca string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(o.cas), func(other string) bool { return other == ca })
	if len(rest) == 0 {
		return false
	}
	o.cas = rest
	return true
}
