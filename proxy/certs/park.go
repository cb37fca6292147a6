package certs

import (
	"cmp"
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/certs/budget"
)

// This file holds the queue's dealings with CAs that fail: which orders are parked, which one is the trial, and when all go on.

// parkHopelessLocked looks at those beyond the places: they wait for their turn, but not for a CA that is known to fail, since their visitors
// would hang for nothing. It looks at every queued order, so it is called once after something became worse and not for each handshake.
func (q *queue) parkHopelessLocked(now time.Time) {
	hopeless := func(o *order) bool {
		if o.trial != "" || q.reachableLocked(o, now) {
			return false
		}
		q.parkLocked(o)
		return true
	}
	q.urgent = slices.DeleteFunc(q.urgent, hopeless)
	q.renewals = slices.DeleteFunc(q.renewals, hopeless)
	q.fresh.drop(hopeless)
}

// parkLocked lets the handshakes go and keeps the name.
func (q *queue) parkLocked(o *order) {
	o.state, o.trial, o.err = orderParked, "", errParked
	for _, ca := range o.cas {
		if c := q.circuits[ca]; c != nil && c.open {
			o.err = &UnavailableError{Name: o.name, CA: ca, Since: c.since, Next: c.next, Err: c.err}
			break
		}
	}
	q.restLocked(o)
}

// withholdLocked parks an order until its budget may have room again. It keeps its turn.
func (q *queue) withholdLocked(o *order, e *budget.Error) {
	o.state, o.trial, o.err, o.withheld, o.after = orderParked, "", e, e, e.Again
	q.restLocked(o)
}

// passOver leaves the CA out for the rest of the order's run: a budget of ours there is used up.
func (q *queue) passOver(o *order, ca string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	o.over = append(o.over, ca)
}

// restLocked is the end of waiting for a parked order's visitors, and wakes who looks after it.
func (q *queue) restLocked(o *order) {
	o.over = nil
	o.round.end(nil, o.err)
	select {
	case q.parked <- struct{}{}:
	default:
	}
}

// failed notes a failure that concerns the CA. It reports whether the name itself is to blame: it has done this again and again, while the CA
// worked for others; or it is that of a second certificate, which opens no circuit: perhaps the CA does not like its key, and if it fails altogether, others tell.
func (q *queue) failed(o *order, ca string, err error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.circuits[ca]
	if o.blame >= blameForName || isSecond(o.name) && scopeOf(err) == ScopeCA && (c == nil || !c.open) {
		return true
	}
	if c == nil {
		c = &circuit{}
		q.circuits[ca] = c
	}
	now := time.Now()
	o.after, q.worse = now.Add(trialEvery), true
	q.returnLocked(o, ca)
	if c.fail(o, err, q.failover, now) {
		q.log.Warn("CA fails, new certificates wait", zap.String("ca", ca), zap.String("name", o.name), zap.Time("next_attempt", c.next), zap.Error(err))
	} else if now.Sub(c.since) >= trialsSlowDown {
		q.failing(ca, err, c.next)
	}
	return false
}

// worked notes that the CA works, and lets those go on who wait for it. A success before a Retry-After is over is that of an order that was under way when the CA
// said so: it ends nothing.
func (q *queue) worked(o *order, ca string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c, now := q.circuits[ca], time.Now()
	if c == nil || !c.open || now.Before(c.until) {
		return
	}
	since := c.since
	c.work(o, q.failover, now)
	q.log.Info("CA works again", zap.String("ca", ca), zap.Duration("failed_for", time.Since(since)), zap.Bool("standing_back", c.away))
	q.resumeLocked()
}

// resumeLocked puts the parked orders that may go on back into the queue, the most recently wanted first. Where a CA is
// due for a trial, that is one. The name of the last trial goes last, so that one bad name cannot spoil every trial, and second certificates go after
// main ones; an order that failed itself a moment ago lets others try first.
func (q *queue) resumeLocked() {
	now := time.Now()
	var ready []*order
	for _, o := range q.orders {
		if o.state == orderParked && !now.Before(o.after) && q.reachableLocked(o, now) {
			ready = append(ready, o)
		}
	}
	slices.SortFunc(ready, func(a, b *order) int {
		return cmp.Or(compareBool(q.triedLastLocked(a), q.triedLastLocked(b)), compareBool(isSecond(a.name), isSecond(b.name)), b.wanted.Compare(a.wanted))
	})
	for _, o := range ready {
		if q.admitLocked(o, now) {
			q.enqueueLocked(o)
		}
	}
	if len(ready) > 0 {
		q.dispatchLocked()
	}
}

// compareBool puts false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (q *queue) triedLastLocked(o *order) bool {
	for _, c := range q.circuits {
		if c.tried == o {
			return true
		}
	}
	return false
}

// patrol resumes parked orders when a trial or a Retry-After is due, until ctx ends.
func (q *queue) patrol(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.parked:
		}
		for more := true; more; {
			if !sleep(ctx, resumeInterval) {
				return
			}
			q.mu.Lock()
			q.resumeLocked()
			more = q.anyParkedLocked()
			q.mu.Unlock()
		}
	}
}

func (q *queue) anyParkedLocked() bool {
	for _, o := range q.orders {
		if o.state == orderParked {
			return true
		}
	}
	return false
}

// hurryLocked brings forward the next trial of the CAs that a visitor's name waits for.
func (q *queue) hurryLocked(o *order) {
	for _, ca := range o.cas {
		if c := q.circuits[ca]; c != nil && o.state == orderParked {
			c.hurry()
		}
	}
}
