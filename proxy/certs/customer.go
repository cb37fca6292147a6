package certs

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// Answer is what the endpoint that is asked said of a name.
type Answer struct {
	Allowed bool
	Tenant  string // whose name it is; may be empty
	To      string // the upstream for it; may be empty

	err   error     // it could not tell; the rest is what it said before
	asked time.Time // when it said so
	fresh time.Time // until when it is not asked again
}

// holds reports whether the answer can be taken without asking.
func (v Answer) holds(now time.Time) bool { return v.err == nil && now.Before(v.fresh) }

// refreshPause is how long a request that finds an old answer, while the endpoint fails, does not make us ask again.
const refreshPause = 10 * time.Second

// Told returns what was last said of the name, from memory; false if nothing was. Nobody is asked.
func (a *Ask) Told(name string) (Answer, bool) {
	answer, ok := a.answers.get(name)
	if !ok || answer.asked.IsZero() {
		return Answer{}, false
	}
	return answer, true
}

// Answer is Told for whoever sends requests there: an answer that is too old to be taken without asking is asked for again in the background, and the next
// caller has the new one.
func (a *Ask) Answer(name string) (Answer, bool) {
	answer, ok := a.Told(name)
	if !ok {
		return Answer{}, false
	}
	pause := time.Duration(0)
	if answer.err != nil {
		pause = refreshPause
	}
	if now := time.Now(); !now.Before(answer.fresh.Add(pause)) {
		a.refresh(name)
	}
	return answer, true
}

// refresh asks for the name unless somebody does, or too many do.
func (a *Ask) refresh(name string) {
	if len(a.places) == cap(a.places) {
		return
	}
	f, mine := a.flight(name)
	if !mine {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx.Err() != nil { // closed: nobody waits for us any more
		delete(a.flights, name)
		f.answer = Answer{err: errors.New("the ask endpoint is not asked any more")}
		close(f.done)
		return
	}
	a.own.Go(func() { a.fly(a.ctx, name, netip.Addr{}, f) })
}

// Recall takes over what was said of a name in a former life, or to another node, where nothing later is known.
func (a *Ask) Recall(name string, answer Answer) {
	if _, ok := a.answers.get(name); ok || answer.asked.IsZero() {
		return
	}
	a.answers.put(name, answer, time.Now().Add(a.keeps(answer)))
}

// Inherit takes over what another Ask was told, as answers that are too old to be taken without asking.
func (a *Ask) Inherit(old *Ask) {
	old.answers.each(func(name string, answer Answer) {
		answer.fresh = time.Time{}
		if answer.Allowed {
			a.Recall(name, answer)
		}
	})
}

// OnChange makes f hear of names whose tenant or upstream changes.
func (a *Ask) OnChange(f func(ctx context.Context, name string, answer Answer)) { a.changed.Store(&f) }

// A customerPermission says whose names are, and where they go, and can be told what it said before.
type customerPermission interface {
	Answer(name string) (Answer, bool)
	Recall(name string, answer Answer)
	OnChange(f func(ctx context.Context, name string, answer Answer))
}

var _ customerPermission = (*Ask)(nil)

// extraCustomer is the field of a bundle (storage.Bundle.Extra) with what was said of its name when it was last asked about, so that a customer's requests
// find their way after a restart whatever has become of the endpoint.
const extraCustomer = "customer"

// customer is that field.
type customer struct {
	Tenant string    `json:"tenant,omitempty"`
	To     string    `json:"to,omitempty"`
	Asked  time.Time `json:"asked"`
}

// customerOf returns what a bundle says. Nothing, or what cannot be read, is the zero Answer.
func customerOf(b *storage.Bundle) Answer {
	var c customer
	if raw, ok := b.Extra[extraCustomer]; !ok || json.Unmarshal(raw, &c) != nil {
		return Answer{}
	}
	return Answer{Allowed: true, Tenant: c.Tenant, To: c.To, asked: c.Asked}
}

// customerField is the field for an answer; nil if there is nothing to keep.
func customerField(a Answer) json.RawMessage {
	if a.asked.IsZero() {
		return nil
	}
	field, err := json.Marshal(customer{a.Tenant, a.To, a.asked.UTC().Truncate(time.Second)})
	if err != nil {
		return nil // cannot happen: strings and a time
	}
	return field
}

// recallCustomer tells Permission what the bundle of a name says.
func (m *Manager) recallCustomer(name string, b *storage.Bundle) {
	if p, ok := m.rules.Load().Permission.(customerPermission); ok {
		if a := customerOf(b); a.Allowed {
			p.Recall(subject(name), a)
		}
	}
}

// keepCustomer writes what was said of a name beside its certificate. Where somebody else writes just now, the next order does.
func (m *Manager) keepCustomer(ctx context.Context, name string, a Answer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	b, version, err := storage.LoadBundle(ctx, m.store, certObject(name), m.log)
	if errors.Is(err, storage.ErrNotExist) {
		return
	}
	if err == nil {
		changed := *b
		changed.Extra = withExtra(b.Extra, extraCustomer, customerField(a))
		var data []byte
		if data, err = changed.Encode(); err == nil {
			_, err = m.store.PutIf(ctx, certObject(name), data, version)
		}
	}
	if err != nil && !errors.Is(err, storage.ErrConflict) {
		m.log.Warn("where a customer's name goes could not be stored", zap.String("name", name), zap.Error(err))
	}
}

// withExtra returns the fields with one more; a nil value adds none.
func withExtra(fields map[string]json.RawMessage, name string, value json.RawMessage) map[string]json.RawMessage {
	if value == nil {
		return fields
	}
	more := map[string]json.RawMessage{name: value}
	for have, v := range fields {
		if have != name {
			more[have] = v
		}
	}
	return more
}
