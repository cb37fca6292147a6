package certs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// sweepEnded removes what storage has of a name whose certificate ended long ago and that nobody visits or lists: certificate, pending key, failures, and last the
// entry of the index, by which it was found. So storage does not grow with names that have left, and nothing is listed for it: each name has its time in the plan.
func (m *Manager) sweepEnded(ctx context.Context, name string) {
	gone, err := m.removeEnded(ctx, name)
	switch {
	case err != nil && ctx.Err() != nil: // we are closing
	case err != nil:
		m.log.Warn("certificate that ended long ago could not be removed, trying again in a day", zap.String("name", name), zap.Error(err))
		m.planner.rest(name)
	case gone:
		m.forget(name)
	default:
		m.planner.plan(name, time.Now().Add(retryMax)) // another process has renewed it
	}
}

// endedLongAgo reports whether the certificate that we last heard of for the name has ended so long ago that it is of no use to anybody.
func (m *Manager) endedLongAgo(name string) bool {
	it, _ := m.planner.get(name)
	return !it.ends.IsZero() && time.Now().After(it.ends.Add(forgetAfter))
}

// removeEnded removes the objects under the name's lease. It reports false if the certificate is not what we thought, and stays.
func (m *Manager) removeEnded(ctx context.Context, name string) (gone bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	lease, err := m.store.Lease(ctx, issueLease(name))
	if err != nil {
		return false, fmt.Errorf("get the lease of %s: %w", name, err)
	}
	defer release(ctx, lease, m.log.With(zap.String("name", name)))
	ctx = lease.Context()
	object := certObject(name)
	b, version, err := loadStored(ctx, m.store, object, m.log)
	if err != nil && !errors.Is(err, storage.ErrNotExist) {
		return false, err
	}
	if err == nil {
		pair, err := b.TLSCertificate()
		if err != nil || time.Now().Before(pair.Leaf.NotAfter.Add(forgetAfter)) {
			return false, err
		}
		if err := m.remove(ctx, object, version); errors.Is(err, storage.ErrConflict) {
			return false, nil
		} else if err != nil {
			return false, fmt.Errorf("remove %s: %w", object, err)
		}
		m.log.Info("certificate that ended long ago removed", zap.String("name", name), zap.Time("not_after", pair.Leaf.NotAfter))
	}
	return true, errors.Join(m.store.Delete(ctx, pendingObject(name)), m.store.Delete(ctx, failureObject(name)))
}
