package certs

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/certs/permission"
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
	items *itemTable
	due   calendar      // by the time of their next look
	ready calendar      // those whose time has come, by rank
	wake  chan struct{} // has room for one: the earliest time has changed
	told  chan struct{} // closed when the index was read for the first time: it knows all names

	levels levels
	late   lateness // see late.go
	visits *visits  // may be nil

	owns      func(shard int) bool // see members; nil: all are ours
	checks    calendar             // see checks.go; of names in our shards
	checkWake chan struct{}
}

func newPlanner() *planner {
	items := newItemTable()
	place := func(it *packedItem) *int32 { return &it.pos }
	return &planner{
		items: items, wake: make(chan struct{}, 1), told: make(chan struct{}), checkWake: make(chan struct{}, 1),
		due:    calendar{items: items, turn: func(it *packedItem) uint64 { return uint64(it.due) }, place: place},
		ready:  calendar{items: items, turn: func(it *packedItem) uint64 { return it.rank }, place: place},
		checks: calendar{items: items, turn: func(it *packedItem) uint64 { return uint64(it.check) }, place: func(it *packedItem) *int32 { return &it.checkPos }},
	}
}

// plan sets the time of the next look.
func (p *planner) plan(name string, due time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, it := p.itemLocked(name)
	if it.resting {
		it.resting = false
		p.lateLocked(it)
	}
	it.tries, it.waited, it.stale = 0, false, false
	p.planLocked(id, due)
}

// insist looks at the name now, and does not leave it to the owner of its shard.
func (p *planner) insist(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id, it := p.knownLocked(name); it != nil {
		it.tries, it.waited = 0, true
		p.planLocked(id, time.Now())
	}
}

// refresh looks at the stored certificate although the one in memory seems good.
func (p *planner) refresh(name string, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, it := p.knownLocked(name)
	if it == nil {
		return
	}
	it.stale = true
	if it.pos >= 0 {
		at = earliest(at, it.dueAt())
	}
	p.planLocked(id, at)
}

// leave lets the owner of the name's shard act first: it is looked at again after a pause. It reports false if the owner has had its time.
func (p *planner) leave(name string, pause time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, it := p.itemLocked(name)
	if it.waited {
		return false
	}
	it.waited = true
	p.planLocked(id, time.Now().Add(pause))
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
	p.late.next = 0
	now := time.Now()
	p.items.each(func(id itemID, it *packedItem) {
		if !ours[it.shard] {
			return
		}
		if it.waited {
			it.waited = false
			p.planLocked(id, now.Add(scale(gainedWithin, fraction(it.name()))))
		}
		if it.watched {
			p.checkLocked(id, latest(it.next.time(), now.Add(scale(firstWithin, fraction(it.name())))))
		}
	})
}

// rest looks again in a day: no site claims the name just now.
func (p *planner) rest(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, it := p.itemLocked(name)
	it.resting = true
	p.planLocked(id, time.Now().Add(restEvery))
}

// reload looks at the wanted names that are new, and at those that rest: a site may claim them now.
func (p *planner) reload(wanted []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.items.each(func(id itemID, it *packedItem) {
		if it.resting {
			it.resting = false
			p.planLocked(id, now)
			p.lateLocked(it)
		}
	})
	for _, name := range wanted {
		if p.items.find(name) == 0 {
			p.planLocked(p.items.add(name), now)
		}
	}
}

// retry looks again soon, later each time: storage was in trouble. A name that is not known stays unknown unless it should be kept.
func (p *planner) retry(name string, keep bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.items.find(name) == 0 && !keep {
		return
	}
	id, it := p.itemLocked(name)
	pause := min(retryMin<<it.tries, retryMax)
	it.tries = min(it.tries+1, 8)
	p.planLocked(id, time.Now().Add(pause))
}

// note tells what is known of the name's certificate. It reports whether that is news, and whether it is the first we hear of. It plans a look if the name was not known.
func (p *planner) note(c *certificate, renewAt time.Time) (news, first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.items.find(c.name) != 0
	id, it := p.itemLocked(c.name)
	first = it.ca() == ""
	news = first || it.ca() != c.ca || it.leaf != c.leaf() || it.ends != secondsOf(c.tls.Leaf.NotAfter)
	p.identifyLocked(it, c.identity(), c.ca)
	if news {
		it.slot = secondsOf(renewAt)
		p.levelLocked(it, it.slot)
	}
	if !known {
		p.planLocked(id, renewAt)
	}
	return news, first
}

// hear takes over what the index says of a name. It reports whether another process has replaced the certificate that we knew.
func (p *planner) hear(name string, e indexEntry, soon time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.items.find(name) != 0
	id, it := p.itemLocked(name)
	if gone := it.farewell().newer(e.Gone); gone != it.farewell() {
		it.leave(gone)
		p.lateLocked(it)
	}
	if it.ca() != "" && (it.leaf == e.Leaf && it.ends == secondsOf(e.NotAfter) || it.issued > secondsOf(e.Issued)) {
		return false
	}
	replaced := it.ca() != ""
	p.identifyLocked(it, identity{name, e.Leaf, e.ID, e.Issued, e.NotAfter, e.Early}, e.CA)
	it.slot = secondsOf(e.RenewAt)
	p.levelLocked(it, it.slot)
	if !known || replaced && !it.resting {
		it.waited = false
		p.planLocked(id, e.RenewAt)
	}
	if !it.watched {
		p.watchLocked(id, soon)
	}
	return replaced
}

// knownLocked returns the name's item, or nil.
func (p *planner) knownLocked(name string) (itemID, *packedItem) {
	id := p.items.find(name)
	if id == 0 {
		return 0, nil
	}
	return id, p.items.at(id)
}

// itemLocked returns the name's item, which is a new one if there was none.
func (p *planner) itemLocked(name string) (itemID, *packedItem) {
	id := p.items.find(name)
	if id == 0 {
		id = p.items.add(name)
	}
	return id, p.items.at(id)
}

// identifyLocked takes in which certificate the name has. What the CA said of another one is forgotten.
func (p *planner) identifyLocked(it *packedItem, i identity, ca string) {
	p.levels.take(int64(it.counted), it.cycle(), -1)
	if it.leaf != i.leaf {
		it.suggest(suggestion{})
		it.watched = false
	}
	it.identify(i, ca)
	p.levels.take(int64(it.counted), it.cycle(), 1)
}

func (p *planner) planLocked(id itemID, due time.Time) {
	it := p.items.at(id)
	if it.isReady {
		p.ready.remove(id)
		it.isReady = false
	}
	it.setDue(due)
	p.due.put(id)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// forget drops the name.
func (p *planner) forget(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, it := p.knownLocked(name)
	if it == nil {
		return
	}
	p.levels.take(int64(it.counted), it.cycle(), -1)
	if it.isReady {
		p.ready.remove(id)
	} else if it.pos >= 0 {
		p.due.remove(id)
	}
	if it.checkPos >= 0 {
		p.checks.remove(id)
	}
	p.items.remove(id)
}

// knows reports whether the name has a certificate, as far as we have heard, or is listed.
func (p *planner) knows(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.items.find(name) != 0
}

// next takes the most urgent of the names that are due, or returns how long it is until one is.
func (p *planner) next(now time.Time) (name string, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for it := p.due.first(); it != nil && !it.dueAt().After(now); it = p.due.first() {
		id := p.due.pop()
		it.rank, it.isReady = p.urgency(it, now), true
		p.ready.put(id)
	}
	if it := p.ready.first(); it != nil {
		p.ready.pop()
		it.isReady = false
		return it.name(), 0
	}
	if it := p.due.first(); it != nil {
		return "", it.dueAt().Sub(now)
	}
	return "", time.Hour
}

// urgency ranks those that are due together: what has no certificate or soon none first, then those that were visited last and most, then in the order of their
// times. When a CA revokes many certificates, those that somebody sees are replaced first.
func (p *planner) urgency(it *packedItem, now time.Time) uint64 {
	class := uint64(2)
	switch left := it.ends.time().Sub(now); {
	case it.ca() == "":
		class = 1
	case left < max(lastDay, scale(it.life(), lifeForFailover)):
		class = 0
	}
	seen, count := int64(it.seen), 0
	if p.visits != nil {
		at, n := p.visits.last(subject(it.name()))
		seen, count = max(seen, at), n
	}
	hours := min(uint64(max(now.Unix()-seen, 0))/3600, 1<<20-1)
	return class<<62 | hours<<42 | uint64(visitMost-min(count, visitMost))<<34 | uint64(it.dueAt().Unix())&(1<<34-1)
}

// ends returns when certificates end, as of this moment: of those that are known and that a site claims.
func (p *planner) ends() []seconds {
	p.mu.Lock()
	defer p.mu.Unlock()
	ends := make([]seconds, 0, p.items.count)
	p.items.each(func(_ itemID, it *packedItem) {
		if it.ends != 0 && !it.resting {
			ends = append(ends, it.ends)
		}
	})
	return ends
}

// names returns the names of all.
func (p *planner) names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := make([]string, 0, p.items.count)
	p.items.each(func(_ itemID, it *packedItem) { names = append(names, it.name()) })
	return names
}

// slotOf is when the certificate is to be renewed by its lifetime, as was decided once; zero if it was not.
func (p *planner) slotOf(name string, leaf leafID) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, it := p.knownLocked(name); it != nil && it.leaf == leaf && leaf != 0 {
		return it.slot.time()
	}
	return time.Time{}
}

// owed reports whether the certificate that we know of still serves and is to be replaced now, by what its CA said or by what was decided of its lifetime. Then nothing
// needs to be read to know it.
func (p *planner) owed(name string, ari bool, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, it := p.knownLocked(name)
	if it == nil || it.stale || it.ca() == "" || it.issued == 0 || !now.Before(it.ends.time()) {
		return false
	}
	at := it.slot
	if ari && it.watched && it.renew != 0 {
		at = it.renew
	}
	return at != 0 && !now.Before(at.time())
}

func (p *planner) get(name string) (planItem, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, it := p.knownLocked(name); it != nil {
		return it.unpack(), true
	}
	return planItem{}, false
}

// entry returns what the index is to say of the name; false if we have not heard of a certificate.
func (p *planner) entry(name string) (indexEntry, bool) {
	it, _ := p.get(name)
	e := indexEntry{CA: it.ca, NotAfter: it.ends, RenewAt: it.due.Truncate(time.Second), Leaf: it.leaf, ID: it.id, Issued: it.issued, Early: it.early, Gone: it.gone}
	if it.said != nil && it.said.Asked != 0 {
		e.Said = it.said
	}
	return e, it.ca != ""
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
	if it.ca != "" && !it.stale && (cert != nil || !t.listed) && !r.toVisited(t) && m.leftToOwner(it, it.ends, now) {
		return
	}
	unsaved := m.unsaved.get(name) != nil
	if !unsaved && !m.fresh(cert, now) && !it.stale && m.leftUs(ctx, r, t, it, now) {
		return
	}
	if !unsaved && (cert != nil || !t.listed) && m.planner.owed(name, r.ARI, now) { // the order reads it, under the lease
		m.order(wish{name: name, kind: kindRenew, issuer: it.ca, loyal: m.loyalUntil(it.identity)})
		return
	}
	if !unsaved && (it.stale || !m.fresh(cert, now)) {
		reading, cancel := context.WithTimeout(ctx, storeTimeout)
		defer cancel()
		var err error
		if cert, _, err = m.fetch(reading, name); err != nil {
			if ctx.Err() == nil {
				m.log.Warn("stored certificate cannot be read, looking again soon", zap.String("name", name), zap.Error(err))
			}
			m.planner.retry(name, true)
			return
		}
	}
	switch {
	case m.fresh(cert, now) && !unsaved:
		m.install(cert)
	case !t.listed && cert != nil && now.After(cert.until.Add(forgetAfter)), !t.listed && cert == nil && m.endedLongAgo(name): // the latter: another process was faster
		m.sweepEnded(ctx, name)
	case !r.toVisited(t) && m.leftToOwner(it, endOf(cert), now):
	case t.gated && cert == nil && it.ca == "" && !m.stillAllowed(ctx, r, name):
	case cert.serves(now):
		m.take(cert)
		m.order(wish{name: name, kind: kindRenew, issuer: cert.ca, loyal: m.loyalUntil(cert.identity())})
	default:
		m.order(wish{name: name, kind: kindNew})
	}
}

// stillAllowed asks again about a name that had to wait for its first certificate, and forgets it if it was denied meanwhile.
func (m *Manager) stillAllowed(ctx context.Context, r *rules, name string) bool {
	if r.Permission == nil {
		m.planner.forget(name)
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := r.Permission.Allow(ctx, subject(name), netip.Addr{})
	switch {
	case errors.Is(err, permission.ErrDenied):
		m.planner.forget(name)
	case err != nil:
		m.planner.retry(name, true)
	}
	return err == nil
}

// toVisited reports whether the name is renewed by the process that its visitors come to, whoever has its shard.
func (r *rules) toVisited(t target) bool { return r.VisitedOnly && t.gated }

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
func (m *Manager) order(w wish) {
	if _, err := m.queue.want(w); errors.Is(err, errBusy) {
		m.planner.retry(w.name, true) // no room; otherwise the end of the order plans the next look
	}
}

// forget drops a name from planning and index. Its certificate, if any, stays in storage: see sweepEnded.
func (m *Manager) forget(name string) {
	m.planner.forget(name)
	m.index.remove(name)
}
