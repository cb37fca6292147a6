package certs

import (
	"slices"
	"time"
)

// This file says which CA an order goes to, among those that may serve its name: when it waits for the first one, when the next takes over, and when
// the first is used again.

// Bounds of Failover.probeEvery.
const (
	probeOften  = time.Minute
	probeSeldom = time.Hour
)

// probeEvery is how often one order goes to a CA that recovers, while the others still go to the next one: "healthy" must have been seen.
func (f Failover) probeEvery() time.Duration {
	return min(max(f.BackAfter/24, probeOften), probeSeldom)
}

// lifeForFailover is the part of its life that a certificate has left when its renewal may go to another CA than usual. Before that there is time to wait for
// the usual one, which knows the certificate (RFC 9773 §5) and whose limits spare renewals.
const lifeForFailover = 1.0 / 6

// routeLocked returns the CA that the order may ask now, leaving out those it has asked in this run, and whether that is a trial of one that fails. It
// returns "" if the order has to wait:
//
//   - A CA that works is asked, the first in order.
//   - One that fails is asked by one order at a time, as a trial. The others wait for it, or go on to the next CA if it is given up for now: it failed
//     Failover.After times in a row, or said that it will for longer than that takes, or it limits our account or address, which no waiting in the handshake mends.
//   - One that was given up and works again is passed over until it has been healthy for Failover.BackAfter, but for a probe; unless nothing else works.
//   - One for which a budget of ours has no room is passed over.
//   - A renewal with time left goes to the first CA, or to the one that issued the certificate, and to no other.
func (q *queue) routeLocked(o *order, asked []string, now time.Time) (ca string, trial bool) {
	recovering := ""
	cas := q.candidatesLocked(o, now)
	for i, ca := range cas {
		c := q.circuits[ca]
		switch {
		case slices.Contains(o.over, ca):
		case slices.Contains(asked, ca):
			if c == nil || !c.away {
				return "", false
			}
		case c == nil || !c.open && !c.awayNow(q.failover, now) || c.probeDue(now):
			return ca, false
		case !c.open && recovering == "":
			recovering = ca
		case !c.open:
		case o.trial == ca || c.admits(now) && !q.sparesLocked(o, c, cas[i+1:], now):
			return ca, true
		case !c.away:
			return "", false
		}
	}
	return recovering, false
}

// sparesLocked reports whether the order is spared the trial of a CA that was given up: another one stands in, there is no hurry to go back, and the last
// trial is not long ago. The CA may hang, so a visitor's order is spared for longer: others that nobody waits for can see how the CA is.
func (q *queue) sparesLocked(o *order, c *circuit, others []string, now time.Time) bool {
	standIn := slices.ContainsFunc(others, func(ca string) bool { return q.circuits[ca] == nil || !q.circuits[ca].open })
	pause := trialSlowest
	if !o.wanted.IsZero() {
		pause = q.failover.probeEvery()
	}
	return standIn && c.away && q.failover.BackAfter > 0 && now.Sub(c.last) < pause
}

// loyalUntil is when so little of the certificate's life is left that its renewal may go to another CA than usual. If its CA wants it replaced at once, that is
// now: perhaps nobody will trust it soon.
func (m *Manager) loyalUntil(c identity) time.Time {
	if s := m.planner.suggested(c.name, c.leaf); s.over() && m.rules.Load().ARI {
		return time.Time{}
	}
	return c.ends.Add(-scale(c.ends.Sub(c.issued), lifeForFailover))
}

// candidatesLocked are the CAs for the order, the preferred one first.
func (q *queue) candidatesLocked(o *order, now time.Time) []string {
	cas := o.cas
	if now.Before(o.loyal) && len(cas) > 1 {
		cas = cas[:1]
		if o.issuer != o.cas[0] && slices.Contains(o.cas, o.issuer) {
			cas = []string{o.cas[0], o.issuer}
		}
	}
	if c := q.circuits[o.prefer]; slices.Contains(cas, o.prefer) && (c == nil || !c.open) {
		return append([]string{o.prefer}, slices.DeleteFunc(slices.Clone(cas), func(ca string) bool { return ca == o.prefer })...)
	}
	return cas
}

// choose returns the CA that a running order asks next, "" if every CA for it fails or is to be waited for.
func (q *queue) choose(o *order, prefer string, asked []string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	o.prefer = prefer
	now := time.Now()
	ca, trial := q.routeLocked(o, asked, now)
	if c := q.circuits[ca]; c != nil && trial && o.trial != ca {
		q.tryLocked(c, o, now)
		o.trial = ca
	} else if c != nil && c.probeDue(now) {
		c.next = now.Add(q.failover.probeEvery())
	}
	return ca
}

// admitLocked reports whether the order may run now, and takes the turn if that is a trial.
func (q *queue) admitLocked(o *order, now time.Time) bool {
	ca, trial := q.routeLocked(o, nil, now)
	if trial {
		q.tryLocked(q.circuits[ca], o, now)
		o.trial, o.round.trial = ca, true
	}
	return ca != "" || len(o.cas) == 0 // without any, the order's run says so
}

// tryLocked gives the order the turn of the CA's next trial, which the others cannot have any more.
func (q *queue) tryLocked(c *circuit, o *order, now time.Time) {
	c.try(o, now)
	q.worse = true
}

// reachableLocked is admitLocked without taking a turn.
func (q *queue) reachableLocked(o *order, now time.Time) bool {
	ca, _ := q.routeLocked(o, nil, now)
	return ca != "" || len(o.cas) == 0
}

// returnLocked ends the absence of the CAs before this one that work: the one that stood in for them fails.
func (q *queue) returnLocked(o *order, ca string) {
	for _, before := range o.cas {
		if before == ca {
			return
		}
		if c := q.circuits[before]; c != nil && !c.open {
			c.away = false
		}
	}
}
