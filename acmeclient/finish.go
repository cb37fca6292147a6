package acmeclient

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
)

// How often the CSR is sent: thrice to a CA that fails, five times to one whose nodes do not agree yet that the order is ready.
const (
	maxFinalize         = 3
	maxFinalizeNotReady = 5
)

// finalize sends the CSR. If the CA fails there, the order says whether the CSR arrived.
func (c *Client) finalize(ctx context.Context, d dialect, a *attempt, o *order) error {
	a.finalized++
	err := d.finalize(ctx, o, a.csr.Raw)
	if err == nil && o.url == "" && o.certificateURL != "" {
		c.orders.keepCertificate(ctx, a.object, o.certificateURL)
	}
	var p *Problem
	switch {
	case err == nil && (o.status == statusReady || o.status == statusPending): // said by a node that has not seen it yet, or not said
		o.status = statusProcessing
		return nil
	case err == nil:
		return nil
	case !errors.As(err, &p):
		return err
	case isKind(err, "orderNotReady") && a.finalized < maxFinalizeNotReady:
	case p.scope == ScopeCA && p.retryAt.IsZero() && a.finalized < maxFinalize:
	default:
		a.dead = p.scope == ScopeName && p.retryAt.IsZero()
		return err
	}
	if err := sleep(ctx, c.pace.nextOrder(a.finalized-1, 0, 0)); err != nil {
		return err
	}
	if refreshErr := d.refresh(ctx, o); refreshErr != nil {
		return err // the CA is down
	}
	return nil
}

// await polls an order that the CA works on until its status is another.
func (c *Client) await(ctx context.Context, d dialect, a *attempt, o *order) error {
	before := o.status
	for n := 0; o.status == before; n++ {
		if err := sleep(ctx, c.pace.nextOrder(n, o.retryAfter, time.Since(a.began))); err != nil {
			return err
		}
		if err := d.refresh(ctx, o); err != nil {
			return pollError(ctx, n, err)
		}
	}
	return nil
}

// pollError returns the error of the nth look (from 0). If our time ran out during a later one, the CA answered the earlier ones: it is not down.
func pollError(ctx context.Context, n int, err error) error {
	if ctx.Err() != nil && n > 0 {
		return ctx.Err()
	}
	return err
}

// download fetches the chain and checks it.
func (c *Client) download(ctx context.Context, d dialect, a *attempt, o *order) (*Certificate, error) {
	sent, err := d.fetch(ctx, o)
	if err != nil {
		a.dead = isGone(err) && time.Since(a.placed) >= misissuedPause
		return nil, err
	}
	chain, err := checkChain(sent, a.names, a.csr, time.Now())
	if err != nil {
		pause := misissuedPause
		if errors.Is(err, errClock) {
			pause = clockPause
		}
		a.dead = time.Since(a.placed) >= pause
		return nil, c.misissued(err)
	}
	if left := len(sent) - len(chain); left > 0 {
		c.log.Info("the CA sent certificates that do not belong to the chain; they are left out", zap.Strings("names", a.names), zap.Int("left_out", left))
	}
	chain = c.preferredChain(ctx, d, a, o, chain)
	c.rotation.succeeded(a.names)
	return &Certificate{
		Chain: chain, URL: o.certificateURL, Order: o.url, Authorizations: o.authorizations, Account: a.account.at(d.protocol()), Protocol: d.protocol(),
		Profile: a.profile, Challenges: a.solved,
	}, nil
}

// How long after an order that gave a certificate of no use, or none, the next is placed. Until then the same one is looked at again, which costs nothing: the CA may mend its
// answer, or somebody set a clock. New ones would use up what the CA issues for the names in a week (Let's Encrypt: five), and with a wrong clock none is better than the last.
const (
	misissuedPause = 10 * time.Minute
	clockPause     = time.Hour
)

// misissued is the Problem of a certificate of no use.
func (c *Client) misissued(err error) error {
	p := &Problem{CA: c.cfg.Name, Op: "check the certificate", Err: err, scope: ScopeCA,
		Advice: "report it to the CA, or put another one before it; this certificate is looked at again, and another ordered ten minutes after it"}
	if errors.Is(err, errClock) {
		p.Advice = "set this machine's clock, or report it to the CA if that is right; then the same certificate is taken"
	}
	return p
}

// orderInvalid finds out why the CA declared the order invalid: by the order's own error, or by the authorization that failed.
func (c *Client) orderInvalid(ctx context.Context, d dialect, a *attempt, o *order) error {
	a.dead = true
	for _, url := range o.authorizations {
		az, err := d.authorization(ctx, url)
		if err != nil {
			break // the order is lost in any case
		}
		if az.status == statusInvalid {
			return c.authorizationInvalid(az)
		}
	}
	doc := document{detail: "the CA declared the order invalid without a reason"}
	if o.problem != nil {
		doc = *o.problem
	}
	p := validationProblem(c.cfg.Name, "", "", doc)
	p.Op = "complete the order"
	if kind(doc.typ) == "" || kind(doc.typ) == "unauthorized" {
		p.Advice = "a new order is placed at the next attempt"
	}
	return p
}
