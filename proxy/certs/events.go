package certs

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/certs/budget"
)

// EventKind says what happened.
type EventKind string

// The kinds of events. A person should hear of each of them, once.
const (
	EventPaused  EventKind = "ca_paused_name"       // the CA takes no more orders for a name until somebody has been there
	EventBudget  EventKind = "budget_used_up"       // a budget of ours holds orders back
	EventCADown  EventKind = "ca_fails"             // orders wait for a CA
	EventStorage EventKind = "storage_fails"        // storage cannot be written, or not be read
	EventLate    EventKind = "renewal_late"         // certificates are not renewed although their time came long ago
	EventFloor   EventKind = "certificate_near_end" // certificates have less of their life left than Settings.ExpiryFloor, or none
)

// Event is something that a person may have to act upon. It has no secrets.
type Event struct {
	Kind    EventKind `json:"kind"`
	At      time.Time `json:"at"`
	Subject string    `json:"subject,omitempty"` // the name, CA, or whose budget it is; empty for the whole process
	CA      string    `json:"ca,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Advice  string    `json:"advice,omitempty"`
	Next    time.Time `json:"next_attempt,omitzero"`

	// Count and Names tell of several certificates: how many, and the first of them.
	Count int      `json:"count,omitempty"`
	Names []string `json:"names,omitempty"`
}

// The rhythm of events.
const (
	eventAgain   = time.Hour // an event of the same kind and subject is not repeated before
	eventMemory  = 4096
	lateEvery    = time.Hour
	lateBy       = 1.0 / 12 // of the lifetime after the time for its renewal
	lateExamples = 10       // names in one event
)

// emit tells the log and Config.Events, unless it did a while ago. The queue calls it with its mutex held.
func (m *Manager) emit(e Event) {
	key := string(e.Kind) + " " + e.Subject
	if _, told := m.told.Get(key); told {
		return
	}
	e.At = time.Now()
	m.told.Put(key, struct{}{}, e.At.Add(eventAgain))
	m.log.Warn("event", e.fields()...)
	if m.events != nil {
		m.events(e)
	}
}

// fields are those that are not empty, for the log.
func (e *Event) fields() []zap.Field {
	fields := []zap.Field{zap.String("kind", string(e.Kind))}
	for _, f := range []struct{ key, value string }{{"subject", e.Subject}, {"ca", e.CA}, {"reason", e.Reason}, {"advice", e.Advice}} {
		if f.value != "" {
			fields = append(fields, zap.String(f.key, f.value))
		}
	}
	if e.Count > 0 {
		fields = append(fields, zap.Int("count", e.Count), zap.Strings("names", e.Names))
	}
	if !e.Next.IsZero() {
		fields = append(fields, zap.Time("next_attempt", e.Next))
	}
	return fields
}

// emitFailure tells of a name that its CA has paused; others are told of by their status.
func (a *attempt) emitFailure(rec *failureRecord) {
	if rec.Paused && (a.prior == nil || !a.prior.Paused) {
		a.emit(Event{Kind: EventPaused, Subject: subject(a.o.name), CA: rec.CA, Reason: rec.Reason, Advice: rec.Problem.Advice, Next: rec.Next})
	}
}

// emitBudget tells of a budget without room.
func (m *Manager) emitBudget(e *budget.Error) {
	m.emit(Event{Kind: EventBudget, Subject: e.Budget + " of " + e.Subject, Reason: e.Error(), Next: e.Next,
		Advice: "raise issue.budget." + e.Budget + " if the CA allows more; what waits goes on by itself"})
}

// emitCA tells of a CA for which orders have waited for a while.
func (m *Manager) emitCA(ca string, err error, next time.Time) {
	m.emit(Event{Kind: EventCADown, Subject: ca, CA: ca, Reason: err.Error(), Next: next, Advice: advise(problemOf(err), scopeOf(err), err).Advice})
}

// emitStorage tells of storage that does not do what it is for.
func (m *Manager) emitStorage(err error) {
	m.emit(Event{Kind: EventStorage, Reason: err.Error(), Advice: advise(Problem{}, ScopeStorage, err).Advice})
}

// watchLateness looks every hour for certificates of our shards that are late, until ctx ends.
func (m *Manager) watchLateness(ctx context.Context) {
	for sleep(ctx, lateEvery) {
		m.lookForLate(time.Now())
	}
}

// lookForLate tells of certificates that are late, all together: an outage concerns many, and a person once.
func (m *Manager) lookForLate(now time.Time) {
	r := m.rules.Load()
	var late, near Event
	late.Kind, near.Kind = EventLate, EventFloor
	bounds := lateBounds{r.RenewAt, r.ExpiryFloor}
	m.planner.eachLate(now, bounds, func(it *packedItem) {
		if now.After(bounds.floorOf(it)) {
			near.add(it.name())
		} else {
			late.add(it.name())
		}
	})
	near.Reason, near.Advice = "less of their life is left than alert.expiry_floor says", "see what `gatelodge certs list --failing` says of them"
	late.Reason, late.Advice = "their time for renewal came long ago", near.Advice
	for _, e := range []Event{near, late} {
		if e.Count > 0 {
			slices.Sort(e.Names)
			m.emit(e)
		}
	}
}

func (e *Event) add(name string) {
	if e.Count++; len(e.Names) < lateExamples {
		e.Names = append(e.Names, subject(name))
	}
}
