package acmeclient

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"
)

// The reasons for which a subscriber may have a certificate revoked (RFC 5280 §5.3.1, Baseline Requirements 7.2.2). Let's Encrypt takes no others.
const (
	ReasonUnspecified          = 0
	ReasonKeyCompromise        = 1 // whoever has the key can sign for the names
	ReasonSuperseded           = 4 // there is another certificate
	ReasonCessationOfOperation = 5 // the names are no longer ours
)

// Revoke has the certificate at the head of the chain revoked (RFC 8555 §7.6), by the account, and if the CA refuses that and key is not nil, by the
// certificate's own key. It makes no account: without one, the key is needed. A certificate that is revoked already is no error.
//
// For ReasonKeyCompromise the key comes first: the CA blocks a key whose possession was shown, for everybody.
func (c *Client) Revoke(ctx context.Context, chain [][]byte, key crypto.Signer, reason int) error {
	if err := c.open(); err != nil {
		return err
	}
	if err := checkRevocation(chain, key, reason); err != nil {
		return err
	}
	d, err := c.speaker(ctx)
	if err != nil {
		return c.failed(ctx, err, nil)
	}
	byKey := func() error { return d.revoke(ctx, chain[0], key, reason) }
	byAccount := func() error { return c.revokeByAccount(ctx, d, chain[0], reason) }
	tries := []func() error{byAccount}
	switch {
	case key != nil && reason == ReasonKeyCompromise:
		tries = []func() error{byKey, byAccount}
	case key != nil:
		tries = []func() error{byAccount, byKey}
	}
	var errs []error
	for _, try := range tries {
		if err = try(); err == nil {
			c.log.Info("certificate revoked", zap.String("certificate", certificateID(chain)), zap.Int("reason", reason))
			return nil
		}
		errs = append(errs, err)
		var p *Problem
		if errors.As(err, &p) && p.scope == ScopeCA || ctx.Err() != nil {
			break // the other way leads to the same CA
		}
	}
	return errors.Join(errs...)
}

// errNoAccount is the error of a revocation by an account that does not exist.
var errNoAccount = errors.New("there is no account at the CA, and without one only the certificate's own key can revoke it")

func (c *Client) revokeByAccount(ctx context.Context, d dialect, cert []byte, reason int) error {
	acct, err := c.inTurn(ctx, func() (*account, error) { return c.storedAccount(ctx, d) })
	if err != nil {
		return err
	}
	if acct == nil {
		return errNoAccount
	}
	err = d.with(acct).revoke(ctx, cert, nil, reason)
	if now := c.rolled(ctx, d, acct, err); now != nil {
		err = d.with(now).revoke(ctx, cert, nil, reason)
	}
	return err
}

// checkRevocation refuses what the CA would refuse.
func checkRevocation(chain [][]byte, key crypto.Signer, reason int) error {
	if !slices.Contains([]int{ReasonUnspecified, ReasonKeyCompromise, ReasonSuperseded, ReasonCessationOfOperation}, reason) {
		return fmt.Errorf("revoke: reason %d is not for subscribers; use 0 (unspecified), 1 (key compromise), 4 (superseded) or 5 (cessation of operation)", reason)
	}
	if len(chain) == 0 {
		return errors.New("revoke: the chain is empty")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return fmt.Errorf("revoke: parse the certificate: %w", err)
	}
	public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if key != nil && (!ok || !public.Equal(key.Public())) {
		return errors.New("revoke: the key is not the certificate's")
	}
	return nil
}
