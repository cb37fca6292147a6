package acmeclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// begin places a new order and stores it before anything else happens.
func (c *Client) begin(ctx context.Context, d dialect, a *attempt) (dialect, *order, error) {
	d, o, err := c.place(ctx, d, a)
	if err != nil {
		return nil, nil, err
	}
	if d.protocol() == ProtocolV1 {
		c.negotiator.usedV1()
	}
	if err := c.storeOrder(ctx, d, a, o); err != nil {
		return nil, nil, err
	}
	if !sameIdentifiers(o.identifiers, a.names) {
		a.dead = true
		c.orders.forget(ctx, a.object)
		return nil, nil, c.strange("place the order", errors.New("the CA made an order for other names than asked"))
	}
	return d, o, nil
}

// storeOrder stores an order that is new to us.
func (c *Client) storeOrder(ctx context.Context, d dialect, a *attempt, o *order) error {
	a.placed, a.profile = time.Now(), a.options.profile
	c.strays.settle(a.object, !a.resumed)
	return c.orders.saveNew(ctx, a.object, orderRecord{
		URL: o.url, Authorizations: o.authorizations, Account: a.account.at(d.protocol()), Protocol: d.protocol(), Profile: a.profile,
		Names: a.names, Placed: a.placed.UTC(), Expires: o.expires,
	}, c.pace.store)
}

// place sends the order. What the CA refuses for a reason that can be mended is sent again, once per reason.
func (c *Client) place(ctx context.Context, d dialect, a *attempt) (dialect, *order, error) {
	var ids []identifier
	for _, n := range a.names {
		ids = append(ids, identify(n))
	}
	var m mended
	for {
		undo, err := a.mayPlace(ctx)
		if err != nil {
			return nil, nil, err
		}
		if ctx.Err() != nil {
			undo()
			return nil, nil, fmt.Errorf("place the order (nothing was sent): %w", context.Cause(ctx))
		}
		placing, cancel := lasting(ctx, placingGrace)
		o, err := d.begin(placing, ids, a.options)
		cancel()
		if err == nil {
			return d, o, nil
		}
		if notPlaced(err) {
			undo()
		} else {
			c.strays.raise(a.object, doubt{began: a.began, sent: time.Now()})
		}
		if d, err = c.mend(ctx, d, a, &m, err); err != nil {
			return nil, nil, err
		}
	}
}

// placingGrace is for the CA's answer to an order that was sent when our work was told to end: without it, our successor places another.
const placingGrace = 3 * time.Second

// lasting returns a context that ends a while after ctx was cancelled, but with its deadline.
func lasting(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	longer := context.WithoutCancel(ctx)
	var cancel context.CancelFunc
	if deadline, ok := ctx.Deadline(); ok {
		longer, cancel = context.WithDeadline(longer, deadline)
	} else {
		longer, cancel = context.WithCancel(longer)
	}
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return longer, func() { stop(); cancel() }
}

// mayPlace asks the caller, who keeps count.
func (a *attempt) mayPlace(ctx context.Context) (undo func(), err error) {
	undo = func() {}
	if a.placing == nil {
		return undo, nil
	}
	if told, err := a.placing(ctx, a.options.replaces != ""); err != nil {
		return nil, fmt.Errorf("place the order (nothing was sent): %w", err)
	} else if told != nil {
		undo = told
	}
	return undo, nil
}

// notPlaced reports whether there is no order for certain: the CA said so, or the request never left. An order during an outage costs its name and domain nothing.
func notPlaced(err error) bool {
	var p *Problem
	if !errors.As(err, &p) {
		return false
	}
	var dial *net.OpError
	return p.Status >= 400 || refusedHere(err) || p.Op == opNonce || isTLS(err) || errors.As(err, &dial) && dial.Op == "dial"
}

// mended is what was tried already to get an order placed.
type mended struct{ key, account, directory bool }

// mend removes the cause of a refusal and returns who speaks from now on, or the error if there is nothing to be done.
func (c *Client) mend(ctx context.Context, d dialect, a *attempt, m *mended, cause error) (dialect, error) {
	if now := c.rolled(ctx, d, a.account, cause); now != nil && !m.key {
		m.key, a.account = true, now
		return d.with(now), nil
	}
	switch {
	case isKind(cause, "accountDoesNotExist") && !m.account:
		acct, err := c.replaceLost(ctx, d, a.account)
		if err != nil {
			return nil, err
		}
		m.account, a.account = true, acct
		return d.with(acct), nil
	case isKind(cause, "invalidProfile") && a.options.profile != "":
		return c.mendProfile(ctx, d, a, m, cause)
	case a.options.replaces != "" && refusesReplaces(cause):
		c.log.Warn("the CA does not take the order as a replacement; it is placed as a new one", zap.Strings("names", a.names), zap.Error(cause))
		a.options.replaces = ""
		return d, nil
	}
	return nil, cause
}

// mendProfile looks whether the CA offers the profile by now, and goes on without it if that is allowed.
func (c *Client) mendProfile(ctx context.Context, d dialect, a *attempt, m *mended, cause error) (dialect, error) {
	if refusedHere(cause) && !m.directory {
		m.directory = true
		fresh, err := c.speaker(ctx)
		if err == nil && fresh.protocol() == d.protocol() {
			return fresh.with(a.account), nil
		}
	}
	if c.cfg.ProfileRequired {
		return nil, cause
	}
	c.log.Warn("the CA does not offer the profile; its default is used", zap.Strings("names", a.names), zap.String("profile", a.options.profile), zap.Error(cause))
	a.options.profile = ""
	return d, nil
}

// refusedHere reports whether the CA was not asked.
func refusedHere(err error) bool {
	var p *Problem
	return errors.As(err, &p) && p.Status == 0 && p.Err == nil
}

// refusesReplaces reports whether an order might be taken without `replaces`: any refusal that is not about something else for certain. Let's
// Encrypt uses 409, 404, 403 and 400 for the various ways in which a predecessor can be wrong.
func refusesReplaces(err error) bool {
	var p *Problem
	if !errors.As(err, &p) || p.Status < 400 || p.Status >= 500 || p.Status == http.StatusTooManyRequests {
		return false
	}
	switch kind(p.Type) {
	case "rateLimited", "rejectedIdentifier", "unsupportedIdentifier", "caa", "accountDoesNotExist", "userActionRequired", "invalidProfile", "badNonce":
		return false
	}
	return true
}

// sameIdentifiers reports whether the CA's order is for the sorted names. An order that does not repeat them is believed.
func sameIdentifiers(ids []identifier, names []string) bool {
	if len(ids) == 0 {
		return true
	}
	var got []string
	for _, id := range ids {
		got = append(got, strings.ToLower(id.Value))
	}
	slices.Sort(got)
	return slices.Equal(slices.Compact(got), names)
}
