package acmeclient

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// RollKey gives the account a new key (RFC 8555 §7.3.5). The account's URL stays, and with it CAA and DNS records that name it.
//
// The new key is stored before the CA is told, and takes the old one's place after it agreed. Should this process die in between, whoever reads the account
// next asks the CA which of the two counts. Other nodes learn of the new key when the CA refuses the old one. A validation that is under way meanwhile
// may fail, since its answer is signed by the key.
func (c *Client) RollKey(ctx context.Context) (*Account, error) {
	if err := c.open(); err != nil {
		return nil, err
	}
	d, _, err := c.dialect(ctx) // an account, with its key settled
	if err != nil {
		return nil, c.failed(ctx, err, nil)
	}
	acct, err := c.inTurn(ctx, func() (*account, error) {
		acct, err := c.underLease(ctx, func(ctx context.Context) (*account, error) { return c.rollLeased(ctx, d) })
		if err == nil {
			c.accounts.set(acct)
		}
		return acct, err
	})
	if err != nil {
		return nil, fmt.Errorf("change the key of the account: %w", err)
	}
	return &Account{URL: acct.at(d.protocol()), Contact: acct.Contact, Created: acct.Created}, nil
}

// rollLeased does the steps of a roll-over.
func (c *Client) rollLeased(ctx context.Context, d dialect) (*account, error) {
	acct, version, err := c.loadAccount(ctx)
	if err != nil || acct == nil {
		return nil, errors.Join(err, errAccountGone)
	}
	if acct.Pending != nil {
		if acct, version, err = c.settle(ctx, d, acct, version); err != nil {
			return nil, err
		}
	}
	key, der, err := newAccountKey()
	if err != nil {
		return nil, err
	}
	pending := *acct
	pending.Pending = der
	if version, err = c.storeAccount(ctx, &pending, version); err != nil {
		return nil, err
	}
	err = d.with(acct).changeKey(ctx, key)
	switch {
	case err == nil:
		acct, _, err = c.promote(ctx, &pending, version)
		return acct, err
	case refused(err):
		_, _, dropErr := c.dropPending(ctx, &pending, version)
		return nil, errors.Join(err, dropErr)
	}
	settled, _, settleErr := c.settle(ctx, d, &pending, version)
	switch {
	case settleErr != nil: // it is asked again when the account is next read
		return nil, err
	case sameKey(settled.key, key): // the CA had agreed, only its answer was lost
		return settled, nil
	}
	return nil, err
}

// refused reports whether the CA answered and said no, or would have.
func refused(err error) bool {
	var p *Problem
	return errors.As(err, &p) && (p.Status >= 400 && p.Status < 500 || refusedHere(err))
}

// settleUnderLease ends a roll-over that was interrupted.
func (c *Client) settleUnderLease(ctx context.Context, d dialect) (*account, error) {
	return c.underLease(ctx, func(ctx context.Context) (*account, error) {
		acct, version, err := c.loadAccount(ctx) // whoever held the lease before may have been the one who rolls
		switch {
		case err != nil || acct == nil:
			return nil, errors.Join(err, errAccountGone)
		case acct.Pending == nil:
			return acct, nil
		}
		acct, _, err = c.settle(ctx, d, acct, version)
		return acct, err
	})
}

// settle asks the CA whether the account's key is the pending one or the old one, and makes that the account's.
func (c *Client) settle(ctx context.Context, d dialect, acct *account, version storage.Version) (*account, storage.Version, error) {
	key, err := parseAccountKey(acct.Pending)
	if err != nil {
		return nil, "", &storage.CorruptError{Name: c.accountName(), Err: fmt.Errorf("pending key: %w", err)}
	}
	url, err := d.with(acct).find(ctx, key)
	switch {
	case err == nil && url == acct.at(d.protocol()):
		return c.promote(ctx, acct, version)
	case err != nil && !isKind(err, "accountDoesNotExist"):
		return nil, "", err
	}
	// The old one counts, or the account is lost, which shows at the next order.
	if _, err := d.with(acct).find(ctx, acct.key); err != nil && !isKind(err, "accountDoesNotExist") {
		return nil, "", err
	}
	c.log.Warn("a change of the account's key had not reached the CA; the old key stays")
	return c.dropPending(ctx, acct, version)
}

// promote makes the pending key the account's.
func (c *Client) promote(ctx context.Context, acct *account, version storage.Version) (*account, storage.Version, error) {
	next := *acct
	var err error
	if next.key, err = parseAccountKey(acct.Pending); err != nil {
		return nil, "", &storage.CorruptError{Name: c.accountName(), Err: fmt.Errorf("pending key: %w", err)}
	}
	next.Key, next.Pending = acct.Pending, nil
	if version, err = c.storeAccount(ctx, &next, version); err != nil {
		return nil, "", err
	}
	c.log.Info("account key changed", zap.String("account", next.URL))
	return &next, version, nil
}

func (c *Client) dropPending(ctx context.Context, acct *account, version storage.Version) (*account, storage.Version, error) {
	next := *acct
	next.Pending = nil
	version, err := c.storeAccount(ctx, &next, version)
	return &next, version, err
}

// rolled returns the account with the key that counts now, if cause is such that the CA may have refused the key and if it is another than the
// refused one: another node has rolled it over. Otherwise it is nil.
func (c *Client) rolled(ctx context.Context, d dialect, refused *account, cause error) *account {
	if !isKind(cause, "malformed") && !isKind(cause, "unauthorized") && !isKind(cause, "accountDoesNotExist") {
		return nil
	}
	acct, err := c.inTurn(ctx, func() (*account, error) {
		if known := c.accounts.get(); known != nil && !sameKey(known.key, refused.key) {
			return known, nil
		}
		return c.readAccount(ctx, d)
	})
	if err != nil {
		c.log.Warn("look whether the account's key was changed", zap.Error(err))
	}
	if acct == nil || sameKey(acct.key, refused.key) {
		return nil
	}
	return acct
}
