package acmeclient

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/crypto/acme"
)

const problemNamespace = "urn:ietf:params:acme:error:"

// A CA that refuses its own nonces is asked again with the nonce that the refusal brought (RFC 8555 §6.5 "MAY retry"): 40 times, since at six refusals in
// ten, five tries would fail one request in thirteen.
const (
	maxBadNonce   = 40
	badNoncePause = 20 * time.Millisecond
)

// v2 speaks RFC 8555. Accounts, authorizations, challenges and certificates go by x/crypto/acme, with one cheap Client value per operation; what it keeps
// to itself (Retry-After of orders, `replaces`, its own waits) is signed here.
type v2 struct {
	wire       *wire
	dir        *directory
	account    *account // nil while there is none
	agreeTerms bool
	eab        EAB
}

func (d *v2) protocol() Protocol { return ProtocolV2 }

func (d *v2) refuse([]string, orderOptions) error { return nil }

func (d *v2) with(acct *account) dialect {
	next := *d
	next.account = acct
	return &next
}

// client makes an acme.Client for one operation. The key id is always preset, since looking it up costs a request and hides errors.
func (d *v2) client() *acme.Client {
	c := &acme.Client{
		DirectoryURL: d.dir.url,
		HTTPClient:   d.wire.http,
		UserAgent:    d.wire.userAgent,
		RetryBackoff: retryBadNonce,
	}
	if d.account != nil {
		c.Key, c.KID = d.account.key, acme.KeyID(d.account.URL)
	}
	return c
}

// retryBadNonce is the RetryBackoff of every acme.Client. Of the 4xx answers only badNonce and 429 get here; all but the former go up to those who
// know the scope (x/crypto would sleep for hours on a 429).
func retryBadNonce(n int, _ *http.Request, resp *http.Response) time.Duration {
	if resp.StatusCode >= 400 && resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests && n <= maxBadNonce {
		return badNoncePause
	}
	return -1
}

// call runs an operation of x/crypto/acme that may be repeated.
func (d *v2) call(ctx context.Context, op, endpoint string, do func(context.Context, *acme.Client) error) (*exchange, error) {
	ex := &exchange{endpoint: endpoint, directory: d.dir}
	err := d.wire.retryQuickly(ctx, func() error {
		err := do(withExchange(ctx, ex), d.client())
		if err == nil {
			return nil
		}
		return d.explain(op, ex, err)
	})
	return ex, err
}

// explain turns the error of an operation into a Problem by what the wire saw.
func (d *v2) explain(op string, ex *exchange, err error) error {
	var p *Problem
	if errors.As(err, &p) { // of the directory or the nonce below the operation
		return p
	}
	err = strip(err)
	if ex.status >= 200 && ex.status < 300 {
		err = &answerError{err}
	}
	return requestProblem(d.wire.ca, op, ex, err, time.Now())
}

// identity is who signs a request.
type identity struct {
	key crypto.Signer
	kid string // account URL; empty: the CA does not know the key yet
}

// post signs payload as the account, sends it and decodes the answer into v. An empty payload is a POST-as-GET (RFC 8555 §6.3). Only badNonce is repeated.
func (d *v2) post(ctx context.Context, op, endpoint, target string, payload []byte, v any) (*exchange, error) {
	return d.postAs(ctx, identity{d.account.key, d.account.URL}, op, endpoint, target, payload, v)
}

// postAs is post by another than the account. A nil v takes any answer.
func (d *v2) postAs(ctx context.Context, who identity, op, endpoint, target string, payload []byte, v any) (*exchange, error) {
	ex := &exchange{endpoint: endpoint}
	for n := 1; ; n++ {
		body, err := d.postOnce(ctx, who, ex, target, payload)
		switch {
		case err != nil:
			return ex, d.explain(op, ex, err)
		case ex.isProblem && kind(ex.problem.typ) == "badNonce" && n <= maxBadNonce:
			if err := sleep(ctx, badNoncePause); err != nil {
				return ex, d.explain(op, ex, err)
			}
			continue
		case ex.status != http.StatusOK && ex.status != http.StatusCreated:
			return ex, d.explain(op, ex, fmt.Errorf("status %d", ex.status))
		}
		if v != nil && json.Unmarshal(body, v) != nil {
			return ex, d.explain(op, ex, errors.New("it is not the JSON that RFC 8555 asks for"))
		}
		return ex, nil
	}
}

func (d *v2) postOnce(ctx context.Context, who identity, ex *exchange, target string, payload []byte) ([]byte, error) {
	nonce, err := d.wire.nonce(ctx, d.dir.newNonce())
	if err != nil {
		return nil, err
	}
	signed, err := sign(who.key, who.kid, nonce, target, payload)
	if err != nil {
		return nil, err
	}
	var body []byte
	err = d.wire.do(ctx, ex, http.MethodPost, target, signed, &body)
	return body, err
}

// wireOrder is an order in JSON (RFC 8555 §7.1.3).
type wireOrder struct {
	Status         string          `json:"status"`
	Expires        string          `json:"expires"`
	Identifiers    []identifier    `json:"identifiers"`
	Authorizations []string        `json:"authorizations"`
	Finalize       string          `json:"finalize"`
	Certificate    string          `json:"certificate"`
	Profile        string          `json:"profile"`
	Error          json.RawMessage `json:"error"`
}

// into makes o what the CA says now. URLs may be relative; those that are not URLs at all count as absent.
func (w *wireOrder) into(o *order, ex *exchange) {
	o.status, o.identifiers, o.profile, o.problem = w.Status, w.Identifiers, w.Profile, documentOf(w.Error)
	o.expires, _ = time.Parse(time.RFC3339, w.Expires) // unreadable counts as absent
	o.retryAfter, _ = retryAfter(ex.header, time.Now())
	o.finalizeURL, o.certificateURL = absolute(ex.url, w.Finalize), absolute(ex.url, w.Certificate)
	o.authorizations = nil
	for _, a := range w.Authorizations {
		if abs := absolute(ex.url, a); abs != "" {
			o.authorizations = append(o.authorizations, abs)
		}
	}
	switch { // some CAs leave the status away
	case o.status == "" && o.certificateURL != "":
		o.status = statusValid
	case o.status == "":
		o.status = statusPending
	}
}

func absolute(base *url.URL, ref string) string {
	abs, err := resolve(base, ref)
	if err != nil {
		return ""
	}
	return abs
}

// begin places the order (RFC 8555 §7.4).
func (d *v2) begin(ctx context.Context, ids []identifier, opts orderOptions) (*order, error) {
	const op = "place the order"
	if err := d.checkProfile(opts.profile); err != nil {
		return nil, err
	}
	if d.dir.endpoints["renewalInfo"] == "" {
		opts.replaces = "" // RFC 9773 §5: not before the CA said that it knows the field
	}
	payload, err := json.Marshal(struct {
		Identifiers []identifier `json:"identifiers"`
		Profile     string       `json:"profile,omitempty"`
		Replaces    string       `json:"replaces,omitempty"`
	}{ids, opts.profile, opts.replaces})
	if err != nil {
		return nil, fmt.Errorf("encode the order: %w", err)
	}
	var answer wireOrder
	ex, err := d.post(ctx, op, endpointNewOrder, d.dir.newOrder(), payload, &answer)
	if err != nil {
		if ex.status == http.StatusNotFound || ex.status == http.StatusGone {
			d.wire.directory.expire() // the CA may have moved
		}
		if isKind(err, "invalidProfile") {
			d.wire.directory.expire() // it may have been removed
		}
		return nil, err
	}
	o := &order{}
	if o.url, err = ex.location(); err != nil {
		return nil, d.explain(op, ex, errors.New("it has no order URL in Location"))
	}
	answer.into(o, ex)
	return o, nil
}

// checkProfile refuses a profile that the directory does not list, before the CA does.
func (d *v2) checkProfile(profile string) error {
	if _, ok := d.dir.profiles[profile]; ok || profile == "" {
		return nil
	}
	if age, _, ok := d.wire.directory.age(time.Now()); ok && age > directoryRefresh {
		d.wire.directory.expire() // it may have been added since
	}
	return &Problem{CA: d.wire.ca, Op: "place the order", Type: problemNamespace + "invalidProfile", scope: ScopeCA,
		Detail: fmt.Sprintf("the CA does not offer the profile %q", profile), Advice: "use a profile that the CA's directory lists, or none"}
}

func (d *v2) refresh(ctx context.Context, o *order) error {
	return d.wire.retryQuickly(ctx, func() error {
		var answer wireOrder
		ex, err := d.post(ctx, "read the order", endpointOrder, o.url, []byte{}, &answer)
		if err == nil {
			answer.into(o, ex)
		}
		return err
	})
}

func (d *v2) authorization(ctx context.Context, target string) (*authorization, error) {
	var az *acme.Authorization
	ex, err := d.call(ctx, "read the authorization", endpointAuthz, func(ctx context.Context, c *acme.Client) (err error) {
		az, err = c.GetAuthorization(ctx, target)
		return err
	})
	if err != nil {
		return nil, err
	}
	a := &authorization{url: target, status: az.Status, identifier: identifier{az.Identifier.Type, az.Identifier.Value}, wildcard: az.Wildcard}
	a.retryAfter, _ = retryAfter(ex.header, time.Now())
	for _, ch := range az.Challenges {
		a.challenges = append(a.challenges, challenge{
			typ: ch.Type, url: absolute(ex.url, ch.URI), token: ch.Token, status: ch.Status, problem: challengeError(ch.Error),
		})
	}
	return a, nil
}

// challengeError takes what x/crypto made of a challenge's problem document.
func challengeError(err error) *document {
	var e *acme.Error
	if !errors.As(err, &e) {
		return nil
	}
	doc := &document{typ: clean(e.ProblemType), detail: clean(e.Detail), instance: clean(e.Instance)}
	for _, sub := range e.Subproblems[:min(len(e.Subproblems), maxSubproblems)] {
		s := Subproblem{Type: clean(sub.Type), Detail: clean(sub.Detail)}
		if sub.Identifier != nil {
			s.Identifier = clean(sub.Identifier.Value)
		}
		doc.subproblems = append(doc.subproblems, s)
	}
	return doc
}

func (d *v2) accept(ctx context.Context, ch *challenge) (status string, err error) {
	_, err = d.call(ctx, "answer the challenge", endpointChallenge, func(ctx context.Context, c *acme.Client) error {
		got, err := c.Accept(ctx, &acme.Challenge{URI: ch.url, Type: ch.typ, Token: ch.token})
		if err == nil {
			status = got.Status
		}
		return err
	})
	return status, err
}

// finalize is not repeated here: after an error, the order's state tells whether the CSR arrived.
func (d *v2) finalize(ctx context.Context, o *order, csr []byte) error {
	payload, err := json.Marshal(map[string]string{"csr": base64.RawURLEncoding.EncodeToString(csr)})
	if err != nil {
		return fmt.Errorf("encode the CSR: %w", err)
	}
	var answer wireOrder
	ex, err := d.post(ctx, "finalize the order", endpointFinalize, o.finalizeURL, payload, &answer)
	if err == nil {
		answer.into(o, ex)
	}
	return err
}

func (d *v2) fetch(ctx context.Context, o *order) (chain [][]byte, err error) {
	ex, err := d.call(ctx, "fetch the certificate", endpointCertificate, func(ctx context.Context, c *acme.Client) error {
		chain, err = c.FetchCert(ctx, o.certificateURL, true)
		return err
	})
	if err == nil {
		o.alternates = links(ex.header, "alternate", ex.url) // RFC 8555 §7.4.2
	}
	return chain, err
}
