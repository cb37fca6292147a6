package certs

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// Status is what a person should know of a name (`gatelodge certs show NAME`).
type Status struct {
	Name string `json:"name"`           // what the certificate is for
	For  string `json:"for,omitempty"`  // the host that was asked about, if it is served with a wildcard's certificate
	Site string `json:"site,omitempty"` // empty if no site claims the name

	// State is one of "serving", "renewing", "queued", "ordering", "waiting for the CA", "backing off", "expired", "absent", "own file",
	// "not ours".
	State string `json:"state"`

	CA        string    `json:"ca,omitempty"` // who issued the certificate
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	RenewAt   time.Time `json:"renew_at,omitzero"`
	Issued    time.Time `json:"issued,omitzero"`
	Serial    string    `json:"serial,omitempty"` // hexadecimal
	Issuer    string    `json:"issuer,omitempty"` // the common name of who signed it

	MayIssue    []string          `json:"may_issue,omitempty"` // the CAs that may issue for the name, in order
	Attempts    int               `json:"attempts,omitempty"`  // failures since the last success
	NextAttempt time.Time         `json:"next_attempt,omitzero"`
	LastFailure *FailureStatus    `json:"last_failure,omitempty"`
	Notes       map[string]string `json:"notes,omitempty"`
}

// FailureStatus is the last failure of a name, or of the CA that it waits for.
type FailureStatus struct {
	At     time.Time `json:"at"`
	CA     string    `json:"ca,omitempty"`
	Scope  string    `json:"scope"`
	Reason string    `json:"reason"`
	Problem
}

// Names returns the names that have a certificate, should have one, or failed to get one, as far as this process has heard of them; sorted.
func (m *Manager) Names() []string {
	all := map[string]bool{}
	for _, it := range m.planner.all() {
		all[it.name] = true
	}
	m.cache.each(func(c *certificate) { all[c.name] = true })
	m.failures.known.each(func(name string, _ *failureRecord) { all[name] = true })
	for _, name := range m.queue.names() {
		all[name] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// Status tells about the name, a host or a wildcard in canonical form. What is not in memory is read from storage.
func (m *Manager) Status(ctx context.Context, name string) (Status, error) {
	r := m.rules.Load()
	t, claimed := r.resolve(probe(name))
	s := Status{Name: name}
	if !claimed {
		t = target{name: name}
	} else if s.Site = t.policy.Site; t.name != name {
		s.Name, s.For = t.name, name
	}
	if t.file != nil {
		if c := t.file.cert.Load(); c != nil {
			s.dates(c.Leaf.NotBefore, c.Leaf.NotAfter)
			s.Serial, s.Issuer = c.Leaf.SerialNumber.Text(16), c.Leaf.Issuer.CommonName
		}
		s.State = "own file"
		return s, nil
	}
	for _, ca := range r.cas(t) {
		s.MayIssue = append(s.MayIssue, ca.Issuer.Name())
	}
	cert, rec, err := m.known(ctx, t)
	if cert != nil {
		leaf := cert.tls.Leaf
		s.dates(leaf.NotBefore, leaf.NotAfter)
		s.CA, s.RenewAt, s.Issued, s.Notes = cert.ca, cert.renewAt, cert.issued, cert.notes
		s.Serial, s.Issuer = leaf.SerialNumber.Text(16), leaf.Issuer.CommonName
	}
	if rec != nil && !(cert != nil && cert.issued.After(rec.Last)) {
		s.Attempts, s.NextAttempt = rec.Count, rec.Next
		s.LastFailure = &FailureStatus{rec.Last, rec.CA, rec.Scope, rec.Reason, rec.Problem}
	}
	s.State = m.state(t, cert, rec, claimed)
	m.queue.describe(&s)
	return s, err
}

func (s *Status) dates(from, to time.Time) { s.NotBefore, s.NotAfter = from, to }

// known gathers what memory and storage know.
func (m *Manager) known(ctx context.Context, t target) (*certificate, *failureRecord, error) {
	cert, rec := m.cache.cert(t.name), m.failures.remembered(t.name)
	if t.brief {
		return cert, rec, nil
	}
	var err, err2 error
	if cert == nil {
		cert, _, err = m.fetch(ctx, t.name)
	}
	if rec == nil {
		rec, err2 = m.failures.read(ctx, t.name)
	}
	return cert, rec, errors.Join(err, err2)
}

// state says in a word how the name stands.
func (m *Manager) state(t target, cert *certificate, rec *failureRecord, claimed bool) string {
	now := time.Now()
	order, ordered := m.queue.state(t.name)
	switch {
	case !claimed && cert == nil:
		return "not ours"
	case cert.serves(now) && ordered && order == orderRunning:
		return "renewing"
	case cert.serves(now):
		return "serving"
	case ordered:
		return order.String()
	case rec.backingOff(now):
		return "backing off"
	case cert != nil:
		return "expired"
	}
	return "absent"
}

// Expiries returns the end of every certificate known that some site claims, for a metric of days left.
func (m *Manager) Expiries() []time.Time {
	var ends []time.Time
	for _, it := range m.planner.all() {
		if !it.ends.IsZero() && !it.resting {
			ends = append(ends, it.ends)
		}
	}
	for _, f := range m.rules.Load().files.all() {
		if c := f.cert.Load(); c != nil {
			ends = append(ends, c.Leaf.NotAfter)
		}
	}
	return ends
}

// names returns the names of all orders.
func (q *queue) names() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Collect(maps.Keys(q.orders))
}

// state returns the state of the name's order, if there is one.
func (q *queue) state(name string) (orderState, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if o := q.orders[name]; o != nil {
		return o.state, true
	}
	return 0, false
}

// describe adds what a parked order waits for.
func (q *queue) describe(s *Status) {
	q.mu.Lock()
	defer q.mu.Unlock()
	o := q.orders[s.Name]
	if o == nil || o.state != orderParked {
		return
	}
	for _, ca := range o.cas {
		if c := q.circuits[ca]; c != nil && c.open {
			s.NextAttempt = c.next
			s.LastFailure = &FailureStatus{c.failed, ca, scopeOf(c.err), c.err.Error(), problemOf(c.err)}
			return
		}
	}
}
