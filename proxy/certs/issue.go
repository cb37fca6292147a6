package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/publicsuffix"

	"gatelodge/proxy/hostname"
	"gatelodge/storage"
)

// issue asks the CAs for the name one after the other, skipping those that are known to fail, until one issues or refuses. What is wrong with a
// CA, our account there or our address opens its circuit and is held against no name.
func (a *attempt) issue(ctx context.Context, key *pendingKey) (*storage.Bundle, error) {
	cas := a.r.cas(a.t)
	if len(cas) == 0 {
		return nil, fmt.Errorf("no CA is configured for %s: add a [[ca]] that may issue for it, or take it off the site", a.o.name)
	}
	for _, ca := range cas {
		if !a.queue.admitted(a.o, ca.Issuer.Name()) {
			continue
		}
		b, err := a.ask(ctx, ca, key)
		switch {
		case err == nil:
			a.queue.worked(a.o, ca.Issuer.Name())
			return b, nil
		case ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded): // we are closing, or lost the lease: nobody's fault
			return nil, &storageError{fmt.Errorf("order for %s interrupted: %w", a.o.name, context.Cause(ctx))}
		case concernsName(err):
			a.queue.worked(a.o, ca.Issuer.Name())
			return nil, a.fail(ctx, ca.Issuer.Name(), err)
		case a.queue.failed(a.o, ca.Issuer.Name(), err):
			return nil, a.fail(ctx, ca.Issuer.Name(), err)
		}
	}
	return nil, errParked
}

// concernsName reports whether the failure is held against the name.
func concernsName(err error) bool {
	scope := scopeOf(err)
	return scope == ScopeName || scope == ScopeDomain
}

// ask lets one CA issue, and checks what it issued.
func (a *attempt) ask(ctx context.Context, ca CA, key *pendingKey) (*storage.Bundle, error) {
	began := time.Now()
	issued, leaf, err := a.checked(ctx, ca, key)
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
	return &storage.Bundle{
		Names: key.Names, CA: ca.Issuer.Name(), Chain: issued.Chain, Key: key.Key, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		Issued: time.Now(), Fence: a.fence, RenewStart: issued.Renewal.Start, RenewEnd: issued.Renewal.End, Notes: issued.Notes,
	}, nil
}

func (a *attempt) checked(ctx context.Context, ca CA, key *pendingKey) (*Issued, *x509.Certificate, error) {
	request := &Request{Names: key.Names, CSR: key.CSR}
	if a.stored != nil {
		request.Predecessor, request.PredecessorCA = a.stored.tls.Certificate, a.stored.ca
	}
	issued, err := ca.Issuer.Issue(ctx, request)
	if err != nil {
		return nil, nil, err
	}
	leaf, err := checkIssued(issued.Chain, key.private.Public(), key.Names, time.Now())
	if err != nil {
		return nil, nil, fmt.Errorf("CA %s issued what was not asked for: %w", ca.Issuer.Name(), err)
	}
	return issued, leaf, nil
}

// fail records a failure of the name and says when it is tried again.
func (a *attempt) fail(ctx context.Context, ca string, cause error) error {
	now := time.Now()
	rec := &failureRecord{CA: ca, Scope: scopeOf(cause), Reason: cause.Error(), Problem: problemOf(cause), Count: 1, First: now, Last: now}
	if a.prior != nil {
		rec.Count, rec.First = a.prior.Count+1, a.prior.First
	}
	spread := fraction(a.o.name, now.String())
	if a.stored != nil {
		rec.Next = nextRenewal(now, a.r.Backoff, rec.Count, retryOf(cause), spread, a.stored.tls.Leaf)
	} else {
		rec.Next = nextAttempt(now, a.r.Backoff, rec.Count, retryOf(cause), spread)
	}
	a.failures.write(ctx, a.o.name, rec)
	if rec.Scope == ScopeDomain && retryOf(cause).After(now) {
		until := capped(now, retryOf(cause))
		a.domains.put(registeredDomain(a.o.name), until, until)
	}
	a.log.Warn("certificate not issued", zap.String("site", a.t.policy.Site), zap.String("ca", ca), zap.String("kind", a.o.kind),
		zap.String("scope", rec.Scope), zap.Int("attempt", rec.Count), zap.Time("next_attempt", rec.Next), zap.String("advice", rec.Problem.Advice), zap.Error(cause))
	return rec.asError(a.o.name)
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
	key, err := newPendingKey([]string{a.o.name}, time.Now())
	if err != nil {
		return nil, err
	}
	for _, ca := range a.r.cas(a.t) {
		if !a.queue.admitted(a.o, ca.Issuer.Name()) {
			continue
		}
		b, err := a.ask(ctx, ca, key)
		switch {
		case err != nil && (ctx.Err() != nil || concernsName(err)):
			return nil, err
		case err != nil:
			a.queue.failed(a.o, ca.Issuer.Name(), err)
			continue
		}
		a.queue.worked(a.o, ca.Issuer.Name())
		cert, err := newCertificate(a.o.name, b, a.r.RenewAt)
		if err != nil {
			return nil, err
		}
		cert.until = cert.renewAt
		a.cache.put(cert)
		return cert, nil
	}
	return nil, errParked
}
