package acmeclient

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/acme"
)

// authorize proves control over each identifier of the order whose authorization is not valid yet. All challenges are published first, then the CA is told
// of all of them, then all authorizations are awaited, so that an order for many names takes as long as its slowest.
//
// Authorizations that stay pending are left alone: Let's Encrypt counts a deactivated pending one as a failed validation, and reuses the order otherwise.
//
// As long as the CA has not decided, answers stay published though we leave: it may still ask for them, and the order is continued later.
func (c *Client) authorize(ctx context.Context, d dialect, a *attempt, o *order) (err error) {
	var open []*solving
	defer func() {
		for _, s := range open {
			if err == nil || a.dead {
				c.cfg.Responder.retract(ctx, s.answer)
				c.cfg.DNS.remove(ctx, s.record)
			}
		}
	}()
	for _, url := range o.authorizations {
		az, err := d.authorization(ctx, url)
		if err != nil {
			return err
		}
		s, err := c.begun(ctx, a, az)
		if s != nil {
			open = append(open, s)
		}
		if err != nil {
			return err
		}
	}
	for _, step := range []func(context.Context, dialect, *attempt, *solving) error{c.awaitDNS, c.tell, c.awaitAuthorization} {
		for _, s := range open {
			if err := step(ctx, d, a, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// solving is an authorization whose challenge is published.
type solving struct {
	az     *authorization
	ch     *challenge // nil: the CA works on one that we know nothing of
	answer *published // http-01, tls-alpn-01
	record *dnsRecord // dns-01
	told   bool       // the CA knows, from us or a predecessor
	done   bool       // the CA has said at once that the challenge is valid
}

// begun gets an authorization under way: chooses a challenge and publishes its answer. It returns nil if nothing is to be done. What is returned is
// published, beside an error, too.
func (c *Client) begun(ctx context.Context, a *attempt, az *authorization) (*solving, error) {
	switch az.status {
	case statusValid:
		return nil, nil
	case statusInvalid:
		a.dead = true
		return nil, c.authorizationInvalid(az)
	case statusExpired, statusDeactivated, statusRevoked:
		a.dead = true
		return nil, &Problem{CA: c.cfg.Name, Op: "read the authorization", Identifier: clean(az.name()), scope: ScopeName,
			Detail: "the authorization is " + az.status, Advice: "a new order is placed at the next attempt"}
	}
	name := az.name()
	if !slices.Contains(a.names, name) {
		a.dead = name != "" // else it is no authorization at all, and the next answer may be one
		return nil, c.strange("read the authorization", fmt.Errorf("it is for %q, which was not asked for", clean(az.identifier.Value)))
	}
	ch, err := c.choose(ctx, name, az)
	if err != nil {
		a.dead = true
		return nil, err
	}
	s := &solving{az: az, ch: ch, told: ch == nil || ch.status == statusProcessing}
	if ch == nil {
		return s, nil
	}
	if !slices.Contains(a.solved, ch.typ) {
		a.solved = append(a.solved, ch.typ)
	}
	if ch.typ == ChallengeDNS01 {
		s.record, err = c.presentDNS(ctx, a, name, ch)
		return s, err
	}
	if s.answer, err = prepare(a.account.key, ch, name); err != nil {
		return nil, err
	}
	return s, c.cfg.Responder.publish(ctx, s.answer)
}

// tell tells the CA that the challenge is answered, unless a predecessor did.
func (c *Client) tell(ctx context.Context, d dialect, a *attempt, s *solving) error {
	if s.told {
		return nil
	}
	status, err := d.accept(ctx, s.ch)
	if isKind(err, "malformed") || isKind(err, "unauthorized") { // the CA no longer waits for it: look what became of it
		return c.recheck(ctx, d, a, s, err)
	}
	s.told, s.done = err == nil, status == statusValid
	return err
}

// recheck looks at an authorization whose challenge the CA did not want to be told; cause is how it said so.
func (c *Client) recheck(ctx context.Context, d dialect, a *attempt, s *solving, cause error) error {
	az, err := d.authorization(ctx, s.az.url)
	if err != nil {
		return err
	}
	if az.status == statusInvalid {
		a.dead = true
		return c.authorizationInvalid(az)
	}
	working := slices.ContainsFunc(az.challenges, func(ch challenge) bool { return ch.status == statusProcessing })
	if s.done = az.status == statusValid; s.done || working {
		return nil
	}
	return cause
}

// choose returns the challenge to solve: one that the CA works on already, else by preference, where the type that failed for the name last time comes last. It
// returns nil without error if the CA works on a challenge of a type that we do not solve. dns-01 is passed over where no provider can write for the name, as
// long as there is another type.
func (c *Client) choose(ctx context.Context, name string, az *authorization) (*challenge, error) {
	types := c.types(name)
	for i := range az.challenges {
		ch := &az.challenges[i]
		if ch.status == statusProcessing || ch.status == statusValid {
			if slices.Contains(types, ch.typ) && validToken(ch.token) {
				ch.status = statusProcessing
				return ch, nil
			}
			return nil, nil
		}
	}
	var noDNS error
	for _, typ := range types {
		i := slices.IndexFunc(az.challenges, func(ch challenge) bool { return ch.typ == typ && validToken(ch.token) && ch.url != "" })
		if i < 0 {
			continue
		}
		if typ == ChallengeDNS01 && len(types) > 1 {
			if _, noDNS = c.cfg.DNS.locate(ctx, name); noDNS != nil {
				continue
			}
		}
		return &az.challenges[i], nil
	}
	if noDNS != nil {
		return nil, noDNS
	}
	var offered []string
	for _, ch := range az.challenges {
		offered = append(offered, clean(ch.typ))
	}
	return nil, &Problem{CA: c.cfg.Name, Op: "choose a challenge", Identifier: name, scope: ScopeName,
		Detail: fmt.Sprintf("the CA offers %s, we are to use %s", strings.Join(offered, ", "), strings.Join(types, ", ")),
		Advice: "allow one of the offered challenge types in `challenges`"}
}

// prepare makes the answer of the account with the key to a challenge.
func prepare(key crypto.Signer, ch *challenge, name string) (*published, error) {
	solver := &acme.Client{Key: key}
	keyAuth, err := solver.HTTP01ChallengeResponse(ch.token) // RFC 8555 §8.1, the same for all types
	if err != nil {
		return nil, fmt.Errorf("make the key authorization: %w", err)
	}
	var cert *tls.Certificate
	if ch.typ == ChallengeTLSALPN01 {
		made, err := solver.TLSALPN01ChallengeCert(ch.token, name)
		if err != nil {
			return nil, fmt.Errorf("make the challenge certificate: %w", err)
		}
		cert = &made
	}
	return newPublished(ch.typ, name, ch.token, keyAuth, cert), nil
}

// awaitAuthorization polls until the CA has decided.
func (c *Client) awaitAuthorization(ctx context.Context, d dialect, a *attempt, s *solving) error {
	if s.done {
		return nil
	}
	first, err := c.firstLook(ctx, s)
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		az, err := d.authorization(ctx, s.az.url)
		if err != nil {
			return pollError(ctx, n, err)
		}
		switch az.status {
		case statusValid:
			return nil
		case statusInvalid, statusExpired, statusDeactivated, statusRevoked:
			a.dead = true
			return c.authorizationInvalid(az)
		}
		if err := sleep(ctx, c.pace.nextAuthz(n, first, az.retryAfter, time.Since(a.began))); err != nil {
			return err
		}
	}
}

// firstLook waits until the CA can have decided, and returns the pause that the next ones are reckoned from.
func (c *Client) firstLook(ctx context.Context, s *solving) (time.Duration, error) {
	if s.answer == nil {
		return c.pace.unprobed, sleep(ctx, c.pace.unprobed)
	}
	t := time.NewTimer(c.pace.unprobed)
	defer t.Stop()
	select {
	case <-s.answer.seen:
		return c.pace.afterProbe, sleep(ctx, c.pace.afterProbe)
	case <-t.C:
		return c.pace.unprobed, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// authorizationInvalid makes a Problem of the challenge that failed, and has the next attempt for the name use another type.
func (c *Client) authorizationInvalid(az *authorization) error {
	name := az.name()
	for _, ch := range az.challenges {
		if ch.status != statusInvalid && ch.problem == nil {
			continue
		}
		doc := document{detail: "the CA gave no reason"}
		if ch.problem != nil {
			doc = *ch.problem
		}
		p := validationProblem(c.cfg.Name, clean(ch.typ), name, doc)
		switch kind(doc.typ) {
		case "connection", "dns", "unauthorized", "tls", "incorrectResponse", "caa": // the last: RFC 8657 §4 allows some types only
			c.rotation.failedWith(name, ch.typ)
		}
		c.log.Debug("validation failed", zap.String("name", name), zap.String("challenge", p.Op), zap.String("detail", p.Detail))
		return p
	}
	return &Problem{CA: c.cfg.Name, Op: "validate", Identifier: name, scope: ScopeName, Err: errors.New("the authorization is " + clean(az.status)),
		Advice: "a new order is placed at the next attempt"}
}

// maxRotation bounds the memory of failures; beyond it, names are forgotten at random.
const maxRotation = 10_000

// rotation remembers, per name, which challenge type failed last, so that the next attempt begins with another: what blocks port 80 does not block 443.
type rotation struct {
	mu     sync.Mutex
	failed map[string]string // name -> challenge type
}

// order returns the types with the one that failed for the name, and those before it, moved to the end.
func (r *rotation) order(name string, types []string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.Index(types, r.failed[name]) + 1
	return slices.Concat(types[i:], types[:i])
}

func (r *rotation) failedWith(name, typ string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.failed[name]; !known && len(r.failed) >= maxRotation {
		for other := range r.failed {
			delete(r.failed, other)
			break
		}
	}
	r.failed[name] = typ
}

func (r *rotation) succeeded(names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range names {
		delete(r.failed, n)
	}
}
