package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"gatelodge/cmd/internal/admin"
	"gatelodge/cmd/internal/metrics"
	"gatelodge/proxy/certs"
	"gatelodge/proxy/hostname"
)

// certStatuses yields all certificates, or those that want attention. An error says what is missing among these.
func (p *program) certStatuses(ctx context.Context, failing bool) (iter.Seq[admin.CertStatus], error) {
	var all iter.Seq[certs.Status]
	var err error
	if failing {
		all, err = p.certs.ListFailing(ctx)
	} else {
		all = p.certs.List()
	}
	return func(yield func(admin.CertStatus) bool) {
		for st := range all {
			if !yield(toAdmin(st)) {
				return
			}
		}
	}, err
}

// workload is for metrics.
func (p *program) workload() metrics.Workload {
	w := p.certs.Workload()
	return metrics.Workload{
		Orders:   map[string]int{"queued": w.Queued, "running": w.Running, "parked": w.Parked},
		Withheld: w.Withheld, Remembered: map[string]int{"allowed": w.Allowed, "denied": w.Denied},
	}
}

// retry lets a name, or all for the empty name, be tried again now.
func (p *program) retry(ctx context.Context, name string) (admin.Retried, error) {
	if name == "" {
		n, err := p.certs.RetryAll(ctx)
		return admin.Retried{Names: n}, err
	}
	host, err := hostname.FromConfig(name)
	if err != nil {
		return admin.Retried{}, fmt.Errorf("%w: %w", admin.ErrUnknownName, err)
	}
	done, err := p.certs.Retry(ctx, host)
	if errors.Is(err, certs.ErrNotManaged) {
		err = fmt.Errorf("%w: %w", admin.ErrUnknownName, err)
	}
	tried := admin.Retried{Next: done.Next, Limited: done.Limited, Serves: done.Serves, Renews: done.Renews, Abandoned: done.Abandoned}
	if done.Serves.IsZero() && done.Abandoned == "" && err == nil {
		tried.Names = 1
	}
	return tried, err
}

// toAdmin is the same facts in the words of the admin socket, which other programs read.
func toAdmin(st certs.Status) admin.CertStatus {
	a := admin.CertStatus{
		Name: st.Name, For: st.For, Site: st.Site, Tenant: st.Tenant, State: st.State, CA: st.CA,
		NotBefore: st.NotBefore, NotAfter: st.NotAfter, RenewAt: st.RenewAt,
		Attempts: st.Attempts, NextAttempt: st.NextAttempt, OnVisit: st.OnVisit,
		Position: st.Position, Expected: st.Expected, Budget: st.Budget, Holder: st.Holder,
		Serial: st.Serial, Key: st.Key, MayIssue: st.MayIssue, Notes: st.Notes, Unread: st.Unread,
	}
	if p := st.Permission; p != nil {
		a.Permission = &admin.Permission{By: p.By, Verdict: p.Verdict, Asked: p.Asked, Until: p.Until, Failing: p.Failing, Since: p.Since, Stale: p.Stale}
	}
	for _, r := range st.Revocations {
		a.Revocations = append(a.Revocations, admin.RevocationStatus{Serial: r.Serial, CA: r.CA, Begun: r.Begun, Gone: r.Gone, Done: r.Done, Problem: r.Problem})
	}
	if r := st.Renewal; r != nil {
		a.Renewal = &admin.Renewal{Start: r.Start, End: r.End, Explanation: r.Explanation, NextCheck: r.NextCheck}
	}
	if f := st.LastFailure; f != nil {
		a.LastError = f.Reason
		a.Failure = &admin.Failure{At: f.At, CA: f.CA, Scope: f.Scope, Type: f.Type, Detail: f.Detail, Advice: f.Advice, View: f.View, Paused: f.Paused, Own: f.Own}
		for _, sub := range f.Sub {
			a.Failure.Names = append(a.Failure.Names, strings.TrimSpace(sub.Type+" "+sub.Detail))
		}
	}
	if g := st.Abandoned; g != nil {
		a.Abandoned = g.Reason
		if !g.Since.IsZero() {
			a.Abandoned += " since " + g.Since.UTC().Format(time.DateTime) + " UTC"
		}
	}
	if st.Second != nil {
		second := toAdmin(*st.Second)
		a.Second = &second
	}
	return a
}
