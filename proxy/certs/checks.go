package certs

import (
	"container/heap"
	"context"
	"time"
)

// This file is the planner's second calendar: when the CA of each certificate is to be asked about its renewal.

// watch begins to ask about a certificate that was not watched, at the given time first. What was known of another one of the name is forgotten.
func (p *planner) watch(name string, leaf leafID, first time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.itemLocked(name)
	if it.said == nil || it.said.Leaf != leaf {
		it.said, it.misses = &suggestion{Leaf: leaf}, 0
		p.checkLocked(it, first)
	}
}

// learn takes over what is newer than what was known, and reports whether the time to renew is another one now.
func (p *planner) learn(name string, s suggestion) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.items[name]
	if it == nil || it.leaf != 0 && it.leaf != s.Leaf || !s.newerThan(it.said) {
		return false // of another certificate, or no news
	}
	before, next := int64(0), unixTime(s.Next)
	if it.said != nil {
		before = it.said.Renew
	}
	if it.said != nil && it.said.Asked == 0 && it.checkPos >= 0 {
		next = latest(next, it.check) // nobody asked while we were away: not all at once
	}
	it.said = &s
	if s.Renew != 0 {
		p.levelLocked(it, unixTime(s.Renew))
	}
	p.checkLocked(it, next)
	return before != s.Renew
}

// suggested returns what the CA said of the certificate; the zero value if it said nothing.
func (p *planner) suggested(name string, leaf leafID) suggestion {
	p.mu.Lock()
	defer p.mu.Unlock()
	if it := p.items[name]; it != nil && it.said != nil && it.said.Leaf == leaf {
		return *it.said
	}
	return suggestion{}
}

// recheck asks at another time.
func (p *planner) recheck(name string, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if it := p.items[name]; it != nil {
		p.checkLocked(it, at)
	}
}

// missed counts a question without an answer and returns how many there were in a row; answered begins anew.
func (p *planner) missed(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.items[name]
	if it == nil {
		return 0
	}
	it.misses = min(it.misses+1, 100)
	return int(it.misses)
}

func (p *planner) answered(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if it := p.items[name]; it != nil {
		it.misses = 0
	}
}

// turned follows a change of Settings.ARI: times of renewal are looked at again, and all certificates are asked about within the hour if it is on now.
func (p *planner) turned(on bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, it := range p.items {
		soon := now.Add(scale(firstWithin, fraction(it.name)))
		if it.said == nil {
			continue
		}
		if on && it.check.After(soon) {
			p.checkLocked(it, soon)
		}
		if it.said.Renew != 0 && it.due.After(soon) {
			p.planLocked(it, soon)
		}
	}
}

func (p *planner) checkLocked(it *planItem, at time.Time) {
	it.check = at
	if it.checkPos < 0 {
		heap.Push(&p.checks, it)
	} else {
		heap.Fix(&p.checks, it.checkPos)
	}
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
		if len(p.checks) > 0 {
			wait = time.Until(p.checks[0].check)
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

// leaveChecks asks at another time about the names of a shard that is not ours.
func (p *planner) leaveChecks(names []string, at time.Time) {
	for _, name := range names {
		p.recheck(name, at.Add(scale(firstWithin, fraction(name))))
	}
}

// dueChecks returns the names to ask about, by shard of the index. They are due again after hold, unless something else is said of them before.
func (p *planner) dueChecks(now time.Time, hold time.Duration) map[int][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := map[int][]string{}
	for len(p.checks) > 0 && !p.checks[0].check.After(now) {
		it := p.checks[0]
		due[int(it.shard)] = append(due[int(it.shard)], it.name)
		p.checkLocked(it, now.Add(hold))
	}
	return due
}

func (p *planner) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.items)
}
