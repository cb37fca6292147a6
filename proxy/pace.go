package proxy

import (
	"net/http"
	"strings"
	"sync"
	"time"
)

// pace ends a request body that comes too slowly: a client that sends a byte now and then would hold its connection, and the upstream's, for ever. Only time
// in which we wait for the client counts, not time in which the upstream takes nothing.
//
// A client has a credit of time. Waiting for it uses the credit up, bytes earn it back at Limits.BodyRate, never to more than it began with.
type pace struct {
	rate   float64 // bytes that earn a second; zero lets any byte earn all
	most   time.Duration
	cut    func() // makes the Read under way return
	timer  *time.Timer
	talk   bool          // a body without a length may be one half of a conversation: once there is an answer, silence is no fault
	mu     sync.Mutex    // guards what follows
	credit time.Duration // left
	since  time.Time     // when the Read under way began; zero without one
	late   bool          // the credit was used up
	free   bool          // nothing is counted any more
}

// newPace starts with three quarters of Limits.StallTimeout, so that a body which hardly moves has ended within all of it.
func (x *exchange) newPace() *pace {
	limits := &x.srv.cfg.Limits
	p := &pace{rate: max(0, limits.BodyRate), most: limits.StallTimeout * 3 / 4, talk: x.r.ContentLength < 0}
	p.credit = p.most
	p.cut = func() { _ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(time.Unix(1, 0)) }
	p.free = p.talk && (x.status != 0 || isGRPC(x.r.Header)) // whose streams of messages are answered when they end, which may be in an hour
	return p
}

func isGRPC(h http.Header) bool {
	v := h["Content-Type"]
	return len(v) == 1 && strings.HasPrefix(v[0], "application/grpc")
}

// begin is called before a Read.
func (p *pace) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free {
		return
	}
	p.since = time.Now()
	if p.timer == nil {
		p.timer = time.AfterFunc(p.credit, p.expire)
	} else {
		p.timer.Reset(p.credit)
	}
}

func (p *pace) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	// The timer of an earlier Read may come late: what counts is how long this one has waited.
	if p.free || p.since.IsZero() || time.Since(p.since) < p.credit {
		return
	}
	p.late = true
	p.cut()
}

// end is called after a Read of n bytes. It reports whether the client was too slow, and then the Read has failed, whatever it returned.
func (p *pace) end(n int) (late bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		return false
	}
	p.timer.Stop()
	p.credit -= time.Since(p.since)
	p.since = time.Time{}
	switch {
	case n > 0 && p.rate == 0:
		p.credit = p.most
	case n > 0:
		p.credit = min(p.most, p.credit+time.Duration(float64(n)/p.rate*float64(time.Second)))
	}
	p.credit = max(p.credit, time.Millisecond)
	return p.late && !p.free
}

// answered is called when the answer begins.
func (p *pace) answered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.talk && !p.late {
		p.free = true
		if p.timer != nil {
			p.timer.Stop()
		}
	}
}
