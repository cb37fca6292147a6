package upstream

import (
	"container/list"
	"context"
	"fmt"
	"time"
)

// acquire finds an endpoint for the request and a place at it, for which it may have to wait.
func (p *Pool) acquire(j *journey) (*endpoint, error) {
	if p.cfg.MaxConns == 0 {
		e, err := p.pick(j)
		if err == nil {
			e.inflight.Add(1)
		}
		return e, err
	}
	p.mu.Lock()
	if p.waiting.Len() == 0 { // else it would overtake
		e, err := p.pick(j)
		if err == nil {
			e.inflight.Add(1)
		}
		if err != errFull {
			p.mu.Unlock()
			return e, err
		}
	}
	if p.waiting.Len() >= p.cfg.Queue.Max || p.cfg.Queue.Wait <= 0 {
		n := p.waiting.Len()
		p.mu.Unlock()
		return nil, fmt.Errorf("%w, and %d requests wait already", errFull, n)
	}
	w := &waiter{j: j, got: make(chan place, 1)}
	at := p.waiting.PushBack(w)
	p.mu.Unlock()
	return p.wait(j.r.Context(), w, at)
}

// waiter is a request in the queue.
type waiter struct {
	j   *journey
	got chan place
}

// place is what the request gets at the end.
type place struct {
	e   *endpoint
	err error
}

// wait waits for a place, until it has taken too long or the client is gone.
func (p *Pool) wait(ctx context.Context, w *waiter, at *list.Element) (*endpoint, error) {
	timer := time.NewTimer(p.cfg.Queue.Wait)
	defer timer.Stop()
	var err error
	select {
	case got := <-w.got:
		return got.e, got.err
	case <-timer.C:
		err = fmt.Errorf("%w for %s", errFull, p.cfg.Queue.Wait)
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	select {
	case got := <-w.got: // in this moment; a canceled request goes on to find that out by itself
		p.mu.Unlock()
		return got.e, got.err
	default:
	}
	p.waiting.Remove(at)
	p.mu.Unlock()
	return nil, err
}

// admit gives places to those who wait, in the order in which they came. It is called whenever there may be one.
func (p *Pool) admit() {
	if p.cfg.MaxConns == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for at := p.waiting.Front(); at != nil; at = p.waiting.Front() {
		w := at.Value.(*waiter)
		e, err := p.pick(w.j)
		if err == errFull {
			return
		}
		if err == nil {
			e.inflight.Add(1)
		}
		p.waiting.Remove(at)
		w.got <- place{e, err}
	}
}

// release is the end of a request at an endpoint.
func (p *Pool) release(e *endpoint) {
	e.leave()
	p.admit()
}
