package main

import (
	"errors"
	"time"

	"gatelodge/acmeclient"
	"gatelodge/proxy/certs"
)

// acmeFailure shows what an ACME CA refused to proxy/certs: the scope, when to try again, whether another CA or another key may do, and, for a person, the CA's
// words and what to do about them.
type acmeFailure struct {
	err  error // what Obtain returned
	said *acmeclient.Problem
}

var (
	_ certs.ExplainedFailure = acmeFailure{}
	_ certs.LackFailure      = acmeFailure{}
	_ certs.KeyFailure       = acmeFailure{}
)

// storeFailure is that of our own storage, met on the way to the CA or back.
type storeFailure struct{ error }

func (f storeFailure) Unwrap() error      { return f.error }
func (f storeFailure) Scope() string      { return certs.ScopeStorage }
func (f storeFailure) RetryAt() time.Time { return time.Time{} }

// explained returns err as an acmeFailure if the CA, or what we remember of it, is behind it, and as a storeFailure if our storage is.
func explained(err error) error {
	if _, ok := errors.AsType[*acmeclient.StoreError](err); ok {
		return storeFailure{err}
	}
	if p, ok := errors.AsType[*acmeclient.Problem](err); ok {
		return acmeFailure{err, p}
	}
	return err
}

func (f acmeFailure) Error() string      { return f.err.Error() }
func (f acmeFailure) Unwrap() error      { return f.err }
func (f acmeFailure) Scope() string      { return f.said.Scope() }
func (f acmeFailure) RetryAt() time.Time { return f.said.RetryAt() }
func (f acmeFailure) Elsewhere() bool    { return f.said.Elsewhere() }
func (f acmeFailure) RefusesKey() bool   { return f.said.RefusesKey() }

// Problem implements certs.ExplainedFailure.
func (f acmeFailure) Problem() certs.Problem {
	p := certs.Problem{Type: f.said.Type, Detail: f.said.Detail, Advice: f.said.Advice, Own: f.said.Own()}
	for _, sub := range f.said.Subproblems {
		detail := sub.Detail
		if sub.Identifier != "" {
			detail = sub.Identifier + ": " + detail
		}
		p.Sub = append(p.Sub, certs.Problem{Type: sub.Type, Detail: detail})
	}
	return p
}
