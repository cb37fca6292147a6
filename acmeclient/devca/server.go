package devca

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// call is one request on its way through an endpoint.
type call struct {
	r    *http.Request
	base string // scheme and host as the client used them; what all URLs of the answer start with
	id   string // what follows the endpoint's path

	// What the signature proved; see verify.
	acct    *account // nil when signed by a key that is no account's
	key     *jose.JSONWebKey
	payload []byte
}

// reply is what an endpoint answers. Body is encoded as JSON unless Raw is set.
type reply struct {
	status int
	header http.Header
	body   any
	raw    []byte
	ctype  string // of raw
}

func answer(status int, body any) *reply {
	return &reply{status: status, header: make(http.Header), body: body}
}

func (a *reply) with(key, value string) *reply {
	a.header.Add(key, value)
	return a
}

func link(url, rel string) string { return fmt.Sprintf("<%s>;rel=%q", url, rel) }

// endpoint is one resource of one dialect. A path that ends in "/" is followed by an id.
type endpoint struct {
	dialect string
	name    string
	path    string
	methods []string
	use     keyUse
	serve   func(*CA, *call) (*reply, error)
}

var (
	get  = []string{http.MethodGet, http.MethodHead}
	post = []string{http.MethodPost}
)

// endpointsV2 are the resources of RFC 8555 §7.1 but the directory, whose address depends on the configuration.
func endpointsV2() []endpoint {
	return []endpoint{
		{dialectV2, "newNonce", "/v2/new-nonce", get, unsigned, (*CA).serveNewNonce},
		{dialectV2, "newAccount", "/v2/new-acct", post, byJWK, (*CA).serveNewAccount},
		{dialectV2, "account", "/v2/acct/", post, byKID, (*CA).serveAccount},
		{dialectV2, "orders", "/v2/orders/", post, byKID, (*CA).serveOrders},
		{dialectV2, "newOrder", "/v2/new-order", post, byKID, (*CA).serveNewOrder},
		{dialectV2, "order", "/v2/order/", post, byKID, (*CA).serveOrder},
		{dialectV2, "authorization", "/v2/authz/", post, byKID, (*CA).serveAuthorization},
		{dialectV2, "challenge", "/v2/chall/", post, byKID, (*CA).serveChallenge},
		{dialectV2, "finalize", "/v2/finalize/", post, byKID, (*CA).serveFinalize},
		{dialectV2, "certificate", "/v2/cert/", post, byKID, (*CA).serveCertificate},
		{dialectV2, "revokeCert", "/v2/revoke-cert", post, byEither, (*CA).serveRevoke},
		{dialectV2, "keyChange", "/v2/key-change", post, byKID, (*CA).serveKeyChange},
		{dialectV2, "renewalInfo", "/v2/renewal-info/", get, unsigned, (*CA).serveRenewalInfo},
	}
}

func (e *endpoint) matches(path string) (id string, ok bool) {
	if !strings.HasSuffix(e.path, "/") {
		return "", path == e.path
	}
	id, ok = strings.CutPrefix(path, e.path)
	return id, ok && id != ""
}

// The dialects, as the log names them.
const (
	dialectV1 = "v1"
	dialectV2 = "v2"
)

// speaks reports whether an endpoint is there now. What v1 has begun can be finished after an upgrade.
func (ca *CA) speaks(e *endpoint) bool {
	if e.dialect == dialectV1 {
		return ca.cfg.Protocols != ProtocolsV2 && (e.name != endpointDirectory || ca.cfg.Protocols == ProtocolsBeside || !ca.upgraded.Load())
	}
	return ca.cfg.Protocols == ProtocolsV2 || ca.upgraded.Load()
}

// ServeHTTP finds the endpoint, lets Config.Fault go first, and answers.
func (ca *CA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == termsPath {
		ca.serveTerms(w)
		return
	}
	for i := range ca.endpoints {
		e := &ca.endpoints[i]
		if id, ok := e.matches(r.URL.Path); ok && ca.speaks(e) {
			ca.stats.request(e.name)
			if ca.cfg.Fault != nil && ca.cfg.Fault(w, r, e.name) {
				return
			}
			if e.dialect == dialectV1 {
				ca.serveV1(w, r, e, id)
			} else {
				ca.serveV2(w, r, e, id)
			}
			return
		}
	}
	http.NotFound(w, r)
}

func (ca *CA) serveV2(w http.ResponseWriter, r *http.Request, e *endpoint, id string) {
	c := &call{r: r, base: baseURL(r), id: id}
	// RFC 8555 §6.5: a new nonce "in every successful response to a POST request and SHOULD […] in error responses as well". Here: in every answer.
	w.Header().Set("Replay-Nonce", ca.nonces.issue())
	w.Header().Set("Cache-Control", "public, max-age=0, no-cache")
	if e.name != endpointDirectory {
		// RFC 8555 §7.1: "the "index" link relation […] present on all resources other than the directory".
		w.Header().Add("Link", link(c.base+ca.paths.v2, "index"))
	}
	a, err := ca.runEndpoint(c, e)
	if err != nil {
		a = ca.problemReply(err, namespaceV2)
	}
	writeReply(w, a)
}

func (ca *CA) runEndpoint(c *call, e *endpoint) (*reply, error) {
	if !slices.Contains(e.methods, c.r.Method) {
		return nil, newProblem(http.StatusMethodNotAllowed, "malformed", "Method not allowed").with("Allow", strings.Join(e.methods, ", "))
	}
	if e.use != unsigned {
		if err := ca.verify(c, e.use); err != nil {
			return nil, err
		}
	}
	return e.serve(ca, c)
}

// problemReply shows problems as they are; anything else is logged, and the client learns only that it happened.
func (ca *CA) problemReply(err error, namespace string) *reply {
	var p *problem
	if !errors.As(err, &p) {
		ca.logf("internal error: %v", err)
		p = newProblem(http.StatusInternalServerError, "serverInternal", "The CA could not do this; its log says why")
	}
	a := answer(p.Status, p.in(namespace))
	a.ctype = "application/problem+json"
	for k, vs := range p.header {
		a.header[k] = vs
	}
	return a
}

func writeReply(w http.ResponseWriter, a *reply) {
	h := w.Header()
	for k, vs := range a.header {
		for _, v := range vs {
			h.Add(k, v)
		}
	}
	data := a.raw
	if a.body != nil {
		var err error
		if data, err = json.MarshalIndent(a.body, "", "  "); err != nil {
			panic("devca: encode own answer: " + err.Error()) // cannot happen: only types of this package
		}
		if a.ctype == "" {
			a.ctype = "application/json"
		}
	}
	if a.ctype != "" {
		h.Set("Content-Type", a.ctype)
	}
	h.Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(a.status)
	_, _ = w.Write(data) // the client went away; there is nobody to tell
}

func baseURL(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return (&url.URL{Scheme: scheme, Host: r.Host}).String()
}

// url is the request's own, as the client must have signed it.
func (c *call) url() string { return c.base + c.r.URL.RequestURI() }

func (c *call) accountURL(id int64) string { return c.base + "/v2/acct/" + formatID(id) }

// accountID reads an account URL of this server.
func (c *call) accountID(kid string) (int64, bool) {
	s, ok := strings.CutPrefix(kid, c.base+"/v2/acct/")
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseInt(s, 10, 64)
	return id, err == nil && formatID(id) == s
}

// retryAfter is an HTTP header value in whole seconds, at least 1.
func retryAfter(d time.Duration) string {
	return strconv.FormatInt(max(1, int64(d.Round(time.Second)/time.Second)), 10)
}
