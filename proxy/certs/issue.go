package certs

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/publicsuffix"

	"gatelodge/proxy/certs/budget"
	"gatelodge/proxy/hostname"
	"gatelodge/storage"
)

// issuance is a certificate that is issued and not stored yet.
type issuance struct {
	bundle *storage.Bundle
	stored func(ctx context.Context) // see Issued; never nil
}

// issue asks the CAs for the name one after the other, skipping those that are known to fail, until one issues or refuses. What is wrong with a
// CA, our account there or our address opens its circuit and is held against no name.
func (a *attempt) issue(ctx context.Context, key *pendingKey) (*issuance, error) {
	cas := a.r.cas(a.t)
	if len(cas) == 0 {
		return nil, fmt.Errorf("%w: add a [[ca]] that may issue for %s, or take it off the site", errNoCA, subject(a.o.name))
	}
	prefer := a.preference(cas)
	var asked []string
	var spent *budget.Error
	for ca := a.queue.choose(a.o, prefer, nil); ca != "" && ctx.Err() == nil; ca = a.queue.choose(a.o, prefer, asked) {
		i := slices.IndexFunc(cas, func(c CA) bool { return c.Issuer.Name() == ca })
		if i < 0 {
			return nil, &storageError{fmt.Errorf("CA %s is configured no more", ca)} // a reload in this moment: try again
		}
		if err := a.tooSoon(ctx, ca); err != nil {
			return nil, err
		}
		asked = append(asked, ca)
		issued, err := a.ask(ctx, cas[i], key)
		if refusesKey(err) {
			a.log.Warn("the CA refuses the key, trying another one", zap.String("ca", ca), zap.Error(err))
			if key, err = a.anotherKey(ctx); err == nil {
				issued, err = a.ask(ctx, cas[i], key)
			}
		}
		switch {
		case err == nil:
			a.queue.worked(a.o, ca)
			return issued, nil
		case asBudget(err) != nil:
			spent = sooner(spent, asBudget(err))
			a.queue.passOver(a.o, ca)
		case lacks(err) && a.queue.lacking(a.o, ca):
			a.log.Debug("the CA lacks what the name needs, the next one is asked", zap.String("ca", ca), zap.Error(err))
		case isStorage(err):
			return nil, err
		case ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded): // we are closing, or lost the lease: nobody's fault
			return nil, &storageError{fmt.Errorf("order for %s interrupted: %w", a.o.name, context.Cause(ctx))}
		case concernsName(err):
			if !lacks(err) { // else it was not asked, and may be down
				a.queue.worked(a.o, ca)
			}
			return nil, a.fail(ctx, ca, err)
		case a.queue.failed(a.o, ca, err):
			return nil, a.fail(ctx, ca, err)
		}
	}
	if spent != nil {
		return nil, spent
	}
	return nil, errParked
}

// preference is the CA to begin with: the one that refused the name last, until it has done so twice, which is two ways of validation; then the one after it.
func (a *attempt) preference(cas []CA) string {
	if a.prior == nil {
		return ""
	}
	i := slices.IndexFunc(cas, func(c CA) bool { return c.Issuer.Name() == a.prior.CA })
	if i >= 0 && a.prior.There >= failuresThere && time.Since(a.prior.Moved) >= moveEvery {
		i = (i + 1) % len(cas)
	}
	if i < 0 {
		return ""
	}
	return cas[i].Issuer.Name()
}

// Bounds on taking a name that one CA refuses to another: each of them counts the failures, and a name that is not ours should not be seen failing everywhere.
const (
	failuresThere = 2
	moveEvery     = time.Hour
)

// tooSoon holds the name back if the CA would be the second one more within the hour to refuse it.
func (a *attempt) tooSoon(ctx context.Context, ca string) error {
	if a.prior == nil || a.prior.CA == ca || time.Since(a.prior.Moved) >= moveEvery {
		return nil
	}
	rec := *a.prior
	rec.Next = latest(rec.Next, rec.Moved.Add(moveEvery))
	a.failures.write(ctx, a.o.name, &rec)
	return rec.asError(a.o.name)
}

// concernsName reports whether the failure is held against the name.
func concernsName(err error) bool {
	scope := scopeOf(err)
	return scope == ScopeName || scope == ScopeDomain
}

// ask lets one CA issue, and checks what it issued.
func (a *attempt) ask(ctx context.Context, ca CA, key *pendingKey) (*issuance, error) {
	began := time.Now()
	issued, leaf, err := a.checked(ctx, ca, key)
	if asBudget(err) != nil || isStorage(err) || lacks(err) {
		return nil, err // the CA was not asked
	}
	result := "ok"
	if err != nil {
		result = scopeOf(err)
	}
	a.metrics.Issuance(ca.Issuer.Name(), a.o.kind, result, time.Since(began))
	if err != nil {
		return nil, err
	}
	a.log.Info("certificate issued", zap.String("site", a.t.policy.Site), zap.String("ca", ca.Issuer.Name()), zap.String("kind", a.o.kind),
		zap.Time("not_after", leaf.NotAfter), zap.Duration("took", time.Since(began)))
	return &issuance{stored: issued.stored, bundle: &storage.Bundle{
		Extra: a.extra(),
		Names: key.Names, CA: ca.Issuer.Name(), Chain: issued.Chain, Key: key.Key, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		Issued: time.Now(), Fence: a.fence, RenewStart: issued.Renewal.Start, RenewEnd: issued.Renewal.End, Notes: issued.Notes,
	}}, nil
}

// stored tells the issuer that its order is of no use any more.
func (i *Issued) stored(ctx context.Context) {
	if i.Stored != nil {
		i.Stored(ctx)
	}
}

// extra notes whose the name is, as far as somebody said so, and that the certificate replaces one that had hardly begun to live; see certificate.renewIn.
func (a *attempt) extra() map[string]json.RawMessage {
	var fields map[string]json.RawMessage
	if p, ok := a.r.Permission.(customerPermission); ok && a.t.gated {
		if answer, ok := p.Answer(subject(a.t.name)); ok && answer.Allowed {
			fields = withExtra(fields, extraCustomer, customerField(answer))
		}
	}
	if a.stored == nil || a.revocations.of(a.stored) != nil || !time.Now().Before(tenth(a.stored.tls.Leaf, a.stored.issued)) {
		return fields
	}
	return withExtra(fields, extraEarly, json.RawMessage("true"))
}

func (a *attempt) checked(ctx context.Context, ca CA, key *pendingKey) (*Issued, *x509.Certificate, error) {
	request := &Request{Names: key.Names, CSR: key.CSR, Again: key.foreign && a.prior == nil, Shared: a.r.second != ""}
	if a.stored != nil {
		request.Predecessor, request.PredecessorCA = a.stored.tls.Certificate, a.stored.ca
	}
	var unpaid error
	request.Placing = func(ctx context.Context, replaces bool) (undo func(), err error) {
		undo, unpaid = a.placing(ctx, ca, replaces)
		return undo, unpaid
	}
	issued, err := ca.Issuer.Issue(ctx, request)
	if err != nil && unpaid != nil {
		err = unpaid
	}
	if err != nil {
		return nil, nil, err
	}
	leaf, err := checkIssued(issued.Chain, key.private.Public(), key.Names, time.Now())
	if err != nil {
		issued.stored(ctx)
		return nil, nil, fmt.Errorf("%w: CA %s: %w", errMisissue, ca.Issuer.Name(), err)
	}
	return issued, leaf, nil
}

// fail records a failure of the name and says when it is tried again.
func (a *attempt) fail(ctx context.Context, ca string, cause error) error {
	now := time.Now()
	rec := &failureRecord{CA: ca, Scope: scopeOf(cause), Reason: cause.Error(), Problem: problemOf(cause), RetryAt: capped(now, retryOf(cause)), Count: 1, There: 1, First: now, Last: now}
	if a.prior != nil {
		rec.Count, rec.First, rec.There, rec.Moved = a.prior.Count+1, a.prior.First, 1, now
		if a.prior.CA == ca {
			rec.There, rec.Moved = a.prior.There+1, a.prior.Moved
		}
	}
	spread := fraction(a.o.name, now.String())
	if a.stored != nil {
		rec.Next = nextRenewal(now, a.r.Backoff, rec.Count, retryOf(cause), spread, a.stored.tls.Leaf)
	} else {
		rec.Next = nextAttempt(now, a.r.Backoff, rec.Count, retryOf(cause), spread)
	}
	rec.Paused, rec.View = pausedBy(cause), a.view(ctx, ca, cause)
	rec.note(a.prior, now, a.r.Budget.Failures)
	a.failures.write(ctx, a.o.name, rec)
	a.emitFailure(rec)
	if rec.Scope == ScopeDomain && retryOf(cause).After(now) {
		until := capped(now, retryOf(cause))
		a.domains.Put(registeredDomain(subject(a.o.name)), until, until)
	}
	a.log.Warn("certificate not issued", zap.String("site", a.t.policy.Site), zap.String("ca", ca), zap.String("kind", a.o.kind),
		zap.String("scope", rec.Scope), zap.Int("attempt", rec.Count), zap.Time("next_attempt", rec.Next), zap.String("advice", rec.Problem.Advice), zap.Error(cause))
	return rec.asError(a.o.name)
}

// viewTimeout bounds Config.View.
const viewTimeout = 5 * time.Second

// view is what we see of the name ourselves, beside what the CA says.
func (a *attempt) view(ctx context.Context, ca string, cause error) string {
	if a.ownView == nil || !concernsName(cause) {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	return a.ownView(ctx, ca, subject(a.o.name), cause)
}

// registeredDomain is the part of a name that its owner registered: what a CA counts by.
func registeredDomain(name string) string {
	name = strings.TrimPrefix(name, "*.")
	if hostname.IsIP(name) {
		return name
	}
	domain, err := publicsuffix.EffectiveTLDPlusOne(name)
	if err != nil {
		return name
	}
	return domain
}

// issueBrief makes a certificate that lives in memory only; see target.brief.
func (a *attempt) issueBrief(ctx context.Context) (*certificate, error) {
	if err := a.heldBack(a.o.name); err != nil {
		return nil, err
	}
	key, err := newPendingKey([]string{a.o.name}, a.r.main, time.Now())
	if err != nil {
		return nil, err
	}
	cas := a.r.cas(a.t)
	var asked []string
	for name := a.queue.choose(a.o, "", nil); name != ""; name = a.queue.choose(a.o, "", asked) {
		asked = append(asked, name)
		i := slices.IndexFunc(cas, func(c CA) bool { return c.Issuer.Name() == name })
		if i < 0 {
			break // a reload in this moment
		}
		issued, err := a.ask(ctx, cas[i], key)
		switch {
		case err != nil && (ctx.Err() != nil || concernsName(err)):
			return nil, err
		case err != nil:
			a.queue.failed(a.o, name, err)
			continue
		}
		a.queue.worked(a.o, name)
		issued.stored(ctx)
		cert, err := newCertificate(a.o.name, issued.bundle, a.r.RenewAt)
		if err != nil {
			return nil, err
		}
		cert.until = cert.renewAt
		a.cache.put(cert)
		return cert, nil
	}
	return nil, errParked
}
