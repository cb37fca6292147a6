package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// readiness answers load balancers that ask /readyz. At the end of the program it says no, and knows when they have heard it.
type readiness struct {
	draining atomic.Bool

	mu    sync.Mutex
	asked map[string]*asker // by the address of who asks; at most maxAskers
	heard chan struct{}     // closed when all that ask have heard the no
}

// asker is a load balancer.
type asker struct {
	last time.Time // when it last asked
	noes int       // how often it heard no
}

const (
	maxAskers = 64

	// askerAge is how long somebody who asked once counts as one who asks.
	askerAge = time.Minute

	// noesToLeave is how often a load balancer hears no before it sends nobody any more: HAProxy's default is three.
	noesToLeave = 3
)

var errDraining = errors.New("draining")

// check says why a load balancer should send nobody here; nil while it may. From is its address, without the port.
func (r *readiness) check(from string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked == nil {
		r.asked = map[string]*asker{}
	}
	a := r.asked[from]
	if a == nil {
		if len(r.asked) >= maxAskers {
			clear(r.asked) // so many are no load balancers; the real one asks again within seconds
		}
		a = &asker{}
		r.asked[from] = a
	}
	a.last = time.Now()
	if !r.draining.Load() {
		return nil
	}
	a.noes++
	if r.heard != nil && r.leftLocked() {
		close(r.heard)
		r.heard = nil
	}
	return errDraining
}

// leftLocked reports whether nobody who asks has still to hear the no.
func (r *readiness) leftLocked() bool {
	for _, a := range r.asked {
		if a.noes < noesToLeave && time.Since(a.last) < askerAge {
			return false
		}
	}
	return true
}

// leave says no from now on, and returns when all that asked lately have heard it often enough, at the latest after atMost. Where nobody asks it
// returns at once.
func (r *readiness) leave(ctx context.Context, atMost time.Duration) {
	r.mu.Lock()
	r.draining.Store(true)
	left := r.leftLocked()
	heard := make(chan struct{})
	if !left {
		r.heard = heard
	}
	r.mu.Unlock()
	if left || atMost <= 0 {
		return
	}
	late := time.NewTimer(atMost)
	defer late.Stop()
	select {
	case <-heard:
	case <-late.C:
	case <-ctx.Done():
	}
}
