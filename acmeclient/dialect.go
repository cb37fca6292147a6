package acmeclient

import (
	"context"
	"crypto"
	"encoding/json"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// dialect is one version of ACME, spoken with one CA by one account. The state machine above it (obtain.go) exists once: it knows orders, authorizations
// and challenges, and nothing of nonces, signatures and endpoints. All methods return a *Problem when the CA refuses or does not answer.
//
// A protocol without orders (v1) keeps to the same shape: begin asks for one authorization per name and returns a pending order without a URL,
// finalize sends the CSR, and refresh looks where the certificate will be.
type dialect interface {
	registrar

	// protocol is what is spoken.
	protocol() Protocol

	// refuse returns the Problem of a request for what the protocol does not have, before anything is sent; nil: there is none.
	refuse(names []string, o orderOptions) error

	// with returns the dialect speaking for the account.
	with(acct *account) dialect

	// begin asks for a certificate. It is never repeated by itself, save for badNonce.
	begin(ctx context.Context, ids []identifier, o orderOptions) (*order, error)

	// refresh reads the order's present state into it.
	refresh(ctx context.Context, o *order) error

	// undecided returns the account's orders that are pending or ready, as far as the CA lists them; errNoList if it lists none ever.
	undecided(ctx context.Context) ([]*order, error)

	// authorization reads one authorization.
	authorization(ctx context.Context, url string) (*authorization, error)

	// accept tells the CA that the challenge is answered, and returns the challenge's status.
	accept(ctx context.Context, ch *challenge) (string, error)

	// finalize sends the CSR of an order whose authorizations are valid, and reads the order's new state into it.
	finalize(ctx context.Context, o *order, csr []byte) error

	// fetch returns the chain, DER, leaf first, of a valid order, and sets the order's alternates.
	fetch(ctx context.Context, o *order) ([][]byte, error)

	// update makes contact the account's contact addresses.
	update(ctx context.Context, contact []string) error

	// changeKey makes next the account's key.
	changeKey(ctx context.Context, next crypto.Signer) error

	// deactivateAccount and deactivateAuthorization end the account, or one authorization of it, for good.
	deactivateAccount(ctx context.Context) error
	deactivateAuthorization(ctx context.Context, url string) error
}

// registrar is the part of a dialect that needs no account yet.
type registrar interface {
	// register makes an account for the key, or finds the one that the key has already. terms is what was agreed to.
	register(ctx context.Context, key crypto.Signer, contact []string) (url, terms string, err error)

	// find returns the URL of the account that the key has. It never makes one: without it, the Problem is an accountDoesNotExist.
	find(ctx context.Context, key crypto.Signer) (url string, err error)

	// revoke revokes a certificate, given in DER, signed by the certificate's own key, or by the account if key is nil. One that is revoked already is
	// no error.
	revoke(ctx context.Context, cert []byte, key crypto.Signer, reason int) error
}

// The statuses of orders, authorizations and challenges (RFC 8555 §7.1.6). Others are waited out like "pending" and "processing": CAs have their own.
const (
	statusPending     = "pending"
	statusReady       = "ready"
	statusProcessing  = "processing"
	statusValid       = "valid"
	statusInvalid     = "invalid"
	statusExpired     = "expired"
	statusDeactivated = "deactivated"
	statusRevoked     = "revoked"
)

// identifier is what a certificate is for (RFC 8555 §9.7.7, RFC 8738).
type identifier struct {
	Type  string `json:"type"` // "dns" or "ip"
	Value string `json:"value"`
}

// identify returns the identifier of a canonical name or address.
func identify(name string) identifier {
	if _, err := netip.ParseAddr(name); err == nil {
		return identifier{"ip", name}
	}
	return identifier{"dns", name}
}

// orderOptions are what an order may say beside its identifiers.
type orderOptions struct {
	profile  string // empty: the CA's default
	replaces string // certificate id of the predecessor (RFC 9773 §4.1); empty: none
}

// order is an order as the CA last described it. Over v1, what takes its place.
type order struct {
	url            string
	status         string
	expires        time.Time // zero: the CA did not say
	identifiers    []identifier
	authorizations []string
	finalizeURL    string
	certificateURL string
	alternates     []string      // URLs of other chains for the certificate
	profile        string        // that it was placed with; empty: the CA did not say
	problem        *document     // why it is invalid; nil: the CA did not say
	retryAfter     time.Duration // what the last answer asked to wait; zero: it did not

	// Over v1, the certificate comes with the answer to the CSR, or later from where that answer said.
	leaf    []byte   // DER; nil: it is not there yet
	leafURL *url.URL // where it came from
	issuers []string // URLs of its issuer's certificate
}

// authorization is the CA's question whether we hold one identifier.
type authorization struct {
	url        string
	status     string
	identifier identifier
	wildcard   bool
	challenges []challenge
	retryAfter time.Duration
}

// name returns what was ordered: the identifier of a wildcard's authorization comes without its "*." (RFC 8555 §7.1.4), save from a CA that errs.
func (az *authorization) name() string {
	n := strings.ToLower(az.identifier.Value)
	if az.wildcard && !strings.HasPrefix(n, "*.") {
		n = "*." + n
	}
	return n
}

// challenge is one way to answer it.
type challenge struct {
	typ, url, token, status string
	problem                 *document
}

// speaker returns the way to speak with the CA by what its directory offers, without an account yet.
func (c *Client) speaker(ctx context.Context) (dialect, error) {
	protocol, dir, err := c.negotiator.settle(ctx)
	switch {
	case err != nil:
		return nil, err
	case protocol == ProtocolV1:
		return c.v1(dir), nil
	}
	return c.v2(dir), nil
}

func (c *Client) v2(dir *directory) *v2 {
	return &v2{wire: c.wire, dir: dir, agreeTerms: c.cfg.AgreeTerms, eab: c.cfg.EAB}
}
func (c *Client) v1(dir *directory) *v1 {
	return &v1{wire: c.wire, dir: dir, agreeTerms: c.cfg.AgreeTerms, bound: c.cfg.EAB != (EAB{}), moved: c.negotiator.hurry, pause: c.negotiator.closedPause}
}

// speakerOf returns the way to speak the protocol with the CA, which an order began in, though it speaks another by now; nil if there is none any more.
func (c *Client) speakerOf(ctx context.Context, p Protocol) (dialect, error) {
	d, err := c.speaker(ctx)
	if err != nil || d.protocol() == p {
		return d, err
	}
	if dir := c.negotiator.former(p); dir != nil {
		return c.v1(dir), nil
	}
	return nil, nil
}

// hasLeft reports whether the CA speaks another protocol by now: nobody need answer any more where d leads.
func (c *Client) hasLeft(d dialect) bool { return c.negotiator.former(d.protocol()) != nil }

// dialect returns the way to speak with the CA with the fleet's account, which is made if there is none.
func (c *Client) dialect(ctx context.Context) (dialect, *account, error) {
	d, err := c.speaker(ctx)
	if err != nil {
		return nil, nil, err
	}
	return c.speakFor(ctx, d)
}

// speakFor lets d speak for the fleet's account.
func (c *Client) speakFor(ctx context.Context, d dialect) (dialect, *account, error) {
	if acct := c.accounts.get(); acct == nil || !acct.known(d.protocol()) { // to make one is a request, too
		if err := c.limits.check(ctx, nil); err != nil {
			return nil, nil, err
		}
	}
	acct, err := c.account(ctx, d)
	if err != nil {
		return nil, nil, err
	}
	return d.with(acct), acct, nil
}

// documentOf parses an embedded problem document; nil if there is none.
func documentOf(raw json.RawMessage) *document {
	if doc, ok := parseDocument(raw); ok {
		return &doc
	}
	return nil
}
