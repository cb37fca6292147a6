package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/certs/budget"
	"gatelodge/proxy/certs/memo"
	"gatelodge/storage"
)

// absentNames is how many names are remembered to have no stored certificate, about 100 bytes each.
const absentNames = 1 << 16

// Manager obtains, keeps, serves and renews the certificates of a proxy. Its life is New, Start, Close.
type Manager struct {
	store     storage.Store
	challenge func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	ownView   func(ctx context.Context, ca, name string, cause error) string // may be nil
	events    func(Event)                                                    // may be nil
	log       *zap.Logger
	metrics   Metrics

	applying sync.Mutex            // one Apply at a time
	rules    atomic.Pointer[rules] // replaced, never modified; never nil

	cache     *cache
	shield    *shield
	absent    *memo.Memo[string, struct{}]      // names without a stored certificate that serves, for Settings.Negative
	domains   *memo.Memo[string, time.Time]     // registered domains that a CA pauses, and until when
	withheld  *memo.Memo[string, *budget.Error] // names for which a budget had no room, until they are tried again
	told      *memo.Memo[string, struct{}]      // events, by kind and subject
	failures  *failures
	troubles  *memo.Memo[string, *FailureStatus] // see trouble
	logged    *memo.Memo[string, struct{}]       // names, see complain
	unsaved   unsaved
	inquiries inquiries
	queue     *queue
	budgets   *budget.Purses
	planner   *planner
	visits    *visits
	index     *index
	members   *members

	standIns standIns

	informants  informants
	revocations *revocations

	cold    atomic.Int64 // handshakes under way that are not warm
	patient atomic.Int64 // of them, those that wait for permission or an order

	mu     sync.Mutex      // guards what follows, and that no work begins once Close waits
	ctx    context.Context // of all work; nil before Start
	cancel context.CancelFunc
	closed bool
	work   sync.WaitGroup
}

// New builds a Manager and reads the sites' own certificates. It does nothing by itself before Start, but GetCertificate answers from memory.
func New(cfg Config, s Settings) (*Manager, error) {
	if cfg.Store == nil {
		return nil, errors.New("certs: Config.Store is missing")
	}
	if cfg.Logger == nil {
		return nil, errors.New("certs: Config.Logger is missing")
	}
	m := &Manager{
		store: cfg.Store, challenge: cfg.Challenge, ownView: cfg.View, events: cfg.Events, log: cfg.Logger.Named("certs"), metrics: cfg.Metrics,
		cache: newCache(), shield: newShield(), absent: memo.New[string, struct{}](absentNames), domains: memo.New[string, time.Time](absentNames),
		troubles: memo.New[string, *FailureStatus](failuresInMemory), logged: memo.New[string, struct{}](eventMemory), withheld: memo.New[string, *budget.Error](failuresInMemory),
		unsaved: unsaved{m: map[string]*issuance{}}, inquiries: inquiries{m: map[string]*inquiry{}}, planner: newPlanner(), visits: new(visits),
		informants: informants{m: map[string]*informant{}}, standIns: standIns{made: memo.New[string, *tls.Certificate](standInsKept)},
	}
	m.revocations = newRevocations(m.store, m.log)
	m.members = newMembers(m.store, m.log, cfg.Beat)
	m.members.failing = m.emitStorage
	m.planner.owns = m.members.owns
	m.failures, m.index, m.queue = newFailures(m.store, m.log), newIndex(m.store, m.log, m.members.self, m.planner.size), newQueue(m.log)
	m.told = memo.New[string, struct{}](eventMemory)
	m.index.seen, m.index.planned, m.planner.visits = m.visits, m.planner.entry, m.visits
	m.budgets = budget.New(m.store, m.log, m.emitBudget)
	m.queue.failing = m.emitCA
	m.queue.run, m.queue.cas, m.queue.tenant = m.obtain, m.casFor, func(name string) string { return m.rules.Load().tenant(name) }
	if m.metrics == nil {
		m.metrics = noMetrics{}
	}
	if m.challenge == nil {
		m.challenge = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
	}
	if err := m.Apply(s); err != nil {
		return nil, err
	}
	return m, nil
}

// Start begins to obtain and renew in the background, until ctx ends or Close is called. Only the first call does so.
func (m *Manager) Start(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx != nil || m.closed {
		return errors.New("certs: the manager was started before")
	}
	m.ctx, m.cancel = context.WithCancel(ctx)
	m.queue.start(m.ctx)
	for _, f := range []func(context.Context){m.plan, m.share, m.readIndex, m.inform, m.writeIndex, m.queue.patrol, m.watchFiles, m.resumeRevocations, m.budgets.GiveBack, m.preload,
		m.listHot, m.watchLateness} {
		m.work.Go(func() { f(m.ctx) })
	}
	return nil
}

// Close ends what runs and waits for it. Orders in progress are interrupted, and continued by the next process: their keys are stored. Handshakes
// that wait get an error.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	if m.cancel != nil {
		m.cancel()
	}
	m.mu.Unlock()
	m.queue.close()
	m.work.Wait()
}

// Apply replaces the settings. Certificates, orders under way, failures and what is planned are untouched; names that are listed now
// are obtained. On an error, which names everything that is wrong, the old settings stay.
func (m *Manager) Apply(s Settings) error {
	m.applying.Lock()
	defer m.applying.Unlock()
	before := m.rules.Load()
	r, err := newRules(s, before, m.log)
	if err != nil {
		return err
	}
	m.rules.Store(r)
	if p, ok := r.Permission.(customerPermission); ok {
		p.OnChange(m.keepCustomer)
	}
	m.cache.resize(r.CacheBytes)
	m.planner.reload(r.wanted())
	if before != nil && before.ARI != r.ARI {
		m.planner.turned(r.ARI, time.Now())
	}
	m.queue.apply(r.InFlight, r.Failover)
	return nil
}

// share shares the planning with other processes, until ctx ends.
func (m *Manager) share(ctx context.Context) { m.members.beat(ctx, m.planner.gained) }

// CacheBytes is about how much memory the certificates take that are kept for handshakes (see Settings.CacheBytes).
func (m *Manager) CacheBytes() int64 { return m.cache.bytes() }

// goWork runs f under the Manager's own context, and reports whether the Manager runs.
func (m *Manager) goWork(f func(ctx context.Context)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx == nil || m.closed || m.ctx.Err() != nil {
		return false
	}
	m.work.Go(func() { f(m.ctx) })
	return true
}

// life returns the context of all work; nil before Start.
func (m *Manager) life() context.Context {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ctx
}

// casFor names the CAs that may serve the name, in order.
func (m *Manager) casFor(name string) []string {
	r := m.rules.Load()
	t, ok := r.managed(name)
	if !ok {
		return nil
	}
	var names []string
	for _, ca := range r.cas(t) {
		names = append(names, ca.Issuer.Name())
	}
	return names
}

// noMetrics stands in for Config.Metrics.
type noMetrics struct{}

func (noMetrics) Handshake(string)                               {}
func (noMetrics) Issuance(string, string, string, time.Duration) {}
