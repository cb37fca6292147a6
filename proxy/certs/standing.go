package certs

import (
	"cmp"
	"slices"
	"time"
)

// standing is where an order that does not run yet stands in the queue.
type standing struct {
	position int       // 1 is the next
	expected time.Time // when its turn should come, as far as that can be told
}

// usualRun is how long an order takes before we have seen one.
const usualRun = 5 * time.Second

// standing returns where the name's order stands; zero if it does not wait for its turn.
func (q *queue) standing(name string) standing {
	q.mu.Lock()
	defer q.mu.Unlock()
	o := q.orders[name]
	if o == nil || !o.waits() {
		return standing{}
	}
	before := 0
	for _, other := range q.orders {
		if other != o && other.waits() && q.compareLocked(other, o) < 0 {
			before++
		}
	}
	return q.expectLocked(o, before, time.Now())
}

// standings returns where all orders stand that wait, by name.
func (q *queue) standings() map[string]standing {
	q.mu.Lock()
	defer q.mu.Unlock()
	var all []*order
	for _, o := range q.orders {
		if o.waits() {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, q.compareLocked)
	now, m := time.Now(), make(map[string]standing, len(all))
	for i, o := range all {
		m[o.name] = q.expectLocked(o, i, now)
	}
	return m
}

// waits reports whether the order waits for its turn: for a place, or for a budget.
func (o *order) waits() bool { return o.state == orderQueued || o.withheld != nil }

// compareLocked puts the order first that runs first: urgent ones, renewals, new names in turn; within the first two who came first.
func (q *queue) compareLocked(a, b *order) int {
	if c := cmp.Or(compareBool(a.kind != kindReplace, b.kind != kindReplace), compareBool(a.kind == kindNew, b.kind == kindNew)); c != 0 {
		return c
	}
	if a.kind == kindNew {
		return compareTurns(a, b)
	}
	return cmp.Compare(a.number, b.number)
}

// expectLocked estimates: places are left at the pace of the last orders, and a budget that is used up lets one after the other pass.
func (q *queue) expectLocked(o *order, before int, now time.Time) standing {
	run := q.pace
	if run == 0 {
		run = usualRun
	}
	at := now.Add(run * time.Duration(before/max(q.limit, 1)))
	if e := o.withheld; e != nil {
		at = latest(at, e.Next.Add(e.Limit.Per/time.Duration(max(e.Limit.Count, 1))*time.Duration(before)))
	}
	return standing{before + 1, at}
}

// pacedLocked notes how long an order took.
func (q *queue) pacedLocked(took time.Duration) {
	if q.pace == 0 {
		q.pace = took
	}
	q.pace += (took - q.pace) / 8
}
