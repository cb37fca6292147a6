package certs

import (
	"context"
	"time"
)

// This file is the planner's second calendar: when the CA of each certificate is to be asked about its renewal.

// watch begins to ask about a certificate that was not watched, at the given time first.
func (p *planner) watch(name string, leaf leafID, first time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id, it := p.knownLocked(name); it != nil && it.leaf == leaf && !it.watched {
		p.watchLocked(id, first)
	}
}

func (p *planner) watchLocked(id itemID, first time.Time) {
	it := p.items.at(id)
	it.watched, it.misses = true, 0
	p.checkLocked(id, first)
}

// learn takes over what is newer than what was known, and reports whether the time to renew is another one now.
func (p *planner) learn(name string, s suggestion) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, it := p.knownLocked(name)
	if it == nil || it.leaf != s.Leaf {
		return false // of another certificate
	}
	before, next := it.suggestion(), unixTime(s.Next)
	if it.watched && !s.newerThan(&before) {
		return false
	}
	if it.watched && before.Asked == 0 && it.checkPos >= 0 {
		next = latest(next, it.check.time()) // nobody asked while we were away: not all at once
	}
	it.suggest(s)
	if s.Renew != 0 {
		p.levelLocked(it, it.renew)
	} else {
		p.lateLocked(it)
	}
	p.checkLocked(id, next)
	return before.Renew != s.Renew
}

// suggested returns what the CA said of the certificate; the zero value if it said nothing.
func (p *planner) suggested(name string, leaf leafID) suggestion {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, it := p.knownLocked(name); it != nil && it.watched && it.leaf == leaf {
		return it.suggestion()
	}
	return suggestion{}
}

// recheck asks at another time.
func (p *planner) recheck(name string, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id := p.items.find(name); id != 0 {
		p.checkLocked(id, at)
	}
}

// missed counts a question without an answer and returns how many there were in a row; answered begins anew.
func (p *planner) missed(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, it := p.knownLocked(name)
	if it == nil {
		return 0
	}
	it.misses = min(it.misses+1, 100)
	return int(it.misses)
}

func (p *planner) answered(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, it := p.knownLocked(name); it != nil {
		it.misses = 0
	}
}

// turned follows a change of Settings.ARI: times of renewal are looked at again, and all certificates are asked about within the hour if it is on now.
func (p *planner) turned(on bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.items.each(func(id itemID, it *packedItem) {
		soon := now.Add(scale(firstWithin, fraction(it.name())))
		if !it.watched {
			return
		}
		if on && it.check.time().After(soon) {
			p.checkLocked(id, soon)
		}
		if it.renew != 0 && it.dueAt().After(soon) {
			p.planLocked(id, soon)
		}
	})
}

// checkLocked sets when the item's CA is asked, rounded up: it must not be asked before. About names in shards of others we ask nobody, until the shards become
// ours (see gained).
func (p *planner) checkLocked(id itemID, at time.Time) {
	it := p.items.at(id)
	it.check = secondsOf(at.Add(time.Second - 1))
	if !p.ours(it) {
		if it.checkPos >= 0 {
			p.checks.remove(id)
		}
		return
	}
	p.checks.put(id)
	select {
	case p.checkWake <- struct{}{}:
	default:
	}
}

// awaitCheck waits until a question is due. It reports false if ctx ended before.
func (p *planner) awaitCheck(ctx context.Context) bool {
	for {
		p.mu.Lock()
		wait := time.Hour
		if it := p.checks.first(); it != nil {
			wait = time.Until(it.check.time())
		}
		p.mu.Unlock()
		if wait <= 0 {
			return ctx.Err() == nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-p.checkWake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// leaveChecks asks at another time about the names of a shard about which another process asks.
func (p *planner) leaveChecks(names []string, at time.Time) {
	for _, name := range names {
		p.recheck(name, at.Add(scale(firstWithin, fraction(name))))
	}
}

// dueChecks returns the names to ask about, by shard of the index. They are due again after hold, unless something else is said of them before. Those in a shard
// that is not ours any more are left to its owner.
func (p *planner) dueChecks(now time.Time, hold time.Duration) map[int][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := map[int][]string{}
	for it := p.checks.first(); it != nil && !it.check.time().After(now); it = p.checks.first() {
		if p.checkLocked(p.checks.ids[0], now.Add(hold)); it.checkPos >= 0 {
			due[int(it.shard)] = append(due[int(it.shard)], it.name())
		}
	}
	return due
}

// ours reports whether the name is in one of our shards.
func (p *planner) ours(it *packedItem) bool { return p.owns == nil || p.owns(int(it.shard)) }

func (p *planner) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.items.count
}
