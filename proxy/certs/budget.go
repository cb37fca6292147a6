package certs

import (
	"context"
	"errors"
	"fmt"
	"time"
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
type Limit struct {
	Count int
	Per   time.Duration
}

func (l Limit) String() string { return fmt.Sprintf("%d in %s", l.Count, l.Per) }

// The budgets, as the configuration calls them.
const (
	budgetOrders = "new_orders"
	budgetDomain = "per_registered_domain"
	budgetTenant = "per_tenant"
)

// A BudgetError says that an order would go beyond a budget of ours. Nothing was sent to a CA, and nothing is held against the name.
type BudgetError struct {
	Budget  string // as the configuration calls it
	Subject string // the CA, registered domain or tenant
	Limit   Limit
	Next    time.Time // there should be room again

	again time.Time // it is worth looking: another process may have given something back
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("the budget issue.budget.%s of %s is used up (%s), there may be room at %s", e.Budget, e.Subject, e.Limit, e.Next.UTC().Format(time.RFC3339))
}

// asBudget returns the BudgetError in err, nil if there is none.
func asBudget(err error) *BudgetError {
	e, _ := errors.AsType[*BudgetError](err)
	return e
}

// sooner returns the one of two refusals that ends first; a may be nil.
func sooner(a, b *BudgetError) *BudgetError {
	if a == nil || b.Next.Before(a.Next) {
		return b
	}
	return a
}

// charge is one budget that an order counts against.
type charge struct {
	budget  string
	account string // whose, in storage
	subject string // whose, for a person
	limit   Limit
	reserve int // of limit, for renewals
	renewal bool
}

// charges are what an order for the target at the CA counts against, unless the CA invited it.
func (r *rules) charges(t target, ca CA, renewal bool) []charge {
	if ca.Internal || ca.Unbudgeted || len(ca.Names) > 0 {
		return nil
	}
	b, name := r.Budget, ca.Issuer.Name()
	all := []charge{{budgetOrders, name, "CA " + name, b.Orders, int(b.Reserve * float64(b.Orders.Count)), renewal}}
	if !renewal {
		domain, tenant := registeredDomain(subject(t.name)), r.tenant(t.name)
		all = append(all, charge{budgetDomain, name + " " + domain, domain + " at CA " + name, b.Domain, 0, false}, charge{budgetTenant, tenant, tenant, b.Tenant, 0, false})
	}
	bounded := all[:0]
	for _, c := range all {
		if c.limit.Count > 0 {
			bounded = append(bounded, c)
		}
	}
	return bounded
}

// tenant is whose name it is: what the permission said, else the registered domain.
func (r *rules) tenant(name string) string {
	host := subject(name)
	if p, ok := r.Permission.(interface{ Told(string) (Answer, bool) }); ok {
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
	var paid []*receipt
	undo = func() {
		for _, r := range paid {
			r.refund()
		}
	}
	for _, c := range charges {
		r, err := a.budgets.pay(ctx, c, a.o.kind == kindReplace)
		if err != nil {
			undo()
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
func (m *Manager) spent(r *rules, t target) *BudgetError {
	if it, ok := m.planner.get(t.name); ok && it.ca != "" {
		return nil // a renewal: the order sees what it counts against
	}
	var soonest *BudgetError
	now := time.Now()
	for _, ca := range r.cas(t) {
		var full *BudgetError
		for _, c := range r.charges(t, ca, false) {
			if e := m.budgets.full(c, now); e != nil && (full == nil || e.Next.After(full.Next)) {
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
