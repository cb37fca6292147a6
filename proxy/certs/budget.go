package certs

import (
	"context"
	"errors"
	"time"

	"gatelodge/proxy/certs/budget"
	"gatelodge/proxy/certs/permission"
)

// Budget bounds what the whole fleet orders, so that we stop before a CA says no. It is for the CAs that everybody shares: neither the internal CA nor one
// with names of its own (CA.Names), or that is Unbudgeted, counts. The zero value bounds nothing.
//
// New names count everywhere. The successor of a certificate counts as a renewal, in Orders alone: it is one more order of the account, but
// no new name of its domain or tenant. It counts nowhere if the CA invited it: the order says what it replaces (RFC 9773 §5) and comes within the window that the CA
// gave, which Let's Encrypt exempts from all limits. What replaces a key that others know is counted, and never refused.
type Budget struct {
	Orders   Limit   // new orders, per CA and account
	Domain   Limit   // new names below one registered domain, per CA
	Tenant   Limit   // new names of one tenant; see Tenant
	Failures Limit   // failed orders of one name, whatever Settings.Backoff says
	Reserve  float64 // part of Orders that is kept for renewals, 0 to 1
}

// Limit is a count within any time of that length. A Count of zero means no limit.
type Limit = budget.Limit

// The budgets, as the configuration calls them.
const (
	budgetOrders = "new_orders"
	budgetDomain = "per_registered_domain"
	budgetTenant = "per_tenant"
)

// asBudget returns the refusal of a budget in err, nil if there is none. Nothing was sent to a CA then, and nothing is held against the name.
func asBudget(err error) *budget.Error {
	e, _ := errors.AsType[*budget.Error](err)
	return e
}

// sooner returns the one of two refusals that ends first; a may be nil.
func sooner(a, b *budget.Error) *budget.Error {
	if a == nil || b.Next.Before(a.Next) {
		return b
	}
	return a
}

// charges are what an order for the target at the CA counts against, unless the CA invited it.
func (r *rules) charges(t target, ca CA, renewal bool) []budget.Charge {
	if ca.Internal || ca.Unbudgeted || len(ca.Names) > 0 {
		return nil
	}
	b, name := r.Budget, ca.Issuer.Name()
	all := []budget.Charge{{
		Budget: budgetOrders, Account: name, Subject: "CA " + name, Object: ledgerObject(budgetOrders, name),
		Limit: b.Orders, Reserve: int(b.Reserve * float64(b.Orders.Count)), Renewal: renewal,
	}}
	if !renewal {
		domain, tenant := registeredDomain(subject(t.name)), r.tenant(t.name)
		account := name + " " + domain
		all = append(all,
			budget.Charge{Budget: budgetDomain, Account: account, Subject: domain + " at CA " + name, Object: ledgerObject(budgetDomain, account), Limit: b.Domain},
			budget.Charge{Budget: budgetTenant, Account: tenant, Subject: tenant, Object: ledgerObject(budgetTenant, tenant), Limit: b.Tenant})
	}
	bounded := all[:0]
	for _, c := range all {
		if c.Limit.Count > 0 {
			bounded = append(bounded, c)
		}
	}
	return bounded
}

// tenant is whose name it is: what the permission said, else the registered domain.
func (r *rules) tenant(name string) string {
	host := subject(name)
	if p, ok := r.Permission.(interface {
		Told(string) (permission.Answer, bool)
	}); ok {
		if answer, ok := p.Told(host); ok && answer.Tenant != "" {
			return answer.Tenant
		}
	}
	return registeredDomain(host)
}

// placing is Request.Placing: it pays for an order that is about to be placed at the CA.
func (a *attempt) placing(ctx context.Context, ca CA, replaces bool) (undo func(), err error) {
	if replaces && a.invited(ca, time.Now()) {
		return func() {}, nil
	}
	charges := a.r.charges(a.t, ca, a.stored != nil)
	var paid []*budget.Receipt
	undo = func() {
		for _, r := range paid {
			r.Refund()
		}
	}
	for _, c := range charges {
		r, err := a.budgets.Pay(ctx, c, a.o.kind == kindReplace)
		if err != nil {
			undo()
			if asBudget(err) == nil {
				err = &storageError{err}
			}
			return nil, err
		}
		paid = append(paid, r)
	}
	return undo, nil
}

// invited reports whether the CA asks for a successor of the stored certificate now (RFC 9773 §4.2). Whoever comes late is no longer invited, nor is
// anybody whose window was over when it was first seen: that is how CAs announce that they revoke, and many certificates at once.
func (a *attempt) invited(ca CA, now time.Time) bool {
	if a.stored == nil || a.stored.ca != ca.Issuer.Name() {
		return false
	}
	said := a.planner.suggested(a.stored.name, a.stored.leaf())
	return said.Renew != 0 && !now.Before(unixTime(said.Start)) && now.Before(unixTime(said.End))
}

// spent returns the budget that keeps every CA from the target, as far as memory knows; nil if one may have room. So a name that has to wait costs neither a lease nor a
// read of storage.
func (m *Manager) spent(r *rules, t target) *budget.Error {
	if it, ok := m.planner.get(t.name); ok && it.ca != "" {
		return nil // a renewal: the order sees what it counts against
	}
	var soonest *budget.Error
	now := time.Now()
	for _, ca := range r.cas(t) {
		var full *budget.Error
		for _, c := range r.charges(t, ca, false) {
			if e := m.budgets.Full(c, now); e != nil && (full == nil || e.Next.After(full.Next)) {
				full = e
			}
		}
		if full == nil {
			return nil
		}
		soonest = sooner(soonest, full)
	}
	return soonest
}
