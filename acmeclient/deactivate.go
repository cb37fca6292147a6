package acmeclient

import (
	"context"
	"fmt"

	"go.uber.org/zap"
)

// DeactivateAccount ends the account for good (RFC 8555 §7.3.6): the CA does nothing for it any more, and does not let its key register again. The stored account
// stays, as what it was; without it, another is made.
func (c *Client) DeactivateAccount(ctx context.Context) error {
	return c.deactivate(ctx, func(d dialect, acct *account) error {
		err := d.deactivateAccount(ctx)
		if err == nil {
			c.log.Warn("the account was deactivated by an operator", zap.String("account", acct.at(d.protocol())))
		}
		return err
	})
}

// DeactivateAuthorization ends a valid authorization of the account (RFC 8555 §7.5.2), by its URL as in Certificate.Authorizations, so that whoever gets hold of the
// account cannot have its name certified. It is for names that have left. One that is still pending must not be given: Let's Encrypt counts that as a
// failed validation.
func (c *Client) DeactivateAuthorization(ctx context.Context, url string) error {
	return c.deactivate(ctx, func(d dialect, _ *account) error { return d.deactivateAuthorization(ctx, url) })
}

// deactivate does something as the account that there is; it makes none.
func (c *Client) deactivate(ctx context.Context, do func(dialect, *account) error) error {
	if err := c.open(); err != nil {
		return err
	}
	d, err := c.speaker(ctx)
	if err != nil {
		return c.failed(ctx, err, nil)
	}
	acct, err := c.inTurn(ctx, func() (*account, error) { return c.storedAccount(ctx, d) })
	if err != nil {
		return c.failed(ctx, err, nil)
	}
	if acct == nil {
		return fmt.Errorf("there is no account at %s", c.cfg.Name)
	}
	if err := do(d.with(acct), acct); err != nil {
		return c.failed(ctx, err, nil)
	}
	return nil
}
