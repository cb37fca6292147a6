package upstream

import (
	"time"

	"go.uber.org/zap"
)

// Passive takes a target out that fails the requests that it gets: a circuit breaker for each. It counts what a client would get a 502 or 504 for; an answer
// with such a status is the target's own word and does not count, nor does what is the client's fault.
type Passive struct {
	// Fails failures within Within open the breaker, if they are at least a tenth of the target's requests in that time, and if it is not the last target.
	// Zero turns it off.
	Fails  int
	Within time.Duration // zero means 10 s

	// OutFor is how long it stays open; zero means 10 s. Then one request tries. If that fails it is open for twice as long as before, up to 32 times OutFor.
	OutFor time.Duration
}

func (c Passive) withDefaults() Passive {
	orDefault(&c.Within, 10*time.Second)
	orDefault(&c.OutFor, 10*time.Second)
	return c
}

// trips are the failures that an endpoint's breaker remembers.
type trips struct {
	failures []failure // the latest, oldest first; at most Passive.Fails
	inARow   int       // how often the breaker opened since it was last closed
}

type failure struct {
	at       time.Time
	requests uint64 // that the endpoint had had by then
}

// closed reports whether the breaker lets a request pass: it is closed, or its time is over and nobody else tries.
func (e *endpoint) closed(now time.Time) bool {
	out := e.out.Load()
	return out == 0 || now.UnixNano() >= out && !e.trying.Load()
}

// claim takes the endpoint for the journey, which becomes the one that tries if the breaker is not closed. It reports false if another was faster.
func (e *endpoint) claim(j *journey) bool {
	if e.out.Load() == 0 {
		return true
	}
	j.trial = e.trying.CompareAndSwap(false, true)
	return j.trial
}

// worked notes that the endpoint answered.
func (p *Pool) worked(e *endpoint, j *journey) {
	trial := j.endTrial(e)
	out := e.out.Load()
	if out == 0 || !trial && time.Now().UnixNano() < out {
		return
	}
	e.mu.Lock()
	e.trips = trips{}
	e.out.Store(0)
	e.mu.Unlock()
	p.cameBack(e)
	p.log.Info("target answers again", zap.String("upstream", e.label))
}

// failed notes a failure of the endpoint.
func (p *Pool) failed(e *endpoint, j *journey, err *Error) {
	trial := j.endTrial(e)
	if err.Class == ErrCanceled || err.clients {
		return
	}
	e.faults.Add(1)
	now := time.Now()
	e.mu.Lock()
	e.last = trouble{err.Err.Error(), now}
	e.mu.Unlock()
	if p.cfg.Passive.Fails == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if out := e.out.Load(); out != 0 {
		if trial || now.UnixNano() >= out {
			p.openLocked(e, now, err)
		}
		return
	}
	if e.trips.add(p.cfg.Passive, failure{now, e.requests.Load()}) && p.othersIn(e) {
		p.openLocked(e, now, err)
	}
}

// endTrial lets others try again, and reports whether the journey was the one that tried.
func (j *journey) endTrial(e *endpoint) bool {
	if !j.trial {
		return false
	}
	j.trial = false
	e.trying.Store(false)
	return true
}

// add remembers a failure and reports whether that makes too many.
func (t *trips) add(c Passive, f failure) bool {
	if len(t.failures) == c.Fails {
		t.failures = append(t.failures[:0], t.failures[1:]...)
	}
	t.failures = append(t.failures, f)
	oldest := t.failures[0]
	return len(t.failures) == c.Fails && f.at.Sub(oldest.at) <= c.Within && uint64(c.Fails)*10 >= f.requests-oldest.requests
}

// othersIn reports whether another endpoint would still take requests.
func (p *Pool) othersIn(not *endpoint) bool {
	for _, e := range *p.members.Load() {
		if e != not && e.weight > 0 && !e.down.Load() && e.out.Load() == 0 {
			return true
		}
	}
	return false
}

// openLocked opens the breaker; the caller holds e.mu.
func (p *Pool) openLocked(e *endpoint, now time.Time, cause error) {
	outFor := p.cfg.Passive.OutFor << min(e.trips.inARow, 5)
	e.trips = trips{inARow: e.trips.inARow + 1}
	e.out.Store(now.Add(outFor).UnixNano())
	p.log.Warn("target taken out", zap.String("upstream", e.label), zap.Duration("for", outFor), zap.Error(cause))
}

// cameBack begins the slow start, and lets those who wait know of the endpoint.
func (p *Pool) cameBack(e *endpoint) {
	if p.cfg.SlowStart > 0 {
		e.upSince.Store(time.Now().UnixNano())
	}
	p.admit()
}
