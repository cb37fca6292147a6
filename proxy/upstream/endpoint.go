package upstream

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// endpoint is one address that requests go to: a target, or one of the several addresses that a target's name has.
type endpoint struct {
	target Target
	label  string // the target; with the address in place of the name where the name has several
	weight int    // as configured

	scheme, host string // of the URLs that the transports get
	seed         uint64 // of label, for hashing
	token        string // value of the sticky cookie

	main, upgrade *http.Transport // see newTransports

	inflight atomic.Int64  // requests that have it now
	requests atomic.Uint64 // attempts so far
	faults   atomic.Uint64 // of them, those that failed by its fault
	retired  atomic.Bool   // gets nothing new; its connections end with their requests

	down    atomic.Bool  // the probes say so
	out     atomic.Int64 // the breaker is open until then, in Unix nanoseconds; zero while it is closed
	trying  atomic.Bool  // somebody tries whether the breaker can be closed
	upSince atomic.Int64 // when it came back, for the slow start; zero for long ago

	current float64 // of round robin; guarded by Pool.turn

	mu     sync.Mutex // guards what follows
	probes probes
	trips  trips
	last   trouble
}

// trouble is what went wrong last.
type trouble struct {
	text string
	at   time.Time
}

func (p *Pool) newEndpoint(t Target, weight int, label, network, addr string) *endpoint {
	e := &endpoint{target: t, label: label, weight: weight, scheme: t.Scheme, host: t.Host, seed: hash(label), token: stickyToken(p.cfg, label)}
	switch t.Scheme {
	case "h2c":
		e.scheme = "http"
	case "unix":
		e.scheme, e.host = "http", "localhost"
	}
	e.main, e.upgrade = newTransports(&p.cfg, t, network, addr)
	return e
}

// retire ends the endpoint once its requests have ended.
func (e *endpoint) retire() {
	e.retired.Store(true)
	e.closeIdle()
}

func (e *endpoint) closeIdle() {
	e.main.CloseIdleConnections()
	e.upgrade.CloseIdleConnections()
}

// leave is the end of a request at the endpoint.
func (e *endpoint) leave() {
	if e.inflight.Add(-1) == 0 && e.retired.Load() {
		e.closeIdle()
	}
}

// full reports whether it has as many requests as it may.
func (e *endpoint) full(max int) bool { return max > 0 && e.inflight.Load() >= int64(max) }

// share is the weight that counts now: less than the configured one while the endpoint starts slowly.
func (e *endpoint) share(now time.Time, slowStart time.Duration) float64 {
	w := float64(e.weight)
	since := e.upSince.Load()
	if slowStart == 0 || since == 0 {
		return w
	}
	passed := now.Sub(time.Unix(0, since))
	if passed >= slowStart {
		e.upSince.CompareAndSwap(since, 0)
		return w
	}
	return w * max(minShare, float64(passed)/float64(slowStart))
}

// minShare is what an endpoint has at the beginning of its slow start: little, but enough to warm it up.
const minShare = 0.1

// hash is FNV-1a with a finalizer: the same on every node and after every restart.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// mix spreads the bits of x over all bits of the result.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
