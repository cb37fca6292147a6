package certs

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	lookers   = 16              // names looked at together
	retryMin  = 5 * time.Second // after trouble with storage, doubled each time
	retryMax  = time.Minute
	restEvery = 24 * time.Hour // names that no site claims just now

	// forgetAfter is how long after its end an on-demand certificate is still renewed. A visitor brings the name back.
	forgetAfter = 14 * 24 * time.Hour
)

// planner knows when to look at a name next: every name that has a certificate or should have one, whether visited or not. It is a heap of times
// with one goroutine; what is to be done is seen when the time has come, in Manager.look.
type planner struct {
	mu    sync.Mutex // guards what follows
	items map[string]*planItem
	due   dueHeap
	wake  chan struct{} // has room for one: the earliest time has changed

	checks    checkHeap // see checks.go
	checkWake chan struct{}
}

// planItem is what the planner knows of a name, about 350 bytes with what its CA said.
type planItem struct {
	name  string
	due   time.Time
	pos   int       // in the heap; -1 while it is being looked at or has no time
	tries int       // troubles with storage in a row
	ca    string    // of the certificate; empty if we have not seen one
	ends  time.Time // of the certificate

	said     *suggestion // replaced, never modified; nil until we have seen a certificate
	check    time.Time   // when its CA is asked about it
	checkPos int         // in that heap; -1 while it has no time
	misses   int8        // questions in a row without an answer

	resting bool // nobody claims it
}

func newPlanner() *planner {
	return &planner{items: map[string]*planItem{}, wake: make(chan struct{}, 1), checkWake: make(chan struct{}, 1)}
}

// plan sets the time of the next look.
func (p *planner) plan(name string, due time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	it := p.itemLocked(name)
	it.tries, it.resting = 0, false
	p.planLocked(it, due)
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

// note tells what is known of the name's certificate, and reports whether that is news. It plans a look if the name was not known.
func (p *planner) note(name, ca string, ends, renewAt time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.items[name]
	it := p.itemLocked(name)
	news := it.ca != ca || !it.ends.Equal(ends)
	it.ca, it.ends = ca, ends
	if !known {
		p.planLocked(it, renewAt)
	}
	return news
}

func (p *planner) itemLocked(name string) *planItem {
	it := p.items[name]
	if it == nil {
		it = &planItem{name: name, pos: -1, checkPos: -1}
		p.items[name] = it
	}
	return it
}

func (p *planner) planLocked(it *planItem, due time.Time) {
	it.due = due
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
	if it.pos >= 0 {
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

// next takes a name that is due, or returns how long it is until one is.
func (p *planner) next(now time.Time) (name string, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.due) == 0 {
		return "", time.Hour
	}
	if first := p.due[0]; first.due.After(now) {
		return "", first.due.Sub(now)
	}
	return heap.Pop(&p.due).(*planItem).name, 0
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
		name, wait := m.planner.next(time.Now())
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
		m.planner.rest(name)
		return
	}
	now := time.Now()
	cert := m.cache.cert(name)
	if m.unsaved.get(name) == nil && !m.fresh(cert, now) {
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
	case !t.listed && cert != nil && now.After(cert.until.Add(forgetAfter)):
		m.forget(name)
	default:
		m.order(name, cert, now)
	}
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

// forget drops a name from planning and index. Its certificate, if any, stays in storage.
func (m *Manager) forget(name string) {
	m.planner.forget(name)
	m.index.remove(name)
}

// dueHeap implements heap.Interface.
type dueHeap []*planItem

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	it := x.(*planItem)
	it.pos = len(*h)
	*h = append(*h, it)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	it.pos = -1
	return it
}
