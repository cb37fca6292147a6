package certs

import (
	"context"
	"crypto"
	"time"
)

// An Issuer turns a CSR into a certificate. ACME CAs, the internal CA and wrapped certmagic issuers are all of this kind; nothing in this package knows which.
//
// Issue MUST honour ctx. It MUST NOT wait out a Retry-After: it returns a [Failure] that says when. It MAY be called
// again with the same CSR after a crash, and SHOULD then continue what it began instead of ordering anew. It MUST call Request.Placing before it places an order.
type Issuer interface {
	// Name is the name of the CA in the configuration. It is stored with each certificate and never changes.
	Name() string

	Issue(ctx context.Context, r *Request) (*Issued, error)
}

// Request asks for one certificate. The deadline is that of the context.
type Request struct {
	// Names are the canonical DNS names and IP addresses, as in the CSR.
	Names []string

	// CSR is the DER of the certificate request. It and its key were stored before Issue is called.
	CSR []byte

	// Again: a process that may be gone has made the CSR, and nobody knows what became of it. It may have placed an order that it could not store.
	Again bool

	// Shared: the names have a certificate for a key of another kind, too, which may be ordered at the same time.
	Shared bool

	// Predecessor is the DER chain, leaf first, of the certificate that this one replaces; nil for the first.
	Predecessor [][]byte

	// PredecessorCA is the Name of the issuer of the predecessor, since only that CA knows it (RFC 9773 §5).
	PredecessorCA string

	// Profile is the certificate profile to ask for; empty for the CA's default.
	Profile string

	// Placing pays for a new order from our budgets, immediately before it is placed; replaces says whether the order names its predecessor to the CA. An error
	// means that there is none to be placed: Issue ends with it. Undo is called if the CA refused to place the order for certain. Nil: nothing is to be paid.
	Placing func(ctx context.Context, replaces bool) (undo func(), err error)
}

// Issued is the answer to a Request. The manager checks key, names and dates itself before it stores it.
type Issued struct {
	// Chain is DER, leaf first.
	Chain [][]byte

	// Renewal is when the CA wants the certificate renewed; the zero value means that it does not say.
	Renewal Window

	// Notes are for a person (`gatelodge certs show`): protocol version, order URL, profile. Never secrets.
	Notes map[string]string

	// Stored is called once the certificate is stored, or turned out to be of no use. An Issuer that keeps its order until then is not asked for a second one after a crash
	// in between. Nil: it keeps nothing.
	Stored func(ctx context.Context)
}

// Window is a span of time, Start included, End excluded.
type Window struct{ Start, End time.Time }

// Scopes of a Failure, narrowest first: whom the CA's refusal, or its Retry-After, concerns.
const (
	ScopeName    = "name"              // this name only: validation, CAA, rejected
	ScopeDomain  = "registered-domain" // all names below the same registered domain
	ScopeAccount = "account"           // all names that this account orders
	ScopeAddress = "address"           // all requests from this network address
	ScopeCA      = "ca"                // the CA itself: network, 5xx, hang, not configured; never held against a name
	ScopeStorage = "storage"           // our own storage, which the Issuer uses too: held against nobody
)

// A Failure is an error of Issue that says whom it concerns and when to try again. An error that is no Failure has ScopeCA: what we do not
// understand is not held against a customer's name.
type Failure interface {
	error

	// Scope is one of the Scope constants.
	Scope() string

	// RetryAt is the earliest time of the next attempt by the CA's own word (Retry-After); zero means that it did not say.
	RetryAt() time.Time
}

// Problem is what a person should know of a failure.
type Problem struct {
	Type   string    `json:"type,omitempty"`   // the CA's problem type (RFC 8555 §6.7), or our own word for it
	Detail string    `json:"detail,omitempty"` // the CA's own sentence
	Advice string    `json:"advice,omitempty"` // one sentence: what to do about it
	Sub    []Problem `json:"sub,omitempty"`    // subproblems, one per name (RFC 8555 §6.7.1)
	Own    bool      `json:"own,omitempty"`    // we saw it ourselves and asked the CA for nothing: the words are ours
}

// An ExplainedFailure is a Failure with the CA's problem document. It is kept with the name across restarts.
type ExplainedFailure interface {
	Failure
	Problem() Problem
}

// A PausedFailure is a Failure that may mean that the CA takes no more orders for the name until a person has been there.
type PausedFailure interface {
	Failure
	Paused() bool
}

// A RenewalInformer is an Issuer that can say when a certificate should be renewed (RFC 9773). An error that wraps ErrNoRenewalInfo says that the CA has no such
// information for the certificate; any other that it gives none now, or none that makes sense. It MUST honour ctx, and MUST NOT wait out a Retry-After.
type RenewalInformer interface {
	// RenewalInfo is about the certificate with that id (RFC 9773 §4.1: authority key identifier and serial number): a million certificates are asked
	// about four times a day, so none is read from storage for that.
	RenewalInfo(ctx context.Context, id string) (RenewalInfo, error)
}

// RenewalInfo is the CA's present advice.
type RenewalInfo struct {
	Window      Window
	Explanation string    // URL for a person, may be empty
	NextCheck   time.Time // ask again then
}

// A Revoker is an Issuer that can revoke what it issued. A nil key means: by the account, else the request is signed by the key, which is the certificate's. The
// reason is that of RFC 5280 §5.3.1. A certificate that is revoked already is no error, since a crash makes us ask twice; the chain may be the leaf alone.
type Revoker interface {
	Revoke(ctx context.Context, chain [][]byte, key crypto.Signer, reason int) error
}
