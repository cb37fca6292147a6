package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"iter"
	"maps"
	"slices"
	"time"

	"gatelodge/proxy/certs/permission"
	"gatelodge/storage"
)

// The states of a name.
const (
	StateServing    = "serving"              // a certificate is in use
	StateRenewing   = "renewing"             // and its successor is being obtained
	StateOwnFile    = "own file"             // the site brings its certificate
	StateQueued     = "queued"               // a first certificate waits for its turn
	StateOrdering   = "ordering"             // a first certificate is being obtained
	StateWaiting    = "waiting for the CA"   // every CA for it fails; it is tried again by itself
	StateWithheld   = "waiting for a budget" // what we order is bounded (Settings.Budget); it is tried again by itself
	StateBackingOff = "backing off"          // the last attempt failed; see Status.NextAttempt
	StateAbandoned  = "abandoned"            // the certificate is not renewed any more, see Status.Abandoned; it is served as long as it lives
	StateExpired    = "expired"              // the certificate has ended and is not served
	StateAbsent     = "absent"               // there is none, and nobody has asked
	StateUnknown    = "unknown"              // storage cannot be read, see Status.Unread
	StateNotOurs    = "not ours"             // no site claims the name
)

// Status is what a person should know of a name (`gatelodge certs show NAME`).
type Status struct {
	Name string `json:"name"`           // what the certificate is for
	For  string `json:"for,omitempty"`  // the host that was asked about, if it is served with a wildcard's certificate
	Site string `json:"site,omitempty"` // empty if no site claims the name

	State string `json:"state"` // one of the State constants

	CA        string    `json:"ca,omitempty"` // who issued the certificate
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	RenewAt   time.Time `json:"renew_at,omitzero"`

	// Renewal is when the CA wants it renewed; nil if it does not say. RenewAt is the time we chose.
	Renewal *RenewalStatus `json:"renewal,omitempty"`

	Issued time.Time `json:"issued,omitzero"`
	Serial string    `json:"serial,omitempty"` // hexadecimal
	Issuer string    `json:"issuer,omitempty"` // the common name of who signed it
	Key    string    `json:"key,omitempty"`    // its kind, as in Settings.Keys

	MayIssue    []string       `json:"may_issue,omitempty"` // the CAs that may issue for the name, in order
	Attempts    int            `json:"attempts,omitempty"`  // failures since the last success
	NextAttempt time.Time      `json:"next_attempt,omitzero"`
	LastFailure *FailureStatus `json:"last_failure,omitempty"`

	// OnVisit means that no certificate is obtained without a visitor. NextAttempt is then the time before which none brings it about.
	OnVisit bool `json:"on_visit,omitempty"`

	// Abandoned says why and since when the name is given up; nil if it is not.
	Abandoned *AbandonedStatus `json:"abandoned,omitempty"`

	// Where an order stands that waits: 1 is the next of this process. Expected is a guess. Budget is the one that holds it back, as the configuration calls it.
	Position int       `json:"position,omitempty"`
	Expected time.Time `json:"expected,omitzero"`
	Budget   string    `json:"budget,omitempty"`

	// Holder is who holds the name's lease, as far as storage tells; empty for nobody.
	Holder string `json:"holder,omitempty"`

	// Permission is what this process remembers of whether the name may have a certificate; nil for names that need none.
	Permission *permission.Report `json:"permission,omitempty"`

	// Revocations are those of certificates of the name that have not ended yet, the latest first.
	Revocations []Revocation `json:"revocations,omitempty"`

	// Unread is why nothing could be read from storage: the rest is what this process remembers. Empty: it could.
	Unread string `json:"unread,omitempty"`

	Tenant string            `json:"tenant,omitempty"` // whose name it is: what the permission said, else its registered domain
	Notes  map[string]string `json:"notes,omitempty"`

	// Second is about the host's second certificate, for clients that cannot use the main one; nil if none is configured.
	Second *Status `json:"second,omitempty"`
}

// RenewalStatus is what a CA says about the renewal of a certificate (RFC 9773). A window that is over means: as soon as possible.
type RenewalStatus struct {
	Start       time.Time `json:"start"`
	End         time.Time `json:"end"`
	Explanation string    `json:"explanation,omitempty"` // URL of a page for a person
	Asked       time.Time `json:"asked,omitzero"`        // when the CA said so last; zero: when it issued the certificate
	NextCheck   time.Time `json:"next_check,omitzero"`
}

// FailureStatus is the last failure of a name, or of the CA that it waits for. Its Advice says what to do.
type FailureStatus struct {
	At     time.Time `json:"at,omitzero"` // zero: when another name of its domain failed
	CA     string    `json:"ca,omitempty"`
	Scope  string    `json:"scope"` // one of the Scope constants
	Reason string    `json:"reason"`
	Paused bool      `json:"paused,omitempty"` // the CA takes no more orders for the name until a person has been there
	View   string    `json:"view,omitempty"`   // how the name looked from here
	Problem
}

// AbandonedStatus is why a name is not renewed any more, and since when, if that is known.
type AbandonedStatus struct {
	Reason string    `json:"reason"`
	Since  time.Time `json:"since,omitzero"`
}

// Names returns the hosts and wildcards that have a certificate, should have one, or failed to get one, as far as this process has heard of them; sorted.
func (m *Manager) Names() []string {
	all := m.planner.subjects(nil)
	m.cache.names(func(name string) { all = append(all, subject(name)) })
	m.failures.known.Each(func(name string, _ *failureRecord) { all = append(all, subject(name)) })
	m.troubles.Each(func(name string, _ *FailureStatus) { all = append(all, subject(name)) })
	for _, name := range m.queue.names() {
		all = append(all, subject(name))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Status tells about the name, a host or a wildcard in canonical form. What is not in memory is read from storage; the error is that of reading, and the rest is
// what memory knows.
func (m *Manager) Status(ctx context.Context, name string) (Status, error) {
	s, t := m.begin(subject(name))
	if t.file != nil {
		return s, nil
	}
	err := m.tell(ctx, &s, t)
	if second, ok := m.second(s, t); ok {
		err = errors.Join(err, m.tell(ctx, second, target{name: second.Name}))
		s.Second = second
	}
	return s, err
}

// second begins the status of the host's second certificate.
func (m *Manager) second(s Status, t target) (*Status, bool) {
	t, ok := m.rules.Load().secondOf(t)
	if !ok || s.Site == "" {
		return nil, false
	}
	return &Status{Name: t.name, Site: s.Site, State: StateAbsent, MayIssue: s.MayIssue}, true
}

// tell completes the status of one certificate.
func (m *Manager) tell(ctx context.Context, s *Status, t target) error {
	cert, rec := m.cache.cert(t.name), m.failures.remembered(t.name)
	var err, err2 error
	if !t.brief {
		var stored *certificate
		if stored, _, err = m.fetch(ctx, t.name); cert == nil {
			cert = stored
		} else if err = nil; stored != nil && stored.sum == cert.sum {
			cert = stored // with its notes, which memory has not
		}
	}
	if rec == nil && !t.brief {
		rec, err2 = m.failures.read(ctx, t.name)
	}
	m.finish(s, t, cert, rec)
	if err = errors.Join(err, err2); err != nil {
		s.Unread = err.Error()
		if m.foresee(s, cert); s.State == StateAbsent {
			s.State = StateUnknown
		}
	}
	m.tellAbandoned(s)
	m.tellPermission(s, t)
	for _, r := range m.Revocations() {
		if subject(r.Name) == t.name { // of a second certificate too, which may not be configured any more
			s.Revocations = append(s.Revocations, r)
		}
	}
	if !t.brief {
		s.Holder = m.holder(ctx, t.name)
	}
	if w := m.queue.standing(t.name); w.position > 0 {
		s.Position, s.Expected = w.position, w.expected
	}
	return err
}

// tellPermission says what is remembered of the name's permission, if it needs one.
func (m *Manager) tellPermission(s *Status, t target) {
	if p, ok := m.rules.Load().Permission.(permission.Reporter); ok && t.gated {
		report := p.Report(subject(t.name))
		s.Permission = &report
	}
}

// holder is who orders the name's certificate just now, as far as storage tells; where it cannot, nobody is named.
func (m *Manager) holder(ctx context.Context, name string) string {
	if state, ok := m.queue.state(name); ok && state == orderRunning {
		return "this process"
	}
	who, err := storage.LeaseHolder(ctx, m.store, issueLease(name))
	if err != nil {
		return ""
	}
	return who
}

// remembered is Status without storage. Of a certificate that is not in memory it knows who issued it and when it ends.
func (m *Manager) remembered(name string) Status {
	s, t := m.begin(name)
	if t.file != nil {
		return s
	}
	m.recollect(&s, t)
	if second, ok := m.second(s, t); ok {
		m.recollect(second, target{name: second.Name})
		s.Second = second
	}
	return s
}

// recollect is tell without storage.
func (m *Manager) recollect(s *Status, t target) {
	cert := m.cache.cert(t.name)
	m.finish(s, t, cert, m.failures.remembered(t.name))
	m.foresee(s, cert)
	m.tellAbandoned(s)
}

// foresee adds what the planner knows of a certificate that is not in memory.
func (m *Manager) foresee(s *Status, cert *certificate) {
	if it, ok := m.planner.get(s.Name); ok && cert == nil && !it.ends.IsZero() {
		s.CA, s.NotAfter, s.RenewAt = it.ca, it.ends, it.due
		if it.said != nil {
			s.Renewal = m.renewalStatus(*it.said, Window{})
		}
		if s.State == StateAbsent && time.Now().Before(it.ends) {
			s.State = StateServing
		}
	}
}

// begin says whose the name is, and all there is to say of a site's own file.
func (m *Manager) begin(name string) (Status, target) {
	r := m.rules.Load()
	t, claimed := r.resolve(probe(name))
	s := Status{Name: name, State: StateNotOurs}
	if !claimed {
		return s, target{name: name}
	}
	s.State, s.Tenant = StateAbsent, r.tenant(name)
	if s.Site = t.policy.Site; t.name != probe(name) && t.name != name {
		s.Name, s.For = t.name, name
	} else {
		t.name = name
	}
	if t.file == nil {
		for _, ca := range r.cas(t) {
			s.MayIssue = append(s.MayIssue, ca.Issuer.Name())
		}
		return s, t
	}
	s.State = StateOwnFile
	if c := t.file.cert.Load(); c != nil {
		s.leaf(c.Leaf)
	}
	return s, t
}

func (s *Status) leaf(c *x509.Certificate) {
	s.NotBefore, s.NotAfter, s.Serial, s.Issuer = c.NotBefore, c.NotAfter, c.SerialNumber.Text(16), c.Issuer.CommonName
	s.Key = string(keyTypeOf(c.PublicKey))
}

func (m *Manager) finish(s *Status, t target, cert *certificate, rec *failureRecord) {
	if cert != nil {
		s.leaf(cert.tls.Leaf)
		s.CA, s.RenewAt, s.Issued, s.Notes = cert.ca, m.renewAt(cert), cert.issued, cert.notes
		s.Renewal = m.renewalStatus(m.planner.suggested(cert.name, cert.leaf()), cert.window)
	}
	if rec != nil && !(cert != nil && cert.issued.After(rec.Last)) {
		s.Attempts, s.NextAttempt = rec.Count, rec.Next
		s.LastFailure = &FailureStatus{rec.Last, rec.CA, rec.Scope, rec.Reason, rec.Paused, rec.View, advise(rec.Problem, rec.Scope, nil)}
	}
	now := time.Now()
	if trouble, ok := m.troubles.Get(t.name); ok && (s.LastFailure == nil || trouble.At.After(s.LastFailure.At)) {
		s.LastFailure = trouble
	}
	order, ordered := m.queue.state(t.name)
	switch {
	case cert.serves(now) && ordered && order == orderRunning:
		s.State = StateRenewing
	case cert.serves(now):
		s.State = StateServing
	case ordered:
		s.State = order.String()
	case rec.backingOff(now):
		s.State = StateBackingOff
	case m.tellPause(s, t):
		s.State = StateBackingOff
	case cert != nil:
		s.State = StateExpired
	}
	m.queue.describe(s)
	if e, waits := m.withheld.Get(t.name); waits && s.State == StateAbsent {
		s.State, s.Budget, s.NextAttempt = StateWithheld, e.Budget, e.Next
	}
	if e := m.spent(m.rules.Load(), t); s.Budget == "" && e != nil && (s.State == StateAbsent || s.State == StateQueued) {
		s.Budget, s.NextAttempt = e.Budget, e.Next
	}
	s.OnVisit = s.Site != "" && !cert.serves(now) && !ordered && !m.planner.knows(t.name)
}

// tellPause reports whether a CA pauses the name's registered domain, and says so in the status.
func (m *Manager) tellPause(s *Status, t target) bool {
	until, ok := m.domains.Get(registeredDomain(subject(t.name)))
	if ok {
		s.NextAttempt = until
		s.LastFailure = &FailureStatus{Scope: ScopeDomain, Reason: errPaused, Problem: advise(Problem{}, ScopeDomain, nil)}
	}
	return ok
}

func (m *Manager) renewalStatus(said suggestion, issued Window) *RenewalStatus {
	switch {
	case said.Renew != 0 && m.rules.Load().ARI:
		return &RenewalStatus{unixTime(said.Start), unixTime(said.End), said.URL, unixTime(said.Asked), unixTime(said.Next)}
	case issued.End.After(issued.Start):
		return &RenewalStatus{Start: issued.Start, End: issued.End}
	}
	return nil
}

// Expiries yields the end of every certificate that some site claims, for a metric of days left.
func (m *Manager) Expiries() iter.Seq[time.Time] {
	return func(yield func(time.Time) bool) {
		for _, end := range m.planner.ends() {
			if !yield(end.time()) {
				return
			}
		}
		for _, f := range m.rules.Load().files.all() {
			if c := f.cert.Load(); c != nil && !yield(c.Leaf.NotAfter) {
				return
			}
		}
	}
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
	if e := o.withheld; e != nil {
		s.State, s.Budget, s.NextAttempt = StateWithheld, e.Budget, e.Next
		return
	}
	for _, ca := range o.cas {
		if c := q.circuits[ca]; c != nil && c.open {
			s.NextAttempt = c.next
			s.LastFailure = &FailureStatus{c.failed, ca, scopeOf(c.err), c.err.Error(), false, "", problemOf(c.err)}
			return
		}
	}
}
