package acmeclient

import (
	"context"
	"errors"
	"slices"

	"go.uber.org/zap"
)

// tend does, once after the account was read, what has changed since it was last used: a roll-over of its key that was interrupted, contact addresses, the
// CA's terms. Only the first is needed to go on.
func (c *Client) tend(ctx context.Context, d dialect, acct *account) (*account, error) {
	if acct.Pending != nil {
		var err error
		if acct, err = c.settleUnderLease(ctx, d); err != nil {
			return nil, err
		}
	}
	contact, terms := !slices.Equal(acct.Contact, c.cfg.Contact), newTerms(d, acct)
	if !contact && terms == "" {
		return acct, nil
	}
	tended, err := c.underLease(ctx, func(ctx context.Context) (*account, error) {
		return c.tendLeased(ctx, d, contact, terms)
	})
	if err == nil {
		return tended, nil
	}
	var p *Problem
	if errors.As(err, &p) && p.Status >= 400 && p.Status < 500 {
		c.log.Error("the CA does not take the account's new contact addresses; the old ones stay", zap.Strings("contact", c.cfg.Contact), zap.Error(err))
	} else {
		c.log.Warn("the account could not be brought up to date; that is done at the next start", zap.Error(err))
	}
	return acct, ctx.Err()
}

// newTerms returns the URL of terms of service that are not those agreed to; empty if there are none.
//
// A new URL alone is no reason to stop: most CAs let accounts go on. One that does not refuses with userActionRequired, and then a person acts.
func newTerms(d dialect, acct *account) string {
	v, ok := d.(*v2) // v1 asks for each account's agreement by itself
	if !ok || v.dir.terms == acct.Terms {
		return ""
	}
	return v.dir.terms
}

// tendLeased tells the CA the contact addresses, and remembers what the CA's terms are now.
func (c *Client) tendLeased(ctx context.Context, d dialect, contact bool, terms string) (*account, error) {
	acct, version, err := c.loadAccount(ctx)
	if err != nil || acct == nil {
		return nil, errors.Join(err, errAccountGone)
	}
	next := *acct
	if contact && !slices.Equal(acct.Contact, c.cfg.Contact) { // another node may have done it
		if err := d.with(acct).update(ctx, c.cfg.Contact); err != nil {
			return nil, err
		}
		next.Contact = c.cfg.Contact
		c.log.Info("contact of the account changed", zap.Strings("contact", next.Contact))
	}
	if terms != "" && terms != acct.Terms {
		next.Terms = terms
		c.log.Warn("the CA has new terms of service: read them", zap.String("terms", terms), zap.String("agreed_to", acct.Terms))
	}
	if _, err := c.storeAccount(ctx, &next, version); err != nil {
		return nil, err
	}
	return &next, nil
}

// errAccountGone is the error of work on an account whose object was removed in the meantime.
var errAccountGone = errors.New("the account's record is gone")
