package certs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// Bounds of one order's run.
const (
	orderTimeout = 30 * time.Minute // issuers have shorter ones; this one only frees the place of one that hangs
	storeTimeout = 10 * time.Second // one call of storage outside handshakes
)

// errUnclaimed ends the order of a name that no site wants (any more).
var errUnclaimed = errors.New("no site wants a certificate for the name")

// errPaused is why a name is held back that did not fail itself.
const errPaused = "the CA pauses its registered domain"

// storageError marks failures of our own storage: they are held neither against the name nor against a CA.
type storageError struct{ err error }

func (e *storageError) Error() string { return "storage: " + e.err.Error() }
func (e *storageError) Unwrap() error { return e.err }

func isStorage(err error) bool {
	_, ok := errors.AsType[*storageError](err)
	return ok || err != nil && scopeOf(err) == ScopeStorage
}

// attempt is one run of an order.
type attempt struct {
	*Manager
	o   *order
	r   *rules
	t   target
	log *zap.Logger

	fence   uint64
	looked  bool            // stored is what storage has
	stored  *certificate    // what storage has, nil if absent; it may have ended
	version storage.Version // of stored
	prior   *failureRecord  // nil if the last attempt was none or a success
}

// obtain runs an order: it gets the certificate for the name, or says why not. It alone decides what happens to a name afterwards.
func (m *Manager) obtain(ctx context.Context, o *order) (*certificate, error) {
	r := m.rules.Load()
	t, ok := r.managed(o.name)
	if !ok {
		if m.planner.knows(o.name) {
			m.planner.rest(o.name)
		}
		return nil, errUnclaimed
	}
	life := ctx
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	a := &attempt{Manager: m, o: o, r: r, t: t, log: m.log.With(zap.String("name", o.name))}
	if t.brief {
		return a.issueBrief(ctx)
	}
	cert, err := a.underLease(ctx)
	if life.Err() == nil {
		a.planNext(err)
	}
	return cert, err
}

// underLease does what only one process may do for a name at a time.
func (a *attempt) underLease(ctx context.Context) (*certificate, error) {
	if err := a.heldBack(a.o.name); err != nil && a.o.kind != kindReplace {
		return nil, err
	}
	if e := a.spent(a.r, a.t); e != nil && a.o.kind != kindReplace {
		return nil, e
	}
	lease, err := a.store.Lease(ctx, issueLease(a.o.name))
	if err != nil {
		return nil, &storageError{fmt.Errorf("get the lease of %s: %w", a.o.name, err)}
	}
	defer release(ctx, lease, a.log)
	ctx, a.fence = lease.Context(), lease.Fence()
	if cert, err := a.lookAgain(ctx); cert != nil || err != nil {
		return cert, err
	}
	key, err := a.pendingFor(ctx, a.o.name, a.r.keyFor(a.o.name), a.stored)
	if err != nil {
		return nil, &storageError{err}
	}
	issued, err := a.issue(ctx, key)
	if err != nil {
		return nil, err
	}
	return a.keep(ctx, issued)
}

// release gives a lease up, even if ctx has ended. One that is kept by mistake would hold up everybody, so a failure is tried again.
func release(ctx context.Context, lease storage.Lease, log *zap.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	err := lease.Release(ctx)
	for try := 0; err != nil && try < 3 && sleep(ctx, time.Second); try++ {
		err = lease.Release(ctx)
	}
	if err != nil {
		log.Warn("lease could not be released, others wait until it ends", zap.Error(err))
	}
}

// lookAgain reads what whoever held the lease before may have left: a certificate, a failure. Nil and nil mean that there is work to do. An error
// of storage is never taken for an absence.
func (a *attempt) lookAgain(ctx context.Context) (*certificate, error) {
	var err error
	a.stored, a.version, err = a.fetch(ctx, a.o.name)
	if err != nil {
		return nil, &storageError{err}
	}
	a.looked = true
	now := time.Now()
	if a.fresh(a.stored, now) || a.stored.serves(now) && a.o.kind == kindNew {
		if ours := a.unsaved.forget(a.o.name); ours != nil { // another's came first
			ours.stored(ctx)
		}
		a.install(a.stored)
		return a.stored, nil
	}
	if a.version.Stale() { // the lease was had, so storage answers again: soon it says what it has
		return nil, &storageError{fmt.Errorf("read the certificate of %s: %w", a.o.name, storage.ErrStale)}
	}
	if issued := a.unsaved.get(a.o.name); issued != nil {
		return a.keep(ctx, issued)
	}
	if a.prior, err = a.failures.read(ctx, a.o.name); err != nil {
		return nil, &storageError{err}
	}
	if a.prior != nil && a.stored != nil && a.stored.issued.After(a.prior.Last) {
		a.prior = nil // it was followed by a success whose process ended before it could say so
	}
	if a.prior.backingOff(now) && (a.o.kind != kindReplace || now.Before(a.prior.RetryAt)) {
		return nil, a.prior.asError(a.o.name)
	}
	return nil, nil
}

// heldBack returns why the name is not tried now, as far as memory knows.
func (m *Manager) heldBack(name string) error {
	now := time.Now()
	if rec := m.failures.remembered(name); rec.backingOff(now) {
		return rec.asError(name)
	}
	if until, ok := m.domains.Get(registeredDomain(subject(name))); ok {
		return &BackoffError{Name: name, Next: until, Reason: errPaused}
	}
	return nil
}

// install takes a good certificate into use.
func (m *Manager) install(cert *certificate) {
	m.take(cert)
	m.absent.Forget(cert.name)
	renewAt := cert.renewAt
	if m.rules.Load().Spread && cert.window == (Window{}) {
		renewAt = m.planner.levelOnce(cert, renewAt)
	}
	if news, first := m.planner.note(cert, renewAt); news {
		m.index.put(cert, m.renewAt(cert), first)
	}
	m.planner.watch(cert.name, cert.leaf(), cert.firstCheck(time.Now()))
	m.planner.plan(cert.name, m.renewAt(cert))
}

// take puts the certificate into memory, unless it must not be served: who takes it back looks at memory after having said so.
func (m *Manager) take(cert *certificate) {
	m.cache.put(cert)
	if m.revocations.refuses(cert) {
		m.cache.drop(cert.name)
	}
}

// complainEvery is how often the log hears that a certificate is not obtained for a reason that is not the name's, however many visitors come for it.
const complainEvery = time.Minute

func (a *attempt) complain(err error) {
	level := zap.WarnLevel
	if _, told := a.logged.Get(a.o.name); told {
		level = zap.DebugLevel
	} else {
		a.logged.Put(a.o.name, struct{}{}, time.Now().Add(complainEvery))
	}
	a.log.Log(level, "certificate not obtained, trying again soon", zap.Error(err))
}

// planNext says when the name is looked at again after an attempt that failed.
func (a *attempt) planNext(err error) {
	if err == nil && a.unsaved.get(a.o.name) == nil {
		a.troubles.Forget(a.o.name)
		a.withheld.Forget(a.o.name)
	}
	if err == nil || errors.Is(err, errParked) {
		return // done, or it goes on by itself
	}
	backoff, held := errors.AsType[*BackoffError](err)
	if e := asBudget(err); e != nil {
		if e.Budget == budgetOrders {
			return // it stays in the queue
		}
		apart := scale(max(e.Limit.Slot(), time.Minute), fraction(a.o.name)) // room for one is no room for all
		next := e.Next.Add(apart)
		a.withheld.Put(a.o.name, e, next)
		a.planner.plan(a.o.name, next) // by itself, whether anybody comes again or not
		return
	}
	if !held {
		a.trouble(a.o.name, err)
		if isStorage(err) {
			a.emitStorage(err)
		}
		a.complain(err)
		a.planner.retry(a.o.name, a.t.listed || a.stored != nil)
		return
	}
	switch {
	case a.t.listed || a.planner.knows(a.o.name) && (a.stored != nil || !a.looked):
		a.planner.plan(a.o.name, backoff.Next)
	case a.looked && a.planner.knows(a.o.name): // it has no certificate, so that only a visitor brings it back
		a.forget(a.o.name)
	}
}
