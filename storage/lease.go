package storage

import (
	"context"
	"sync"
	"time"
)

// nextFence follows last. It is no less than the microseconds since 1970: should the counter be lost, or objects be moved to another
// store with their fences, fences still go up.
func nextFence(last uint64) uint64 { return max(last+1, uint64(time.Now().UnixMicro())) }

// heldLease is a Lease of a backend of this package.
type heldLease struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	fence  uint64
	free   func() error // lets others have it
	once   sync.Once
	err    error // of free; written once
}

func newHeldLease(ctx context.Context, fence uint64, free func() error) *heldLease {
	l := &heldLease{fence: fence, free: free}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	return l
}

func (l *heldLease) Context() context.Context { return l.ctx }
func (l *heldLease) Fence() uint64            { return l.fence }

// Release ignores ctx: nothing here waits.
func (l *heldLease) Release(context.Context) error { return l.end(context.Canceled) }

// end tells the holder's work to stop before anybody else can begin.
func (l *heldLease) end(cause error) error {
	l.once.Do(func() {
		l.cancel(cause)
		l.err = l.free()
	})
	return l.err
}
