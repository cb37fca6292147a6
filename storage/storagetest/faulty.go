package storagetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"gatelodge/storage"
)

// Op is an operation of a store or of a lease that it gave.
type Op string

// The operations. Salvage and DeleteIf are those of storage.Salvager.
const (
	Get      Op = "Get"
	Put      Op = "Put"
	PutIf    Op = "PutIf"
	Delete   Op = "Delete"
	List     Op = "List"
	Lease    Op = "Lease"
	Release  Op = "Release"
	Salvage  Op = "Salvage"
	DeleteIf Op = "DeleteIf"
)

// ErrInjected is what a Fault without an Err of its own answers.
var ErrInjected = errors.New("storagetest: injected failure")

// Fault is a row of the table by which a Faulty fails.
type Fault struct {
	// Op and Prefix choose the calls it is for; empty means any operation, any name.
	Op     Op
	Prefix string

	// Skip lets that many of these calls pass first; Times strikes that many then. Zero Times strikes always.
	Skip, Times int

	// Latency is waited before the call, unless its context ends first.
	Latency time.Duration

	// Hang waits until the call's context ends.
	Hang bool

	// Err is returned, without doing anything. Nil means ErrInjected, unless there is Latency, Hang or Then, which are then all that happens.
	Err error

	// Applied does the operation and then returns Err all the same: failed, but persisted.
	Applied bool

	// Then is called when the fault strikes, before anything else: here a test stops what it has under test. It must not call the Faulty.
	Then func()
}

// Call is one call that was made.
type Call struct {
	Op   Op
	Name string
}

// Faulty is a store that fails as a table says: the first row that is for a call decides. It counts calls too. It is safe for concurrent use and
// works in synctest bubbles.
type Faulty struct {
	inner storage.Store

	mu     sync.Mutex // guards what follows; never held while waiting
	faults []*row
	calls  []Call
	leases map[*faultyLease]struct{}
}

type row struct {
	Fault
	seen int // calls that it is for
}

var (
	_ storage.Store    = (*Faulty)(nil)
	_ storage.Salvager = (*Faulty)(nil)
)

// NewFaulty wraps a store.
func NewFaulty(inner storage.Store, faults ...Fault) *Faulty {
	f := &Faulty{inner: inner, leases: make(map[*faultyLease]struct{})}
	f.Set(faults...)
	return f
}

// Set replaces the table. Calls that hang or wait by the old one go on doing so.
func (f *Faulty) Set(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
	for _, fault := range faults {
		f.faults = append(f.faults, &row{Fault: fault})
	}
}

// Count returns how many calls of the operation (empty: any) were made for names with the prefix.
func (f *Faulty) Count(op Op, prefix string) (n int) {
	for _, c := range f.Calls() {
		if (op == "" || c.Op == op) && strings.HasPrefix(c.Name, prefix) {
			n++
		}
	}
	return n
}

// Calls returns all calls so far, in order, those that failed too.
func (f *Faulty) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Call(nil), f.calls...)
}

// LoseLeases ends, with cause storage.ErrLeaseLost, the contexts of all leases now held whose names have the prefix, and lets others have them.
func (f *Faulty) LoseLeases(prefix string) {
	f.mu.Lock()
	var lost []*faultyLease
	for l := range f.leases {
		if strings.HasPrefix(l.name, prefix) {
			lost = append(lost, l)
			delete(f.leases, l)
		}
	}
	f.mu.Unlock()
	for _, l := range lost {
		l.cancel(storage.ErrLeaseLost)
		l.Lease.Release(context.WithoutCancel(l.ctx))
	}
}

// strike records the call and returns the fault that it meets, if any.
func (f *Faulty) strike(op Op, name string) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, Call{op, name})
	for _, r := range f.faults {
		if r.Op != "" && r.Op != op || !strings.HasPrefix(name, r.Prefix) {
			continue
		}
		r.seen++
		if r.seen <= r.Skip || r.Times > 0 && r.seen > r.Skip+r.Times {
			continue
		}
		fault := r.Fault
		return &fault
	}
	return nil
}

// do makes a call with whatever fault it meets.
func (f *Faulty) do(ctx context.Context, op Op, name string, call func() error) error {
	fault := f.strike(op, name)
	if fault == nil {
		return call()
	}
	if fault.Then != nil {
		fault.Then()
	}
	if fault.Latency > 0 {
		t := time.NewTimer(fault.Latency)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fault.Hang {
		<-ctx.Done()
		return ctx.Err()
	}
	err := fault.Err
	if err == nil && (fault.Applied || fault.Latency == 0 && fault.Then == nil) {
		err = ErrInjected
	}
	if err == nil || fault.Applied {
		if failed := call(); failed != nil {
			return failed
		}
	}
	return err
}

// Get implements storage.Store.
func (f *Faulty) Get(ctx context.Context, name string) (data []byte, v storage.Version, err error) {
	err = f.do(ctx, Get, name, func() (err error) { data, v, err = f.inner.Get(ctx, name); return err })
	if err != nil {
		return nil, "", err
	}
	return data, v, nil
}

// Put implements storage.Store.
func (f *Faulty) Put(ctx context.Context, name string, data []byte) (v storage.Version, err error) {
	err = f.do(ctx, Put, name, func() (err error) { v, err = f.inner.Put(ctx, name, data); return err })
	if err != nil {
		return "", err
	}
	return v, nil
}

// PutIf implements storage.Store.
func (f *Faulty) PutIf(ctx context.Context, name string, data []byte, v storage.Version) (is storage.Version, err error) {
	err = f.do(ctx, PutIf, name, func() (err error) { is, err = f.inner.PutIf(ctx, name, data, v); return err })
	if err != nil {
		return "", err
	}
	return is, nil
}

// Delete implements storage.Store.
func (f *Faulty) Delete(ctx context.Context, name string) error {
	return f.do(ctx, Delete, name, func() error { return f.inner.Delete(ctx, name) })
}

// List implements storage.Store. The prefix is the name for the table.
func (f *Faulty) List(ctx context.Context, prefix, after string, limit int) (names []string, err error) {
	err = f.do(ctx, List, prefix, func() (err error) { names, err = f.inner.List(ctx, prefix, after, limit); return err })
	if err != nil {
		return nil, err
	}
	return names, nil
}

// Salvage implements storage.Salvager.
func (f *Faulty) Salvage(ctx context.Context, name string) (data []byte, v storage.Version, err error) {
	s, ok := f.inner.(storage.Salvager)
	if !ok {
		return nil, "", errors.ErrUnsupported
	}
	err = f.do(ctx, Salvage, name, func() (err error) { data, v, err = s.Salvage(ctx, name); return err })
	if err != nil {
		return nil, "", err
	}
	return data, v, nil
}

// DeleteIf implements storage.Salvager.
func (f *Faulty) DeleteIf(ctx context.Context, name string, v storage.Version) error {
	s, ok := f.inner.(storage.Salvager)
	if !ok {
		return errors.ErrUnsupported
	}
	return f.do(ctx, DeleteIf, name, func() error { return s.DeleteIf(ctx, name, v) })
}

// Lease implements storage.Store. An applied failure leaves the lease with nobody who could release it, so it is released at once.
func (f *Faulty) Lease(ctx context.Context, name string) (storage.Lease, error) {
	var inner storage.Lease
	err := f.do(ctx, Lease, name, func() (err error) { inner, err = f.inner.Lease(ctx, name); return err })
	if err != nil {
		if inner != nil {
			inner.Release(context.WithoutCancel(ctx))
		}
		return nil, err
	}
	l := &faultyLease{Lease: inner, store: f, name: name}
	l.ctx, l.cancel = context.WithCancelCause(inner.Context())
	f.mu.Lock()
	f.leases[l] = struct{}{}
	f.mu.Unlock()
	return l, nil
}

type faultyLease struct {
	storage.Lease
	store  *Faulty
	name   string
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (l *faultyLease) Context() context.Context { return l.ctx }

func (l *faultyLease) Release(ctx context.Context) error {
	return l.store.do(ctx, Release, l.name, func() error {
		l.store.mu.Lock()
		delete(l.store.leases, l)
		l.store.mu.Unlock()
		l.cancel(context.Canceled)
		return l.Lease.Release(ctx)
	})
}
