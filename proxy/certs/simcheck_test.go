package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// This file says what must hold in every simulated world. What an order has to be like is looked at when it is placed; what all names have to be like, step by step.

// violated notes that something does not hold.
func (w *simWorld) violated(format string, args ...any) {
	w.faulting.Lock()
	defer w.faulting.Unlock()
	if len(w.faults) < 20 {
		w.faults = append(w.faults, fmt.Sprintf("day %.2f: ", time.Since(w.begin).Hours()/24)+fmt.Sprintf(format, args...))
	}
}

func (w *simWorld) broken() bool {
	w.faulting.Lock()
	defer w.faulting.Unlock()
	return len(w.faults) > 0
}

// allowed looks at an order that a process is about to place. The world's mutex is held.
func (w *simWorld) allowed(c *simIssuer, n *simName, old *simLeaf, now time.Time, held, free bool) {
	if n.placed > 1 {
		w.violated("%d orders for %s under one lease, fence %d", n.placed, n.name, n.fence)
	}
	if !held {
		w.violated("an order for %s without its lease", n.name)
	}
	if n.open != nil && n.open != c.node && !n.open.stood(now) {
		w.violated("two processes order for %s", n.name)
	}
	if pause := []time.Duration{0, time.Minute, 10 * time.Minute, urgentEvery / 6}[min(n.row, 3)]; now.Sub(n.failed) < pause && !w.shaken(n.failed, now) {
		w.violated("an order for %s, %s after it failed %d times in a row", n.name, now.Sub(n.failed), n.row)
	}
	if n.leaf != nil && !n.leaf.stored && now.Sub(n.leaf.begins) < pendingLife-24*time.Hour && w.calm(n.leaf.begins, now) {
		w.violated("another order for %s, which has been issued a certificate that nobody has fetched", n.name)
	}
	for _, h := range []simHold{n.held, c.node.held, c.node.domains[n.customer()]} {
		if now.Before(h.until) && now.Sub(h.told) > time.Minute && !w.shaken(h.told, now) { // orders were under way when it was told
			w.violated("an order for %s, %s before the CA's Retry-After is over", n.name, h.until.Sub(now))
		}
	}
	if why := w.untimely(n, old, now); why != "" {
		w.violated("an order for %s, %s", n.name, why)
	}
	if !free {
		w.within(&c.counted, now, w.orders, "orders")
	}
	if old == nil {
		if c.domains[n.customer()] == nil {
			c.domains[n.customer()] = &simTimes{}
		}
		w.within(c.domains[n.customer()], now, w.domain, "new names below "+registeredDomain(n.name))
	}
}

// within counts one more, and looks whether that is within the limit.
func (w *simWorld) within(times *simTimes, now time.Time, limit Limit, what string) {
	if limit.Count == 0 {
		return
	}
	if got := times.add(now, limit.Per); got > limit.Count {
		w.violated("%d %s in %s, allowed are %d", got, what, limit.Per, limit.Count)
	}
}

// untimely says why the time of an order is not right; empty if it is.
func (w *simWorld) untimely(n *simName, old *simLeaf, now time.Time) string {
	newest := n.leaf
	switch {
	case newest != nil && !newest.stored && n.before != nil && n.before.stored:
		newest = n.before // whoever had it lost it
	}
	if newest == nil || !newest.stored || w.revoked(n, newest, now) {
		return ""
	}
	if age := now.Sub(newest.begins); age < scale(newest.life(), 0.25) {
		return fmt.Sprintf("whose certificate is only %s old", age)
	}
	if old == nil || old != newest || old.asked.IsZero() || w.shaken(old.told, now) {
		return ""
	}
	if now.Before(old.window.Start) {
		return fmt.Sprintf("%s before the window that its CA gave begins", old.window.Start.Sub(now))
	}
	end := latest(old.window.End, old.told).Add(time.Hour)
	if now.After(end) && !w.kept(n, old, now) {
		return fmt.Sprintf("%s after the window that its CA gave has ended", now.Sub(old.window.End))
	}
	return ""
}

// kept reports whether something kept the name from being renewed in its certificate's window.
func (w *simWorld) kept(n *simName, old *simLeaf, now time.Time) bool {
	from := earliest(old.window.Start, old.told).Add(-time.Hour)
	if how, at := w.leaves(n); how != "" && now.After(at) || n.hindered.After(from) || w.hindered.After(from) {
		return true
	}
	for at := from; at.Before(now.Add(3 * time.Hour)); at = at.Add(3 * time.Hour) {
		if w.outage("sim", at) || w.dice.weather("store", w.begin, at) > 0 || w.bad(n, at) {
			return true
		}
	}
	return w.accident.get().After(from)
}

// hinders notes that something keeps the name from being renewed for so long.
func (w *simWorld) hinders(n *simName, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hindersLocked(n, d)
}

func (w *simWorld) hindersLocked(n *simName, d time.Duration) {
	n.hindered = latest(n.hindered, time.Now().Add(d))
}

// expectsLocked has the name looked at when its certificate ends: by then there must be another.
func (w *simWorld) expectsLocked(n *simName) {
	hour := int(n.leaf.ends.Sub(w.begin)/time.Hour) + 1
	w.ends[hour] = append(w.ends[hour], int32(n.number))
}

// keeps notes that storage has a certificate of the name, or none any more; the line is the first of the object.
func (w *simWorld) keeps(number int, line []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.names[number]
	for _, leaf := range []*simLeaf{n.leaf, n.before} {
		if leaf != nil {
			leaf.stored = containsTime(line, leaf.begins) && containsTime(line, leaf.ends)
			n.kept = time.Now()
		}
	}
}

// statusOf is what a process says of a name: one that stands still would not answer.
func (w *simWorld) statusOf(name string) string {
	for _, node := range w.running {
		if !node.still.Load() {
			s, err := node.m.Status(context.Background(), name)
			return fmt.Sprintf("status %+v, given up %+v, failed %+v, %v", s, s.Abandoned, s.LastFailure, err)
		}
	}
	return "all processes stand still"
}

// check looks at what must always hold.
func (w *simWorld) check(step int) {
	now := time.Now()
	for _, n := range w.ended(now) {
		w.violated("the certificate of %s has ended; %s", n.name, w.statusOf(n.name))
	}
	for i, node := range w.running {
		if got := node.m.cache.bytes(); got > w.memory {
			w.violated("process %d has %d bytes of certificates, allowed are %d", i, got, w.memory)
		}
		if got := node.m.planner.size(); got > len(w.names) {
			w.violated("process %d plans %d names of %d", i, got, len(w.names))
		}
		if waiting := len(node.m.queue.names()); waiting > maxOrders {
			w.violated("process %d has %d orders", i, waiting)
		}
	}
	for i := range w.looks {
		node := w.running[int(w.dice.fixed("look at", strconv.Itoa(step), strconv.Itoa(i))*float64(len(w.running)))]
		n := w.names[int(w.dice.fixed("look", strconv.Itoa(step), strconv.Itoa(i))*float64(len(w.names)))]
		if why := w.astray(node, n, now); why != "" {
			w.violated("%s %s at %s", n.name, why, node.m.members.self)
		}
	}
	if w.store.calls[simLists].Load() > 0 {
		w.violated("storage was listed")
	}
}

// ended returns the names whose newest certificate has ended, though somebody wants them to have one.
func (w *simWorld) ended(now time.Time) (names []*simName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ; w.looked <= int(now.Sub(w.begin)/time.Hour); w.looked++ {
		for _, number := range w.ends[w.looked] {
			if n := w.names[number]; !now.Before(n.leaf.ends) && (n.stored() || n.number < w.listed()) && !w.givenUp(n, now) {
				names = append(names, n)
			}
		}
		delete(w.ends, w.looked)
	}
	return names
}

// astray says what is wrong with what a process knows of a name: it is neither served nor is there a reason. Empty if all is well.
func (w *simWorld) astray(node *simNode, n *simName, now time.Time) string {
	s := node.m.remembered(n.name)
	switch s.State {
	case StateServing, StateRenewing:
		if !now.Before(s.NotAfter) {
			return "is said to be served, and its certificate has ended"
		}
		return ""
	case StateAbandoned:
		if s.Abandoned.Reason == "" || n.number < w.listed() {
			return "is given up"
		}
		return ""
	case StateQueued, StateOrdering:
		return ""
	case StateWaiting, StateBackingOff:
		if s.LastFailure == nil || s.LastFailure.Reason == "" || s.NextAttempt.IsZero() {
			return fmt.Sprintf("waits (%s) without a reason or a time", s.State)
		}
		return ""
	case StateWithheld:
		if s.Budget == "" || s.NextAttempt.IsZero() {
			return "waits for a budget that nobody names"
		}
		return ""
	}
	if slices.ContainsFunc(w.running, func(other *simNode) bool { return other != node && other.m.remembered(n.name).explained() }) {
		return "" // another process sees to it
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	settled := now.Sub(node.began) > 10*time.Minute && !node.stood(now) && !w.shaken(now.Add(-time.Hour), now)
	switch {
	case s.explained() || !settled:
		return ""
	case s.State == StateExpired && w.unwanted(n, now) == "" && n.leaf.stored:
		return "has ended"
	case s.State == StateAbsent && (n.number < w.listed() || n.stored() && now.Sub(n.kept) > 2*indexReread && w.unwanted(n, now) == ""):
		return "is not known, and there is no reason"
	}
	return ""
}

// explained reports whether the process knows how the name is, or why it is not well.
func (s Status) explained() bool {
	return s.LastFailure != nil || s.Budget != "" || s.State != StateAbsent && s.State != StateExpired
}

// stored reports whether storage has the newest certificate, or the one before.
func (n *simName) stored() bool {
	return n.leaf != nil && n.leaf.stored || n.before != nil && n.before.stored
}

// served looks at the result of a handshake.
func (w *simWorld) served(node *simNode, n *simName, cert *tls.Certificate, err error, took time.Duration) {
	now := time.Now()
	if took > 20*time.Second+time.Second {
		w.violated("a handshake for %s took %s", n.name, took)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case cert != nil && !now.Before(cert.Leaf.NotAfter):
		w.violated("%s is served with a certificate that ended at %s", n.name, cert.Leaf.NotAfter)
	case cert == nil && err == nil && w.permit(context.Background(), n.name, netip.Addr{}) == nil:
		w.violated("%s is refused without a reason", n.name)
	case cert == nil && n.leaf != nil && n.leaf.stored && now.Before(n.leaf.ends) && now.Sub(n.kept) > 2*time.Minute && !node.stood(now) && !w.shaken(now, now) && !errors.Is(err, errClosed):
		w.violated("%s has a certificate in storage and is not served: %v", n.name, err)
	}
}

// finally looks at what must hold at the end.
func (w *simWorld) finally() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.names {
		// An answer that got lost at the end is fetched by the next process: the CA knows the request. One for a name that only a visitor brings back may be lost.
		if n.leaf != nil && !n.leaf.stored && time.Since(n.leaf.begins) > 25*time.Hour && n.row == 0 && w.unwanted(n, time.Now()) == "" && (n.number < w.listed() || n.stored()) {
			w.violated("the certificate of %s was issued and is not stored", n.name)
		}
	}
}

func containsTime(line []byte, at time.Time) bool {
	return bytes.Contains(line, []byte(at.UTC().Format(time.RFC3339)))
}
