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
}

// asker is somebody who asked: a load balancer, if it goes on asking.
type asker struct {
	last  time.Time     // when it last asked
	pause time.Duration // between its questions, the later ones counting more; zero after the first
	noes  int           // how often it heard no
}

const (
	maxAskers = 64

	// noesToLeave is how often a load balancer hears no before it sends nobody any more: HAProxy's default is three.
	noesToLeave = 3

	// missedToGo is how many questions somebody has left out who asks no more, such as a script that waited for our start.
	missedToGo = 3

	// shortestGo bounds that from below.
	shortestGo = 3 * time.Second
)

var errDraining = errors.New("draining")

// check says why a load balancer should send nobody here; nil while it may. From is its address, without the port.
func (r *readiness) check(from string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.noteLocked(from, now)
	if !r.draining.Load() {
		return nil
	}
	r.asked[from].noes++
	return errDraining
}

func (r *readiness) noteLocked(from string, now time.Time) {
	if r.asked == nil {
		r.asked = map[string]*asker{}
	}
	a := r.asked[from]
	switch {
	case a == nil:
		if len(r.asked) >= maxAskers {
			clear(r.asked) // so many are no load balancers; the real one asks again within seconds
		}
		a = &asker{}
		r.asked[from] = a
	case a.pause == 0:
		a.pause = max(now.Sub(a.last), 1)
	default:
		a.pause = (3*a.pause + now.Sub(a.last)) / 4
	}
	a.last = now
}

// waits reports whether it asks regularly, and has still to hear the no.
func (a *asker) waits(now time.Time) bool {
	return a.pause > 0 && a.noes < noesToLeave && now.Sub(a.last) < max(shortestGo, missedToGo*a.pause)
}

func (r *readiness) somebodyWaits() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, a := range r.asked {
		if a.waits(now) {
			return true
		}
	}
	return false
}

// balanced reports whether somebody asks, or asked, regularly.
func (r *readiness) balanced() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.asked {
		if a.pause > 0 {
			return true
		}
	}
	return false
}

// leave says no from now on, and returns when all that ask regularly have heard it often enough, or ask no more, at the latest after atMost. Where nobody
// asks it returns at once.
func (r *readiness) leave(ctx context.Context, atMost time.Duration) {
	r.draining.Store(true)
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(atMost); r.somebodyWaits() && time.Now().Before(end); {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}
