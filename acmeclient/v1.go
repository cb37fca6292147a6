package acmeclient

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Labels of v1's requests in Metrics: the keys of its directory. What else it asks for has v2's labels.
const (
	endpointNewReg      = "new-reg"
	endpointNewAuthz    = "new-authz"
	endpointNewCert     = "new-cert"
	endpointRevokeV1    = "revoke-cert"
	endpointKeyChangeV1 = "key-change"
)

// v1 speaks Let's Encrypt's protocol before RFC 8555, as its server spoke it until 2021 (there is no standard: the drafts say other things). It has no orders: what
// takes their place is one authorization per name, and a certificate that is asked for when all are valid. A signature covers neither URL nor host, but only the
// kind of resource, and the key is in each request; so the key of one CA is never used at another.
type v1 struct {
	wire       *wire
	dir        *directory
	account    *account // nil while there is none
	agreeTerms bool
	bound      bool   // the account is to have an external account binding, which v1 has not
	moved      func() // the CA may have left v1: look whether it speaks v2 now

	pause func() time.Duration // how long to leave a CA alone that says that v1 is over
}

func (d *v1) protocol() Protocol { return ProtocolV1 }

func (d *v1) with(acct *account) dialect {
	next := *d
	next.account = acct
	return &next
}

// refuse says what v1 cannot do, before anything is sent. What a request may have but need not, such as its predecessor, is left out instead.
func (d *v1) refuse(names []string, o orderOptions) error {
	if err := d.refuseBinding(); err != nil {
		return err
	}
	var lacks, identifier string
	advice := "use a CA that speaks ACME v2 for it"
	for _, n := range names {
		switch {
		case strings.HasPrefix(n, "*."):
			lacks, identifier = "wildcards", n
		case identify(n).Type != "dns":
			lacks, identifier = "certificates for addresses", n
		}
	}
	if lacks == "" && o.profile != "" {
		lacks, advice = "certificate profiles", "ask for none, or use a CA that speaks ACME v2"
	}
	if lacks == "" {
		return nil
	}
	return &Problem{CA: d.wire.ca, Op: "place the order (nothing was sent)", Type: problemNamespace + "unsupportedIdentifier", Identifier: identifier,
		Detail: "the CA speaks ACME v1, which has no " + lacks, Advice: advice, scope: ScopeName, elsewhere: true}
}

// refuseBinding: an account without the binding that the operator wants is not the account that is wanted.
func (d *v1) refuseBinding() error {
	if !d.bound {
		return nil
	}
	return &Problem{CA: d.wire.ca, Op: "register the account", Type: problemNamespace + "externalAccountRequired", scope: ScopeCA, elsewhere: true,
		Detail: "the CA speaks ACME v1, which has no external account bindings", Advice: "remove `eab`, or give the CA's v2 directory in `directory`"}
}

// post signs payload as the account and sends it. Only badNonce is repeated.
func (d *v1) post(ctx context.Context, op, endpoint, target string, payload any) (*exchange, []byte, error) {
	return d.postAs(ctx, d.account.key, op, endpoint, target, payload)
}

// postAs is post by another than the account. The exchange is there beside an error, too.
func (d *v1) postAs(ctx context.Context, key crypto.Signer, op, endpoint, target string, payload any) (*exchange, []byte, error) {
	ex := d.exchange(endpoint)
	data, err := json.Marshal(payload)
	if err != nil {
		return ex, nil, fmt.Errorf("encode the request: %w", err)
	}
	for n := 1; ; n++ {
		body, err := d.postOnce(ctx, key, ex, target, data)
		switch {
		case err != nil:
			return ex, nil, d.explain(op, ex, err)
		case ex.isProblem && kind(ex.problem.typ) == "badNonce" && n <= maxBadNonce:
			if err := sleep(ctx, badNoncePause); err != nil {
				return ex, nil, d.explain(op, ex, err)
			}
		case !isSuccess(ex.status):
			return ex, nil, d.explain(op, ex, fmt.Errorf("status %d", ex.status))
		default:
			return ex, body, nil
		}
	}
}

func (d *v1) postOnce(ctx context.Context, key crypto.Signer, ex *exchange, target string, payload []byte) ([]byte, error) {
	nonce, err := d.nonce(ctx)
	if err != nil {
		return nil, err
	}
	signed, err := signV1(key, nonce, payload)
	if err != nil {
		return nil, err
	}
	var body []byte
	err = d.wire.do(ctx, ex, http.MethodPost, target, signed, &body)
	return body, err
}

// get reads without a signature, as v1 does everything that it reads but registrations.
func (d *v1) get(ctx context.Context, op, endpoint, target string) (ex *exchange, body []byte, err error) {
	err = d.wire.retryQuickly(ctx, func() error {
		ex = d.exchange(endpoint)
		if err := d.wire.do(ctx, ex, http.MethodGet, target, nil, &body); err != nil {
			return d.explain(op, ex, err)
		}
		if !isSuccess(ex.status) {
			return d.explain(op, ex, fmt.Errorf("status %d", ex.status))
		}
		return nil
	})
	return ex, body, err
}

func (d *v1) exchange(endpoint string) *exchange {
	return &exchange{endpoint: endpoint, direct: true, nonces: &d.wire.noncesV1}
}

// isSuccess: servers differ in which of these they send where.
func isSuccess(status int) bool {
	return status == http.StatusOK || status == http.StatusCreated || status == http.StatusAccepted
}

// nonce returns a nonce from the answers so far. If there is none, the directory is asked for one, or new-reg, which answers 405 with a nonce: where the
// directory is one of v2 by now, it has none.
func (d *v1) nonce(ctx context.Context) (_ string, err error) {
	pool := &d.wire.noncesV1
	if nonce, ok := pool.take(time.Now()); ok {
		return nonce, nil
	}
	for _, target := range []string{d.dir.url, d.dir.endpoints["new-reg"]} {
		var ex *exchange
		err = d.wire.retryQuickly(ctx, func() error {
			ex = d.exchange(endpointNewNonce)
			err := d.wire.do(ctx, ex, http.MethodHead, target, nil)
			if err != nil || ex.status >= 500 {
				return d.explain(opNonce, ex, err)
			}
			return nil
		})
		switch {
		case err != nil:
		case isBase64URL(ex.nonce):
			return ex.nonce, nil
		default:
			err = d.explain(opNonce, ex, errors.New("no usable Replay-Nonce"))
		}
	}
	return "", err
}

// explain turns the error of a request into a Problem by what the wire saw.
func (d *v1) explain(op string, ex *exchange, err error) error {
	var p *Problem
	if errors.As(err, &p) { // of the nonce below the request
		return p
	}
	if isSuccess(ex.status) {
		err = &answerError{err}
	}
	p = requestProblem(d.wire.ca, op, ex, err, time.Now())
	d.judge(p, ex.endpoint)
	if p.scope == ScopeCA { // also one that does not answer at all: v2 may be at the other address, or v1 elsewhere, and the next look is up to a day away
		d.moved()
	}
	return p
}

// judge corrects what was made of an answer where v1 means something else by it. Its problem types are coarse and, at its end, misleading: the HTTP status
// decides (facts/acme-v1, b).
func (d *v1) judge(p *Problem, endpoint string) {
	var dns *net.DNSError
	named := slices.Contains([]string{endpointNewReg, endpointNewAuthz, endpointNewCert, endpointNewNonce}, endpoint) // the URLs that the directory gave
	unauthorized := p.Status == http.StatusForbidden && kind(p.Type) == "unauthorized"
	switch {
	case errors.As(p.Err, &dns) && dns.IsNotFound:
		p.Advice = "the CA's host name does not exist any more; if the CA has closed ACME v1, give its v2 directory in `directory`"
	case p.Status == http.StatusForbidden && (kind(p.Type) == "serverInternal" || endpoint == endpointNewNonce), // an answer to HEAD has no problem document
		p.Status == http.StatusGone,
		named && (p.Status == http.StatusNotFound || p.Status == http.StatusMethodNotAllowed):
		d.closed(p, "the CA has closed ACME v1, for now or for good; give its v2 directory in `directory`, or use another CA")
	case endpoint == endpointNewReg && unauthorized:
		d.closed(p, "the CA makes no new accounts over ACME v1; give its v2 directory in `directory`, or use another CA")
	case endpoint == endpointNewReg && p.Status == http.StatusBadRequest && kind(p.Type) == "malformed":
		p.scope, p.Advice = ScopeCA, "the CA does not take the account: its words say whether for its key, which some take only as RSA, or for its contact addresses"
	case endpoint == endpointNewAuthz && p.Status == http.StatusBadRequest && kind(p.Type) == "malformed":
		p.scope, p.elsewhere, p.Advice = ScopeName, true, "this CA does not issue for the name; use another CA for it or remove it"
	case endpoint == endpointNewCert && unauthorized:
		p.scope, p.Advice = ScopeName, "the authorizations have ended meanwhile; the next attempt asks for new ones"
	case endpoint == endpointNewCert && p.Status == http.StatusBadRequest && kind(p.Type) == "malformed":
		p.scope, p.Advice = ScopeName, "the CA refuses this request; the next attempt makes a new one"
	}
}

// closed is an answer that ends v1: permanent by its status, whatever its type says.
func (d *v1) closed(p *Problem, advice string) {
	p.scope, p.Advice = ScopeCA, advice
	if p.retryAt.IsZero() {
		p.retryAt = time.Now().Add(d.pause())
	}
}

// unreadable is an answer with a good status that makes no sense.
func (d *v1) unreadable(op string, ex *exchange, what string) error {
	return d.explain(op, ex, errors.New(what))
}
