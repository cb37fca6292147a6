package certs

import "time"

// This file finds the certificates that are late without looking at all of them each time: there may be a million, and the planner is locked meanwhile.

// lateSeldom is how long a look at all certificates may be put off, if they live for months.
const lateSeldom = 24 * time.Hour

// lateBounds say when a certificate is late. They are settings.
type lateBounds struct {
	ratio float64 // Settings.RenewAt
	floor float64 // Settings.ExpiryFloor
}

// lateness is what the last look at all certificates found. The planner's mutex guards it.
type lateness struct {
	bounds lateBounds
	known  []string // those in our shards that were late
	next   int64    // no other one is before, in Unix seconds
}

// floorOf is when so little of the certificate's life is left that a person should hear of it.
func (b lateBounds) floorOf(it *packedItem) time.Time {
	return it.ends.time().Add(-scale(it.life(), b.floor))
}

// of is when the certificate will be late, if it is not replaced before; zero for names that have none, or need no other.
func (b lateBounds) of(it *packedItem) time.Time {
	if it.ends == 0 || it.issued == 0 || it.resting || it.since != 0 {
		return time.Time{}
	}
	return earliest(b.floorOf(it), it.wantedAt(b.ratio).Add(scale(it.life(), lateBy)))
}

// wantedAt is when its renewal was due, by its CA's word or by its lifetime.
func (it *packedItem) wantedAt(ratio float64) time.Time {
	if it.renew != 0 {
		return it.renew.time()
	}
	return renewAt(it.issued.time(), it.ends.time(), ratio, 0.5)
}

// eachLate calls f for the certificates in our shards that are late. F must not keep the item, nor call the planner.
func (p *planner) eachLate(now time.Time, bounds lateBounds, f func(*packedItem)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	late := func(it *packedItem) bool {
		at := bounds.of(it)
		return !at.IsZero() && now.After(at) && p.ours(it)
	}
	if bounds != p.late.bounds || now.Unix() >= p.late.next {
		p.late = lateness{bounds: bounds, next: maxUnix}
		pause := lateSeldom
		p.items.each(func(_ itemID, it *packedItem) {
			if late(it) {
				p.late.known = append(p.late.known, it.name())
			} else {
				p.lateLocked(it)
			}
			if it.ends != 0 {
				pause = min(pause, scale(it.life(), lateBy/8))
			}
		})
		p.late.next = max(p.late.next, now.Add(pause).Unix()) // where one after the other fails, none need be told of to the hour
	}
	for _, name := range p.late.known {
		if _, it := p.knownLocked(name); it != nil && late(it) {
			f(it)
		}
	}
}

// lateLocked is called when something changes by which the time changes at which a certificate will be late.
func (p *planner) lateLocked(it *packedItem) {
	if at := p.late.bounds.of(it); !at.IsZero() && p.ours(it) {
		p.late.next = min(p.late.next, at.Unix())
	}
}
