package certs

import (
	"fmt"
	"time"
)

// The rhythm of trials while a CA fails. Every 8 s, so that the first certificate is there within 10 s of the CA's return; after ten minutes of
// failure twice as long each time up to a minute, but with a visitor at the door never longer than 12 s.
const (
	trialEvery     = 8 * time.Second
	trialsSlowDown = 10 * time.Minute
	trialSlowest   = time.Minute
	trialVisitor   = 12 * time.Second
)

// circuit is what we know of a CA's health. It is closed while the CA works and opens at the first failure that concerns the CA, our account there
// or our address. While it is open one order at a time is let through as a trial; a CA's failure is never held against a name. The queue's
// mutex guards it.
type circuit struct {
	open  bool
	since time.Time     // when it opened
	last  time.Time     // the last trial, or when it opened
	next  time.Time     // the next trial
	until time.Time     // no trial before that: a Retry-After
	pause time.Duration // between the last trial and the next
	err   error         // the last failure

	failed time.Time // when that was

	opener *order // whose failure opened it
	tried  *order // the last trial

	fails   int       // failures in a row that are the CA's own
	away    bool      // given up for now: orders go to the next CA, see routeLocked
	limited bool      // away because of a limit of ours there only, or until a time that it gave
	healthy time.Time // closed since then, but still away
}

// admits reports whether an order may go to the CA now.
func (c *circuit) admits(now time.Time) bool { return !c.open || !now.Before(c.next) }

// try takes the turn of a trial if the circuit is open: the next one comes a pause later, even if this one hangs.
func (c *circuit) try(o *order, now time.Time) {
	if !c.open {
		return
	}
	if now.Sub(c.since) >= trialsSlowDown {
		c.pause = min(2*c.pause, trialSlowest)
	}
	c.last, c.next, c.tried = now, latest(now.Add(c.pause), c.until), o
}

// hurry brings the next trial forward for a visitor.
func (c *circuit) hurry() {
	if soon := latest(c.last.Add(trialVisitor), c.until); c.open && soon.Before(c.next) {
		c.next = soon
	}
}

// hasten lets a trial happen now: a person wishes it, or has changed the configuration. One that is out of order may be asked though it wanted to be left alone; one that limits us may not.
func (c *circuit) hasten(now time.Time) {
	if scopeOf(c.err) == ScopeCA {
		c.until = time.Time{}
	}
	c.next = latest(now, c.until)
}

// fail opens the circuit, or keeps it open. It reports whether it was closed before.
func (c *circuit) fail(o *order, err error, over Failover, now time.Time) bool {
	opens := !c.open
	if scopeOf(err) == ScopeCA {
		c.fails++
		patience := time.Duration(max(over.After, 1)) * trialEvery
		switch {
		case c.fails >= max(over.After, 1):
			c.away, c.limited = true, false
		case !c.away && retryOf(err).After(now.Add(patience)): // else it would be given up after hours. It says itself when it is back
			c.away, c.limited = true, true
		}
	} else if !c.away {
		c.away, c.limited = true, true
	}
	if opens {
		c.open, c.since, c.last, c.pause, c.next, c.opener = true, now, now, trialEvery, now.Add(trialEvery), o
	}
	c.err, c.failed = err, now
	c.until = latest(c.until, capped(now, retryOf(err)))
	c.next = latest(c.next, c.until)
	return opens
}

// work closes the circuit: the CA did what it is for, be it to refuse a name. One that was given up stays away until it has been healthy for a while.
func (c *circuit) work(o *order, over Failover, now time.Time) {
	if c.opener != o && c.opener != nil {
		c.opener.blame++ // the CA works, for others
	}
	back := circuit{}
	if c.away && !c.limited && over.BackAfter > 0 {
		back = circuit{away: true, healthy: now, next: now.Add(over.probeEvery())}
	}
	*c = back
}

// awayNow reports whether a closed circuit's CA is still passed over, and ends that when the time has come.
func (c *circuit) awayNow(over Failover, now time.Time) bool {
	c.away = c.away && now.Sub(c.healthy) < over.BackAfter
	return c.away
}

// probeDue reports whether an order should see if a CA that recovers is still healthy.
func (c *circuit) probeDue(now time.Time) bool { return !c.open && c.away && !now.Before(c.next) }

// UnavailableError says that no CA for a name answers as it should. The name stays in the queue and is tried again by itself.
type UnavailableError struct {
	Name, CA string
	Since    time.Time // the CA fails since then
	Next     time.Time // the next trial
	Err      error     // the last failure
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("no certificate for %s yet: CA %s fails since %s, next trial at %s: %v",
		e.Name, e.CA, e.Since.UTC().Format(time.RFC3339), e.Next.UTC().Format(time.RFC3339), e.Err)
}

func (e *UnavailableError) Unwrap() error { return e.Err }
