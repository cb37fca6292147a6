package acmeclient

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// Request asks for one certificate.
type Request struct {
	Names       []string // canonical DNS names and IP addresses, as in the CSR
	CSR         []byte   // DER
	Predecessor [][]byte // DER chain of the certificate that this one replaces, if this CA issued it
	Profile     string   // empty for Config.Profile

	// Renewal: the names have a certificate, of whatever CA. Then a preflight refuses less.
	Renewal bool

	// Placing is called immediately before a new order is placed, not for one that is resumed; replaces says whether it names the predecessor. Its error ends
	// Obtain, and is what Obtain's error wraps. Undo is called if the CA answered that it placed none. Nil asks nobody.
	Placing func(ctx context.Context, replaces bool) (undo func(), err error)

	// Again: somebody who cannot be asked any more has tried with this CSR, and may have placed an order without having stored it.
	Again bool

	// Shared: another order of ours for the same names may be under way, with another key. Then no order of theirs is taken for one that was lost.
	Shared bool

	// Hold keeps the record of the order until [Client.Forget], so that a crash before the certificate is stored costs no second order. Without it Obtain forgets the
	// order when it returns the certificate.
	Hold bool
}

// Certificate is what the CA issued, checked against the request's key and names.
type Certificate struct {
	Chain   [][]byte // DER, leaf first
	URL     string   // where the CA keeps it
	Order   string   // order URL; empty over v1
	Account string   // account URL

	// Authorizations are the URLs of what the account was allowed to order it by; see Client.DeactivateAuthorization.
	Authorizations []string

	Protocol Protocol // ProtocolV2 or ProtocolV1
	Profile  string   // that was ordered; empty for the CA's default

	// Challenges are the types that were solved for it; none if the CA held the names for proved already.
	Challenges []string
}

// How long to leave an order alone that the CA did not decide in time.
const undecidedPause = 10 * time.Minute

// maxSteps bounds the state machine: a CA whose order goes round in circles is left.
const maxSteps = 12

// attempt is one call of Obtain.
type attempt struct {
	names   []string // sorted
	csr     *x509.CertificateRequest
	account *account // that orders
	options orderOptions
	renewal bool
	placing func(ctx context.Context, replaces bool) (undo func(), err error) // see Request
	object  string                                                            // where the order in progress is stored
	again   bool                                                              // see Request
	shared  bool                                                              // see Request
	hold    bool                                                              // see Request
	began   time.Time                                                         // for the pace
	placed  time.Time                                                         // when the order was placed, now or by a predecessor
	profile string                                                            // that it was placed with
	resumed bool                                                              // the order was placed by a predecessor, or by an earlier call
	dead    bool                                                              // the order cannot be continued

	solved    []string // types of challenges
	finalized int      // how often the CSR was sent
}

// Obtain orders a certificate and answers the CA's challenges. Called again with the same CSR, after an error or a crash, by this process or another on the
// same store, it continues the order that is in progress.
//
// Errors that are a *Problem say whom they concern and when to try again. Obtain honours ctx, takes at most Config.OrderTimeout, never waits out a
// rate limit and gives up at once when the CA is down.
func (c *Client) Obtain(ctx context.Context, r Request) (*Certificate, error) {
	if err := c.open(); err != nil {
		return nil, err
	}
	if err := c.checkNames(r.Names); err != nil {
		return nil, c.failed(ctx, err, r.Names)
	}
	names, csr, err := checkRequest(&r)
	if err != nil {
		return nil, c.failed(ctx, fmt.Errorf("check the request: %w", err), r.Names)
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.OrderTimeout)
	defer cancel()
	a := &attempt{
		names: names, csr: csr, object: c.orders.name(r.CSR), began: time.Now(), placing: r.Placing, renewal: r.Renewal, again: r.Again, shared: r.Shared, hold: r.Hold,
		options: orderOptions{profile: cmp.Or(r.Profile, c.cfg.Profile), replaces: replacedID(r.Predecessor, names)},
	}
	cert, err := c.issue(ctx, a)
	if err != nil {
		return nil, c.failed(ctx, err, names)
	}
	c.log.Debug("certificate issued", zap.Strings("names", names), zap.String("order", cert.Order), zap.Duration("took", time.Since(a.began)))
	return cert, nil
}

// issue takes the order through its life and forgets it when that is over, well or badly.
func (c *Client) issue(ctx context.Context, a *attempt) (*Certificate, error) {
	d, o, err := c.resumeOrBegin(ctx, a)
	if err != nil {
		return nil, err
	}
	cert, err := c.complete(ctx, d, a, o)
	if a.dead && a.resumed { // the CA may have looked while nobody was there to answer: that says nothing of the name
		cert, err = c.startOver(ctx, a)
	}
	if err == nil && !a.hold || a.dead {
		c.orders.forget(ctx, a.object)
	}
	if err != nil && !a.dead && ctx.Err() != nil {
		err = c.undecided(ctx, a, err)
	}
	return cert, err
}

// Forget ends what [Request].Hold keeps: the certificate for the CSR (DER) is stored, or of no use. Forgetting an order that nobody holds changes nothing. A record that cannot
// be removed now is logged, and goes with the next Sweep. It works on a client that is closed.
func (c *Client) Forget(ctx context.Context, csr []byte) { c.orders.forget(ctx, c.orders.name(csr)) }

// Sweep removes the records of orders that nobody will continue: leftovers of crashes. Programs call it now and then.
func (c *Client) Sweep(ctx context.Context) error { return c.orders.sweep(ctx) }

// startOver places a new order where a resumed one turned out to be lost.
func (c *Client) startOver(ctx context.Context, a *attempt) (*Certificate, error) {
	c.orders.forget(ctx, a.object)
	a.resumed, a.dead = false, false
	if err := c.placeable(ctx, a.names); err != nil {
		return nil, err
	}
	d, o, err := c.beginAnew(ctx, a)
	if err != nil {
		return nil, err
	}
	return c.complete(ctx, d, a, o)
}

// beginAnew places an order in whatever the CA speaks now.
func (c *Client) beginAnew(ctx context.Context, a *attempt) (dialect, *order, error) {
	d, err := c.speaker(ctx)
	if err != nil {
		return nil, nil, err
	}
	if d.protocol() == ProtocolV1 {
		a.options.replaces = "" // v1 has no place for it, and gives it no right
		if !c.cfg.ProfileRequired {
			a.options.profile = "" // v1 has only the default
		}
	}
	if err := d.refuse(a.names, a.options); err != nil { // before there is an account
		return nil, nil, err
	}
	if d, a.account, err = c.speakFor(ctx, d); err != nil {
		return nil, nil, err
	}
	if o, err := c.findStray(ctx, d, a); o != nil || err != nil {
		return d, o, err
	}
	if err := c.preflight(ctx, d, a); err != nil {
		return nil, nil, err
	}
	return c.begin(ctx, d, a)
}

// resumeOrBegin returns the order in progress, or places a new one unless the CA has told us not to.
func (c *Client) resumeOrBegin(ctx context.Context, a *attempt) (dialect, *order, error) {
	if a.again {
		c.strays.raise(a.object, doubt{began: a.began})
	}
	record, err := c.orders.load(ctx, a.object) // before anything is asked of the CA: with a broken store nothing is ordered
	if err != nil {
		return nil, nil, err
	}
	if record == nil {
		if err := c.placeable(ctx, a.names); err != nil {
			return nil, nil, err
		}
	}
	if record != nil {
		c.strays.settle(a.object, false)
		d, o, err := c.resume(ctx, a, record)
		if o != nil || err != nil {
			return d, o, err
		}
		if err := c.placeable(ctx, a.names); err != nil {
			return nil, nil, err
		}
	}
	return c.beginAnew(ctx, a)
}

// resume reads the state of an order in progress, in the protocol in which it began. It returns nil without error if the order is of no use any more.
func (c *Client) resume(ctx context.Context, a *attempt, record *orderRecord) (dialect, *order, error) {
	d, err := c.speakerOf(ctx, record.Protocol)
	if err != nil {
		return nil, nil, err
	}
	o := record.order()
	a.placed, a.profile = record.Placed, record.Profile
	if d != nil {
		if d, a.account, err = c.speakFor(ctx, d); err != nil {
			return nil, nil, err
		}
	}
	otherProfile := c.cfg.ProfileRequired && record.Profile != a.options.profile
	if d != nil && !otherProfile && record.usable(a.account.at(record.Protocol), time.Now()) {
		err := d.refresh(ctx, o)
		if now := c.rolled(ctx, d, a.account, err); now != nil {
			d, a.account = d.with(now), now
			err = d.refresh(ctx, o)
		}
		switch {
		case err == nil && o.status != statusExpired && o.status != statusDeactivated && o.status != statusRevoked:
			a.resumed = true
			c.log.Info("order continued", zap.Strings("names", a.names), zap.String("order", o.url), zap.String("status", o.status))
			return d, o, c.orders.resave(ctx, a.object)
		case err != nil && !record.lost(err, time.Now()) && (ctx.Err() != nil || !c.hasLeft(d)):
			return nil, nil, err
		}
	}
	c.orders.forget(ctx, a.object)
	return nil, nil, nil
}

// isGone reports whether the CA answered that it has no such thing for us: it is decided, expired, or the account is another.
func isGone(err error) bool {
	var p *Problem
	return errors.As(err, &p) && p.Status >= 400 && p.Status < 500 && p.Status != http.StatusTooManyRequests
}

// complete is the state machine: it does what the order's status asks for until there is a certificate.
func (c *Client) complete(ctx context.Context, d dialect, a *attempt, o *order) (*Certificate, error) {
	for range maxSteps {
		var err error
		switch o.status {
		case statusPending:
			if err = c.authorize(ctx, d, a, o); err == nil {
				o.status = statusReady // by RFC 8555 §7.1.6; looking would cost a request
			}
		case statusReady:
			err = c.finalize(ctx, d, a, o)
		case statusValid:
			return c.download(ctx, d, a, o)
		case statusInvalid:
			return nil, c.orderInvalid(ctx, d, a, o)
		default: // processing, and what we do not know
			err = c.await(ctx, d, a, o)
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, c.strange("complete the order", fmt.Errorf("its status goes round in circles, now %q", clean(o.status)))
}

// undecided is the error of an order that the time ran out for: nobody's fault yet, to be continued.
func (c *Client) undecided(ctx context.Context, a *attempt, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("obtain a certificate at %s: %w", c.cfg.Name, ctx.Err())
	}
	var p *Problem
	if errors.As(err, &p) {
		return err // a request that hung
	}
	return &Problem{
		CA: c.cfg.Name, Op: "wait for the order", Err: fmt.Errorf("undecided after %s: %w", time.Since(a.placed).Round(time.Second), err),
		Advice: "the order is continued later", scope: ScopeName, retryAt: time.Now().Add(undecidedPause),
	}
}

// strange is an answer that no CA should give.
func (c *Client) strange(op string, err error) error {
	err = &answerError{err}
	return &Problem{CA: c.cfg.Name, Op: op, Err: err, Advice: networkAdvice(err), scope: ScopeCA}
}

// isKind reports whether err is a Problem of the type.
func isKind(err error, k string) bool {
	var p *Problem
	return errors.As(err, &p) && kind(p.Type) == k
}
