package certs

import (
	"context"
	"errors"
	"time"
)

// ScopeConfiguration is a scope of a FailureStatus beside those of a Failure: no CA is there to be asked.
const ScopeConfiguration = "configuration"

// Errors that a person has to deal with, and that no issuer explains.
var (
	errNoCA     = errors.New("no CA is configured that may issue for the name")
	errMisissue = errors.New("the CA issued what was not asked for")
)

// advise completes what is known of a failure with a sentence that says what to do, if its issuer has none: there is one for every failure.
func advise(p Problem, scope string, err error) Problem {
	if p.Advice == "" {
		p.Advice = adviceFor(scope, err)
	}
	return p
}

func adviceFor(scope string, err error) string {
	switch {
	case errors.Is(err, errNoCA):
		return "add a [[ca]] that may issue for the name, or take it off the site"
	case errors.Is(err, errMisissue):
		return "report it to the CA; until it is mended, put another [[ca]] before it"
	case errors.Is(err, context.DeadlineExceeded) && scope == ScopeCA:
		return "the CA takes too long, and is tried again by itself; if it lasts, see whether this machine reaches it, and what its status page says"
	}
	switch scope {
	case ScopeStorage:
		return "see that the storage can be reached and written and has room; what is issued meanwhile is served from memory, and nothing is lost"
	case ScopeName:
		return "see that the name leads to this server and that the CA may issue for it (DNS, ports 80 and 443, CAA); it is tried again by itself"
	case ScopeDomain:
		return "wait: the CA limits the registered domain, and says until when; if that happens often, ask the CA for more, or use a wildcard"
	case ScopeAccount:
		return "wait: the CA limits the account, and other CAs take over if there are any; if that happens often, ask the CA for more, or add a [[ca]]"
	case ScopeAddress:
		return "wait: the CA limits this machine's address; see whether others that share it hammer the CA"
	}
	return "nothing at once: it is tried again by itself; if it lasts, see whether this machine reaches the CA, and what its status page says, or add a [[ca]]"
}

// trouble remembers, in this process, what kept a name from its certificate that is no failure of the name or of a CA.
func (m *Manager) trouble(name string, err error) {
	now, scope := time.Now(), ScopeStorage
	if errors.Is(err, errNoCA) {
		scope = ScopeConfiguration
	}
	m.troubles.Put(name, &FailureStatus{At: now, Scope: scope, Reason: err.Error(), Problem: advise(Problem{}, scope, err)}, now.Add(24*time.Hour))
}
