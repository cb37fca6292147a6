package certs

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/certs/budget"
)

// Errors of handshakes that come when there is no room. They are values, so that a flood costs no allocation.
var (
	errBusy   = errors.New("certs: too many names or handshakes wait for certificates")
	errClosed = errors.New("certs: the manager is not running")
)

// Bounds of the queue, so that a flood of handshakes takes a known amount of memory.
const (
	maxOrders      = 20000 // names that wait for a certificate, a few hundred bytes each
	maxPerName     = 4096  // handshakes that wait for one name
	maxWaiting     = 16384 // handshakes that are not warm, all together
	maxPatient     = 12288 // of them, those that wait for permission or an order: some places stay free for names whose certificate lies in storage
	backlog        = 4     // renewals that are queued for each of the Settings.InFlight places
	urgentPlaces   = 8     // for orders that replace a key that others know, beyond Settings.InFlight
	blameForName   = 3     // times that a name may open a circuit that others close
	resumeInterval = time.Second
	trialWait      = 1500 * time.Millisecond // that a handshake waits for a trial: names fail within 2 s while a CA fails
)

// Kinds of orders.
const (
	kindNew     = "new"
	kindRenew   = "renew"
	kindReplace = "replace" // others know the key
)

// The states of an order. There is one order for a name at most, however many handshakes wait for it:
//
//	          want                 dispatch                done
//	(nothing) ────▶ orderQueued ───────────▶ orderRunning ──────▶ (nothing)
//	                  ▲   │ every CA fails        │ every CA failed
//	      CA works or │   ▼                       │
//	         trial    └─ orderParked ◀────────────┘
type orderState int

const (
	orderQueued  orderState = iota // waits for one of the InFlight places
	orderRunning                   // has a place, see Manager.obtain
	orderParked                    // its CAs fail: handshakes fail at once, the name is tried again by itself
)

func (s orderState) String() string {
	return [...]string{StateQueued, StateOrdering, StateWaiting}[s]
}

// order is the wish for a certificate of one name. The queue's mutex guards its fields but name and tenant.
type order struct {
	name, kind string
	tenant     string // whose turn it takes, see fairQueue

	number uint64 // counts orders as they come: among urgent ones, and among renewals, the lowest runs first

	tag float64 // of a new name: the lowest runs first, see fairQueue
	seq uint64  // counts new names as they get a tag: among equal tags the lowest runs first. Zero: it has no tag yet

	state  orderState
	cas    []string  // the CAs that may serve it, in order, as of when it was queued
	issuer string    // of the certificate that is to be renewed
	loyal  time.Time // until then only the first CA and the issuer are asked: see routeLocked
	prefer string    // the CA to ask first in this run, if it works; see attempt.preference
	wanted time.Time // when a visitor asked last: the most recent one is tried first when a CA may be back
	after  time.Time // a parked order that failed itself stays parked until then
	trial  string    // the failing CA for which this order is the trial
	blame  int       // how often it opened a circuit that another name closed at once
	err    error     // why it was parked
	over   []string  // CAs whose budget is used up: passed over in this run

	withheld *budget.Error // what it is parked for, if that is a budget
	round    *round        // what handshakes wait for now
	next     *round        // of the kindReplace that follows, since it was wanted when this one had its certificate already; nil: none does
}

// round is one wait for a result. A parked order begins a new one when it runs again.
type round struct {
	done    chan struct{} // closed when cert and err are final
	waiters int
	trial   bool // of a CA that fails, and may hang: nobody waits for it for long
	cert    *certificate
	err     error
}

// queue decides which order runs when. It owns the goroutines of running orders.
type queue struct {
	run func(ctx context.Context, o *order) (*certificate, error)
	cas func(name string) []string // the CAs that may serve the name, in order
	log *zap.Logger

	tenant func(name string) string // whose turn a name takes

	failing func(ca string, err error, next time.Time) // hears of a CA that has failed for a while

	parked chan struct{} // has room for one: there are parked orders

	wg sync.WaitGroup

	mu       sync.Mutex // guards what follows; never held during I/O
	ctx      context.Context
	orders   map[string]*order
	urgent   []*order   // queued, of kindReplace; they go before all others and have places of their own
	renewals []*order   // queued; they go before new names, whose visitors wait for a bounded time only
	fresh    *fairQueue // queued
	running  int
	retired  bool          // no order gets a place any more
	number   uint64        // of the order that came last
	pace     time.Duration // that orders take, of late
	limit    int           // see Settings.InFlight
	failover Failover
	circuits map[string]*circuit
	worse    bool // a CA has failed, or its trial is under way, since the queued orders were looked at; see parkHopelessLocked
}

// errParked is what an order ends a run with when every CA for it fails.
var errParked = errors.New("every CA for the name fails")

func newQueue(log *zap.Logger) *queue {
	return &queue{log: log, parked: make(chan struct{}, 1), orders: map[string]*order{}, circuits: map[string]*circuit{}, fresh: newFairQueue(), tenant: registeredDomain, failing: func(string, error, time.Time) {}}
}

// wish is what an order begins with.
type wish struct {
	name, kind string

	visitor bool      // somebody waits for it: it goes before others when a failing CA is tried
	issuer  string    // see order
	loyal   time.Time // see order
}

// want asks for a certificate and returns the round to wait for, or the reason why there is nothing to wait for.
func (q *queue) want(w wish) (*round, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.wantLocked(w)
}

func (q *queue) wantLocked(w wish) (*round, error) {
	if q.ctx == nil || q.ctx.Err() != nil {
		return nil, errClosed
	}
	now := time.Now()
	o := q.orders[w.name]
	if o == nil {
		tenant := q.tenant(w.name)
		if !q.fresh.enter(tenant, len(q.orders)) {
			return nil, errBusy
		}
		o = &order{name: w.name, kind: w.kind, tenant: tenant, issuer: w.issuer, loyal: w.loyal}
		if w.visitor {
			o.wanted = now
		}
		q.number++
		o.number = q.number
		q.orders[w.name] = o
		q.enqueueLocked(o)
		if !q.reachableLocked(o, now) { // its visitors would wait for their turn for nothing
			q.unqueueLocked(o)
			q.parkLocked(o)
		}
	}
	if w.loyal.Before(o.loyal) {
		o.loyal = w.loyal // the certificate it had is gone
	}
	switch {
	case w.kind == kindReplace && o.state == orderRunning && o.round.over():
		if o.next == nil { // what it is still tidying up after is what is to be replaced
			o.next = &round{done: make(chan struct{})}
		}
		return o.next, nil
	case w.kind == kindReplace && o.kind != kindReplace && o.state != orderRunning:
		q.hastenLocked(o)
	}
	if w.visitor {
		o.wanted = now
		q.hurryLocked(o)
	}
	if o.state == orderParked && !now.Before(o.after) && q.admitLocked(o, now) {
		q.enqueueLocked(o)
	}
	r := o.round
	q.dispatchLocked()
	if o.state == orderParked {
		return nil, o.err
	}
	return r, nil
}

// join is want for a first certificate that is being obtained already. It returns neither a round nor an error if there is no such order.
func (q *queue) join(name string) (*round, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if o := q.orders[name]; o == nil || o.kind != kindNew {
		return nil, nil
	}
	return q.wantLocked(wish{name: name, kind: kindNew, visitor: true})
}

// wait waits for the round's result, for as long as ctx lives.
func (q *queue) wait(ctx context.Context, r *round) (*certificate, error) {
	q.mu.Lock()
	if r.waiters >= maxPerName {
		q.mu.Unlock()
		return nil, errBusy
	}
	r.waiters++
	trial := r.trial
	q.mu.Unlock()
	if trial {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, trialWait, errParked)
		defer cancel()
	}
	defer func() {
		q.mu.Lock()
		r.waiters--
		q.mu.Unlock()
	}()
	select {
	case <-r.done:
		return r.cert, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// answer gives the certificate to those who wait, before the order has tidied up.
func (q *queue) answer(o *order, cert *certificate) {
	q.mu.Lock()
	defer q.mu.Unlock()
	o.round.end(cert, nil)
}

// end is called with the queue's mutex held. Only the first result counts.
func (r *round) end(cert *certificate, err error) {
	if !r.over() {
		r.cert, r.err = cert, err
		close(r.done)
	}
}

// over reports whether there is a result. It is called with the queue's mutex held.
func (r *round) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func (q *queue) enqueueLocked(o *order) {
	o.state, o.cas, o.round = orderQueued, q.cas(o.name), &round{done: make(chan struct{}), trial: o.trial != ""}
	o.withheld = nil
	list := q.listLocked(o)
	switch {
	case list == nil:
		q.fresh.push(o)
	case o.trial != "":
		*list = slices.Insert(*list, 0, o)
	default:
		*list = append(*list, o)
	}
}

// listLocked is where an order of its kind waits; nil for new names, which take turns.
func (q *queue) listLocked(o *order) *[]*order {
	switch o.kind {
	case kindReplace:
		return &q.urgent
	case kindRenew:
		return &q.renewals
	}
	return nil
}

// unqueueLocked takes an order out of where it waits.
func (q *queue) unqueueLocked(o *order) {
	if list := q.listLocked(o); list == nil {
		q.fresh.remove(o)
	} else if i := slices.Index(*list, o); i >= 0 {
		*list = slices.Delete(*list, i, i+1)
	}
}

// hastenLocked makes an order that does not run yet one of kindReplace.
func (q *queue) hastenLocked(o *order) {
	if o.state == orderQueued {
		q.unqueueLocked(o)
		q.urgent = append(q.urgent, o)
	}
	if o.withheld != nil {
		o.after = time.Time{} // no budget holds it back any more
	}
	o.kind = kindReplace
}

// dispatchLocked starts queued orders while there are places.
func (q *queue) dispatchLocked() {
	if q.ctx.Err() != nil {
		return
	}
	now := time.Now()
	for o := q.nextLocked(); o != nil; o = q.nextLocked() {
		if o.trial == "" && !q.admitLocked(o, now) {
			q.parkLocked(o)
			continue
		}
		o.state = orderRunning
		q.running++
		q.wg.Go(func() { q.work(o) })
	}
	if q.worse {
		q.worse = false
		q.parkHopelessLocked(now)
	}
}

// nextLocked takes the next order from the queue for which there is a place: an urgent one, a trial, a renewal, a new name.
func (q *queue) nextLocked() *order {
	list, fresh := &q.renewals, q.fresh.first()
	switch {
	case q.retired:
		return nil
	case len(q.urgent) > 0 && q.running < q.limit+urgentPlaces:
		list = &q.urgent
	case q.running >= q.limit:
		return nil
	case fresh != nil && (len(q.renewals) == 0 || fresh.trial != "" && q.renewals[0].trial == ""):
		return q.fresh.pop()
	case len(q.renewals) == 0:
		return nil
	}
	o := (*list)[0]
	*list = (*list)[1:]
	return o
}

// work runs an order that has a place.
func (q *queue) work(o *order) {
	began := time.Now()
	cert, err := q.run(q.ctx, o)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	if err == nil {
		q.pacedLocked(time.Since(began))
	}
	switch e := asBudget(err); {
	case errors.Is(err, errParked):
		q.parkLocked(o)
	case e != nil && e.Budget == budgetOrders:
		q.withholdLocked(o, e)
	default:
		o.round.end(cert, err)
		q.endLocked(o)
	}
	q.dispatchLocked()
}

// endLocked takes the order out. The one that was wanted while it tidied up follows in its place.
func (q *queue) endLocked(o *order) {
	if o.next != nil && q.ctx.Err() == nil {
		follower := &order{name: o.name, kind: kindReplace, tenant: o.tenant, number: o.number}
		q.orders[o.name] = follower
		q.enqueueLocked(follower)
		follower.round = o.next
		return
	}
	delete(q.orders, o.name)
	q.fresh.leave(o.tenant)
	if o.next != nil {
		o.next.end(nil, errClosed)
	}
}

// backlogged reports whether more renewals are queued than the planner needs to hand over ahead: the rest waits there, in the order of urgency.
func (q *queue) backlogged() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.renewals) > backlog*q.limit
}

// start lets orders run until ctx ends.
func (q *queue) start(ctx context.Context) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ctx = ctx
}

// apply takes over new settings: another limit, and other CAs for those who wait.
func (q *queue) apply(limit int, failover Failover) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit, q.failover = limit, failover
	if q.ctx == nil {
		return
	}
	now := time.Now()
	for _, c := range q.circuits {
		c.hasten(now) // the reload may have mended what failed
	}
	for _, o := range q.orders {
		o.cas = q.cas(o.name)
		if o.withheld != nil {
			o.after = time.Time{} // there may be more room now
		}
	}
	q.worse = true // the CAs that are left may be those that fail
	q.resumeLocked()
	q.dispatchLocked()
}

// close lets everybody go, after the context of start has ended, and waits for the running orders to end with it.
func (q *queue) close() {
	q.mu.Lock()
	for _, o := range q.orders {
		if o.state == orderQueued {
			o.round.end(nil, errClosed)
		}
	}
	q.urgent, q.renewals = nil, nil
	q.fresh.clear()
	q.mu.Unlock()
	q.wg.Wait()
}
