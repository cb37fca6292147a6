package certs

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/certs/permission"
	"gatelodge/storage"
)

// A customerPermission says whose names are, and where they go, and can be told what it said before.
type customerPermission interface {
	Answer(name string) (permission.Answer, bool)
	Recall(name string, answer permission.Answer)
	OnChange(f func(ctx context.Context, name string, answer permission.Answer))
}

var _ customerPermission = (*permission.Ask)(nil)

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
func customerOf(b *storage.Bundle) permission.Answer {
	var c customer
	if raw, ok := b.Extra[extraCustomer]; !ok || json.Unmarshal(raw, &c) != nil {
		return permission.Answer{}
	}
	return permission.Answer{Allowed: true, Tenant: c.Tenant, To: c.To, Asked: c.Asked}
}

// customerField is the field for an answer; nil if there is nothing to keep.
func customerField(a permission.Answer) json.RawMessage {
	if a.Asked.IsZero() {
		return nil
	}
	field, err := json.Marshal(customer{a.Tenant, a.To, a.Asked.UTC().Truncate(time.Second)})
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
func (m *Manager) keepCustomer(ctx context.Context, name string, a permission.Answer) {
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
