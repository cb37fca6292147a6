package certs

import (
	"container/heap"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unique"

	"go.uber.org/zap"
)

const (
	lookers   = 16              // names looked at together
	retryMin  = 5 * time.Second // after trouble with storage, doubled each time
	retryMax  = time.Minute
	restEvery = 24 * time.Hour // names that no site claims just now

	// forgetAfter is how long after its end an on-demand certificate is still renewed. Then it is removed; a visitor brings the name back.
	forgetAfter = 14 * 24 * time.Hour

	ownerLate    = 0.2              // of the life that is left: after that, others renew what the owner of the shard has not renewed
	ownerFirst   = 5 * time.Second  // that the owner is ahead with names that have no certificate
	gainedWithin = 10 * time.Minute // over which names are spread that another process should have looked at
	backlogPause = time.Second      // while the queue is full of renewals
)

// planner knows when to look at a name next: every name that has a certificate or should have one, whether visited or not. It is a heap of times
// with one goroutine; what is to be done is seen when the time has come, in Manager.look. Every process knows all names, so that it can take over at once; it
// acts for those in shards of the index that are its own (see members), and for others only when their owner is late.
type planner struct {
	mu    sync.Mutex // guards what follows
	items map[string]*planItem
	due   dueHeap
	ready readyHeap     // those whose time has come
	wake  chan struct{} // has room for one: the earliest time has changed
	told  chan struct{} // closed when the index was read for the first time: it knows all names

	levels levels
	visits *visits // may be nil

	checks    checkHeap // see checks.go
	checkWake chan struct{}
}

// planItem is what the planner knows of a name, about 400 bytes with what its CA said.
type planItem struct {
	identity        // of the certificate, as far as known
	ca       string // of the certificate; empty if we have not seen one
	gone     farewell

	slot    time.Time     // when it is to be renewed by its lifetime
	counted int64         // when it is to be renewed, as the levels have it
	cycle   time.Duration // and how long it lives until then

	due   time.Time
	pos   int    // in one of the heaps; -1 while it is being looked at or has no time
	rank  uint64 // in the heap of those that are ready
	tries int    // troubles with storage in a row

	said     *suggestion // replaced, never modified; nil until we have seen a certificate
	check    time.Time   // when its CA is asked about it
	checkPos int         // in that heap; -1 while it has no time
	misses   int8        // questions in a row without an answer

	shard   uint8
	isReady bool // pos is in the heap of those that are ready
	resting bool // nobody claims it
	waited  bool // its time has come once, and it was left to the owner of its shard
	stale   bool // the certificate in memory is not the one that is stored
}

func newPlanner() *planner {
	return &planner{items: map[string]*planItem{}, wake: make(chan struct{}, 1), told: make(chan struct{}), checkWake: make(chan struct{}, 1)}
}

// plan sets the time of the next look.
func (p *planner) plan(name string, due time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.itemLocked(name)
	it.tries, it.resting, it.waited, it.stale = 0, false, false, false
	p.planLocked(it, due)
}

// refresh looks at the stored certificate although the one in memory seems good.
func (p *planner) refresh(name string, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if it := p.items[name]; it != nil {
		it.stale = true
		p.planLocked(it, earliest(at, it.dueOr(at)))
	}
}

// dueOr is when the item is due, or the other time if it has none.
func (it *planItem) dueOr(other time.Time) time.Time {
	if it.pos < 0 {
		return other
	}
	return it.due
}

// leave lets the owner of the name's shard act first: it is looked at again after a pause. It reports false if the owner has had its time.
func (p *planner) leave(name string, pause time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.itemLocked(name)
	if it.waited {
		return false
	}
	it.waited = true
	p.planLocked(it, time.Now().Add(pause))
	return true
}

// gained looks at names whose shards have become ours, if their time has come, and plans the questions to their CAs.
func (p *planner) gained(shards []int) {
	if len(shards) == 0 {
		return
	}
	ours := [indexShards]bool{}
	for _, shard := range shards {
		ours[shard] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, it := range p.items {
		if !ours[it.shard] {
			continue
		}
		if it.waited {
			it.waited = false
			p.planLocked(it, now.Add(scale(gainedWithin, fraction(it.name))))
		}
		if it.said != nil {
			p.checkLocked(it, latest(unixTime(it.said.Next), now.Add(scale(firstWithin, fraction(it.name)))))
		}
	}
}

// rest looks again in a day: no site claims the name just now.
func (p *planner) rest(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.itemLocked(name)
	it.resting = true
	p.planLocked(it, time.Now().Add(restEvery))
}

// reload looks at the wanted names that are new, and at those that rest: a site may claim them now.
func (p *planner) reload(wanted []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, it := range p.items {
		if it.resting {
			it.resting = false
			p.planLocked(it, now)
		}
	}
	for _, name := range wanted {
		if p.items[name] == nil {
			p.planLocked(p.itemLocked(name), now)
		}
	}
}

// retry looks again soon, later each time: storage was in trouble. A name that is not known stays unknown unless it should be kept.
func (p *planner) retry(name string, keep bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.items[name] == nil && !keep {
		return
	}
	it := p.itemLocked(name)
	pause := min(retryMin<<min(it.tries, 8), retryMax)
	it.tries++
	p.planLocked(it, time.Now().Add(pause))
}

// note tells what is known of the name's certificate. It reports whether that is news, and whether it is the first we hear of. It plans a look if the name was not known.
func (p *planner) note(c *certificate, renewAt time.Time) (news, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.items[c.name]
	it := p.itemLocked(c.name)
	first = it.ca == ""
	news = first || it.ca != c.ca || it.leaf != c.leaf() || !it.ends.Equal(c.tls.Leaf.NotAfter)
	it.identity, it.ca = c.identity(), c.ca
	if news {
		it.slot = renewAt
		p.levelLocked(it, renewAt)
	}
	if !known {
		p.planLocked(it, renewAt)
	}
	return news, first
}

// hear takes over what the index says of a name. It reports whether another process has replaced the certificate that we knew.
func (p *planner) hear(name string, e indexEntry, soon time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	it, known := p.items[name]
	if known {
		it.gone = it.gone.newer(e.Gone)
	}
	if known && it.ca != "" && (it.leaf == e.Leaf && it.ends.Equal(e.NotAfter) || it.issued.After(e.Issued)) {
		return false
	}
	if !known {
		it = p.itemLocked(name)
		it.gone = e.Gone
	}
	replaced := it.ca != ""
	it.identity = identity{it.name, e.Leaf, e.ID, e.Issued, e.NotAfter, e.Early}
	it.ca = unique.Make(e.CA).Value()
	it.slot = e.RenewAt
	p.levelLocked(it, e.RenewAt)
	if !known || replaced && !it.resting {
		it.waited = false
		p.planLocked(it, e.RenewAt)
	}
	if it.said == nil || it.said.Leaf != e.Leaf {
		it.said, it.misses = &suggestion{Leaf: e.Leaf}, 0
		p.checkLocked(it, soon)
	}
	return replaced
}

func (p *planner) itemLocked(name string) *planItem {
	it := p.items[name]
	if it == nil {
		name = strings.Clone(name) // it may be part of a whole shard of the index
		it = &planItem{identity: identity{name: name}, pos: -1, checkPos: -1, shard: uint8(indexShard(name))}
		p.items[name] = it
	}
	return it
}

func (p *planner) planLocked(it *planItem, due time.Time) {
	it.due = due
	if it.isReady {
		heap.Remove(&p.ready, it.pos)
	}
	if it.pos < 0 {
		heap.Push(&p.due, it)
	} else {
		heap.Fix(&p.due, it.pos)
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// forget drops the name.
func (p *planner) forget(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.items[name]
	if it == nil {
		return
	}
	delete(p.items, name)
	p.levels.take(it.counted, it.cycle, -1)
	if it.isReady {
		heap.Remove(&p.ready, it.pos)
	} else if it.pos >= 0 {
		heap.Remove(&p.due, it.pos)
	}
	if it.checkPos >= 0 {
		heap.Remove(&p.checks, it.checkPos)
	}
}

// knows reports whether the name has a certificate, as far as we have heard, or is listed.
func (p *planner) knows(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.items[name] != nil
}

// next takes the most urgent of the names that are due, or returns how long it is until one is.
func (p *planner) next(now time.Time) (name string, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.due) > 0 && !p.due[0].due.After(now) {
		it := heap.Pop(&p.due).(*planItem)
		it.rank = p.urgency(it, now)
		heap.Push(&p.ready, it)
	}
	switch {
	case len(p.ready) > 0:
		return heap.Pop(&p.ready).(*planItem).name, 0
	case len(p.due) == 0:
		return "", time.Hour
	}
	return "", p.due[0].due.Sub(now)
}

// urgency ranks those that are due together: what has no certificate or soon none first, then those that were visited last and most, then in the order of their
// times. When a CA revokes many certificates, those that somebody sees are replaced first.
func (p *planner) urgency(it *planItem, now time.Time) uint64 {
	class := uint64(2)
	switch left := it.ends.Sub(now); {
	case it.ca == "":
		class = 1
	case left < max(lastDay, scale(it.ends.Sub(it.issued), lifeForFailover)):
		class = 0
	}
	seen, count := it.gone.Seen, 0
	if p.visits != nil {
		at, n := p.visits.last(subject(it.name))
		seen, count = max(seen, at), n
	}
	hours := min(uint64(max(now.Unix()-seen, 0))/3600, 1<<20-1)
	return class<<62 | hours<<42 | uint64(visitMost-min(count, visitMost))<<34 | uint64(max(it.due.Unix(), 0))&(1<<34-1)
}

// items returns a moment's view, for status.
func (p *planner) all() []planItem {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]planItem, 0, len(p.items))
	for _, it := range p.items {
		all = append(all, *it)
	}
	return all
}

// names returns the names of all.
func (p *planner) names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.items))
}

// slotOf is when the certificate is to be renewed by its lifetime, as was decided once; zero if it was not.
func (p *planner) slotOf(name string, leaf leafID) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if it := p.items[name]; it != nil && it.leaf == leaf && leaf != 0 {
		return it.slot
	}
	return time.Time{}
}

func (p *planner) get(name string) (planItem, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if it := p.items[name]; it != nil {
		return *it, true
	}
	return planItem{}, false
}

// plan looks at names as they become due, until ctx ends.
func (m *Manager) plan(ctx context.Context) {
	var busy sync.WaitGroup
	defer busy.Wait()
	places := make(chan struct{}, lookers)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		name, wait := "", backlogPause
		if !m.queue.backlogged() {
			name, wait = m.planner.next(time.Now())
		}
		if name == "" {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return
			case <-m.planner.wake:
			case <-timer.C:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case places <- struct{}{}:
		}
		busy.Go(func() {
			defer func() { <-places }()
			m.look(ctx, name)
		})
	}
}

// look sees what a name needs: its certificate in memory, an order, or nothing until later.
func (m *Manager) look(ctx context.Context, name string) {
	r := m.rules.Load()
	t, ok := r.managed(name)
	if !ok || t.brief {
		if m.endedLongAgo(name) {
			m.sweepEnded(ctx, name)
		} else {
			m.planner.rest(name)
		}
		return
	}
	now := time.Now()
	it, _ := m.planner.get(name)
	cert := m.cache.cert(name)
	if it.ca != "" && !it.stale && (cert != nil || !t.listed) && m.leftToOwner(it, it.ends, now) {
		return
	}
	if m.unsaved.get(name) == nil && !m.fresh(cert, now) && !it.stale && m.leftUs(ctx, r, t, it, now) {
		return
	}
	if m.unsaved.get(name) == nil && (it.stale || !m.fresh(cert, now)) {
		ctx, cancel := context.WithTimeout(ctx, storeTimeout)
		defer cancel()
		var err error
		if cert, _, err = m.fetch(ctx, name); err != nil {
			if ctx.Err() == nil {
				m.log.Warn("stored certificate cannot be read, looking again soon", zap.String("name", name), zap.Error(err))
			}
			m.planner.retry(name, true)
			return
		}
	}
	switch {
	case m.fresh(cert, now) && m.unsaved.get(name) == nil:
		m.install(cert)
	case !t.listed && cert != nil && now.After(cert.until.Add(forgetAfter)), !t.listed && cert == nil && m.endedLongAgo(name): // the latter: another process was faster
		m.sweepEnded(ctx, name)
	case m.leftToOwner(it, endOf(cert), now):
	default:
		m.order(name, cert, now)
	}
}

// leftToOwner leaves the name to the process that has its shard, once; who serves a certificate that is late in spite of that orders it, whoever has the shard.
func (m *Manager) leftToOwner(it planItem, ends, now time.Time) bool {
	if it.waited || m.members.owns(int(it.shard)) || m.unsaved.get(it.name) != nil {
		return false
	}
	pause := max(scale(ends.Sub(now), ownerLate), ownerFirst)
	return m.planner.leave(it.name, pause+scale(pause, 0.5*fraction(it.name, m.members.self)))
}

func endOf(c *certificate) time.Time {
	if c == nil {
		return time.Time{}
	}
	return c.until
}

// order asks for a certificate in the background.
func (m *Manager) order(name string, cert *certificate, now time.Time) {
	w := wish{name: name, kind: kindNew}
	if cert.serves(now) {
		w.kind, w.issuer, w.loyal = kindRenew, cert.ca, m.loyalUntil(cert)
		m.take(cert)
	}
	_, err := m.queue.want(w)
	if _, parked := errors.AsType[*UnavailableError](err); err != nil && !parked {
		m.planner.retry(name, true) // no room; otherwise the end of the order plans the next look
	}
}

// forget drops a name from planning and index. Its certificate, if any, stays in storage: see sweepEnded.
func (m *Manager) forget(name string) {
	m.planner.forget(name)
	m.index.remove(name)
}
