package certs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/certs/permission"
	"gatelodge/storage"
)

// Bounds of the first look at a name.
const (
	loadTimeout  = 500 * time.Millisecond // one read of storage, in a handshake
	maxInquiries = 1024                   // for unknown names at a time; those we know are never kept out by strangers
)

// errShielded ends the handshake of a client that brings too many unknown names; see shield.
var errShielded = errors.New("certs: the client brings too many unknown names")

// verdict is what a first look at a name found.
type verdict int

const (
	undecided verdict = iota
	loaded            // a stored certificate that serves
	denied            // nobody wants a certificate for it
	wanted            // there is none, and there should be
)

// finding is the result of a first look.
type finding struct {
	verdict verdict
	cert    *certificate // loaded
	round   *round       // wanted: the order that is on its way
}

// inquiry is one flight: whoever else asks for the name meanwhile waits for its result.
type inquiry struct {
	done    chan struct{} // closed when finding and err are final
	waiters int
	finding finding
	err     error
}

// inquiries are the flights under way, one for a name.
type inquiries struct {
	mu sync.Mutex // guards m and the waiters in it; never held during I/O
	m  map[string]*inquiry
}

// seek finds the certificate for a target that is not in memory: in storage, or by an order if one is allowed. It waits as long as ctx lives.
func (m *Manager) seek(ctx context.Context, r *rules, t target, client netip.Addr) (cert *certificate, result string, err error) {
	round, err := m.queue.join(t.name)
	if round == nil && err == nil {
		if cert := m.cache.cert(t.name); cert.serves(time.Now()) {
			return cert, "warm", nil // an order has just ended
		}
		var f finding
		f, err = m.inquire(ctx, r, t, client)
		if err == nil && f.verdict == loaded {
			return f.cert, "loaded", nil
		}
		if err == nil && f.verdict == denied {
			return nil, "denied", nil
		}
		round = f.round
	}
	if err != nil {
		return nil, "failed", err
	}
	defer m.patient.Add(-1)
	if m.patient.Add(1) > maxPatient {
		return nil, "failed", errBusy
	}
	if cert, err = m.queue.wait(ctx, round); err != nil {
		return nil, "failed", err
	}
	return cert, "issued", nil
}

// inquire answers from memory if it can, else joins or starts the one flight that looks at the name.
func (m *Manager) inquire(ctx context.Context, r *rules, t target, client netip.Addr) (finding, error) {
	if v, err := m.recall(r, t); v != undecided || err != nil {
		return m.act(t, v, nil, err)
	}
	known := m.knownName(r, t)
	if !known {
		defer m.patient.Add(-1)
		if m.patient.Add(1) > maxPatient {
			return finding{}, errBusy
		}
	}
	q := &m.inquiries
	q.mu.Lock()
	f := q.m[t.name]
	switch {
	case f != nil && f.waiters >= maxPerName, f == nil && !known && len(q.m) >= maxInquiries:
		q.mu.Unlock()
		return finding{}, errBusy
	case f == nil && !known && !m.shield.take(client, r.UnknownPerClient):
		q.mu.Unlock()
		return finding{}, errShielded
	case f == nil:
		f = &inquiry{done: make(chan struct{})}
		if !m.goWork(func(ctx context.Context) { m.fly(ctx, f, r, t, client, known) }) {
			q.mu.Unlock()
			return finding{}, errClosed
		}
		q.m[t.name] = f
	}
	f.waiters++
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		f.waiters--
		q.mu.Unlock()
	}()
	select {
	case <-f.done:
		return f.finding, f.err
	case <-ctx.Done():
		return finding{}, context.Cause(ctx)
	}
}

// act orders the certificate if one is wanted, so that there is no moment between flight and order in which another flight could begin.
func (m *Manager) act(t target, v verdict, cert *certificate, err error) (finding, error) {
	f := finding{verdict: v, cert: cert}
	if err == nil && v == wanted {
		f.round, err = m.queue.want(wish{name: t.name, kind: kindNew, visitor: true})
	}
	return f, err
}

// recall decides what memory alone can decide, so that a flood of handshakes for a name that is denied or held back costs nothing else.
func (m *Manager) recall(r *rules, t target) (verdict, error) {
	if t.gated && !m.planner.knows(t.name) && !sane(subject(t.name), r.private(t)) {
		return denied, nil
	}
	if _, ok := m.absent.Get(t.name); !ok && !t.brief {
		return undecided, nil
	}
	if err := m.heldBack(t.name); err != nil {
		return undecided, err
	}
	if !t.gated && !t.brief {
		return wanted, nil
	}
	if known, ok := r.Permission.(KnownPermission); ok && t.gated {
		if allowed, ok := known.Known(subject(t.name)); ok && allowed {
			return wanted, nil
		} else if ok {
			return denied, nil
		}
	}
	return undecided, nil
}

// knownName reports whether the name is one that does not count against its client: listed, planned, or known to be allowed.
func (m *Manager) knownName(r *rules, t target) bool {
	if t.listed || m.planner.knows(t.name) || m.planner.knows(subject(t.name)) {
		return true
	}
	p, ok := r.Permission.(KnownPermission)
	if !ok || !t.gated {
		return false
	}
	allowed, known := p.Known(subject(t.name))
	return known && allowed
}

// fly looks at the name for all who wait.
func (m *Manager) fly(ctx context.Context, f *inquiry, r *rules, t target, client netip.Addr, known bool) {
	ctx, cancel := context.WithTimeout(ctx, r.MaxWait)
	defer cancel()
	v, cert, err := m.lookAt(ctx, r, t, client)
	if err == nil && !known && (v == loaded || v == wanted && !t.brief) {
		m.shield.giveBack(client, r.UnknownPerClient)
	}
	f.finding, f.err = m.act(t, v, cert, err)
	m.inquiries.mu.Lock()
	delete(m.inquiries.m, t.name)
	m.inquiries.mu.Unlock()
	close(f.done)
}

// lookAt reads storage once and asks for permission if there is nothing that serves. A stored certificate is served without asking anybody.
func (m *Manager) lookAt(ctx context.Context, r *rules, t target, client netip.Addr) (verdict, *certificate, error) {
	if _, absent := m.absent.Get(t.name); !absent && !t.brief {
		cert, err := m.load(ctx, t.name)
		if err != nil {
			return undecided, nil, err
		}
		if cert.serves(time.Now()) {
			return loaded, cert, nil
		}
		// Ended or absent: both are remembered, and an order looks again.
		m.absent.Put(t.name, struct{}{}, time.Now().Add(r.Negative))
	}
	if err := m.heldBack(t.name); err != nil {
		return undecided, nil, err
	}
	if !t.gated {
		return wanted, nil, nil
	}
	host := subject(t.name)
	if !sane(host, r.private(t)) || r.Permission == nil {
		return denied, nil, nil
	}
	switch err := r.Permission.Allow(ctx, host, client); {
	case errors.Is(err, permission.ErrDenied):
		return denied, nil, nil
	case err != nil:
		return undecided, nil, fmt.Errorf("ask whether %s may have a certificate: %w", host, err)
	}
	return wanted, nil, nil
}

// load reads the certificate for a handshake and takes it into use if it serves.
func (m *Manager) load(ctx context.Context, name string) (*certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	cert, _, err := m.fetch(ctx, name)
	if err == nil && cert.serves(time.Now()) {
		m.install(cert)
	}
	return cert, err
}

// fetch reads the stored certificate of the name; nil if there is none that is whole and may be served. What is damaged is put aside first (see
// storage.LoadBundle). An error means that we do not know, which is never an absence: nothing is ordered then. A certificate that a local copy has from before an
// outage (storage.Version.Stale) is returned if it serves; what it is not says nothing of what is stored.
func (m *Manager) fetch(ctx context.Context, name string) (*certificate, storage.Version, error) {
	object := certObject(name)
	b, version, err := storage.LoadBundle(ctx, m.store, object, m.log)
	if errors.Is(err, storage.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the certificate of %s: %w", name, err)
	}
	if b.Lost != nil {
		m.log.Warn("stored certificate is good, what is stored about it is not", zap.String("name", name), zap.Error(b.Lost))
	}
	m.recallCustomer(name, b)
	cert, err := newCertificate(name, b, m.rules.Load().RenewAt)
	refused := err == nil && m.revocations.refuses(cert)
	switch {
	case version.Stale() && (err != nil || refused || !cert.serves(time.Now())):
		return nil, "", fmt.Errorf("read the certificate of %s: %w", name, storage.ErrStale) // storage may have another
	case refused:
		return nil, version, nil // on its way out
	case err == nil:
		return cert, version, nil
	}
	if err := storage.Quarantine(ctx, m.store, object, &storage.CorruptError{Name: object, Err: err, Version: version}, m.log); err != nil {
		return nil, "", fmt.Errorf("put the certificate of %s aside: %w", name, err)
	}
	return nil, "", nil
}

// loadStored is storage.LoadBundle for those who decide by what is stored: a local copy from before an outage is an error.
func loadStored(ctx context.Context, s storage.Store, object string, log *zap.Logger) (*storage.Bundle, storage.Version, error) {
	b, version, err := storage.LoadBundle(ctx, s, object, log)
	if err == nil && version.Stale() {
		return nil, "", fmt.Errorf("read %s: %w", object, storage.ErrStale)
	}
	return b, version, err
}

// private reports whether a CA of our own would issue for the target, the internal one or one configured for just these names: it may
// take names that no public CA takes.
func (r *rules) private(t target) bool {
	cas := r.cas(t)
	return len(cas) > 0 && (cas[0].Internal || cas[0].matches(subject(t.name)))
}
