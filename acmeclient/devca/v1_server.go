package devca

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"strings"
)

// The v1 dialect is Let's Encrypt's protocol before RFC 8555, as Boulder's wfe served it until 2021. Its texts and status codes are Boulder's, word for
// word where clients could have come to depend on them; replay_test.go holds it to recordings of the real server. There is no specification: the draft
// that it began from (draft-ietf-acme-acme-02) says other things in many places.

// namespaceV1 goes before a problem's type.
const namespaceV1 = "urn:acme:error:"

// The methods of v1's resources, in the order in which Boulder's Allow header has them.
var getPostV1 = []string{http.MethodGet, http.MethodHead, http.MethodPost}

// endpointsV1 are the resources but the directory. Names are the directory's keys or, for the rest, the "resource" that a payload must name. Signatures are
// checked by the endpoints themselves: some answers come before that.
func endpointsV1() []endpoint {
	return []endpoint{
		{dialectV1, "new-reg", "/acme/new-reg", post, unsigned, (*CA).serveNewReg},
		{dialectV1, "reg", "/acme/reg/", post, unsigned, (*CA).serveReg},
		{dialectV1, "new-authz", "/acme/new-authz", post, unsigned, (*CA).serveNewAuthz},
		{dialectV1, "authz", "/acme/authz-v3/", getPostV1, unsigned, (*CA).serveAuthzV1},
		{dialectV1, "chall", "/acme/chall-v3/", getPostV1, unsigned, (*CA).serveChallengeV1},
		{dialectV1, "new-cert", "/acme/new-cert", post, unsigned, (*CA).serveNewCert},
		{dialectV1, "cert", "/acme/cert/", get, unsigned, (*CA).serveCertV1},
		{dialectV1, "issuer-cert", "/acme/issuer-cert", get, unsigned, (*CA).serveIssuerCert},
		{dialectV1, "revoke-cert", "/acme/revoke-cert", post, unsigned, (*CA).serveRevokeV1},
		{dialectV1, "key-change", "/acme/key-change", post, unsigned, (*CA).serveKeyChangeV1},
		{dialectV1, "terms", "/terms", get, unsigned, (*CA).serveTermsV1},
	}
}

func (ca *CA) serveV1(w http.ResponseWriter, r *http.Request, e *endpoint, id string) {
	if detail := ca.switches.Load().Brownout; detail != "" {
		brownout(w, detail)
		return
	}
	w.Header().Set("Replay-Nonce", ca.nonces.issue())
	if r.Header.Get("Origin") != "" {
		allowOrigin(w.Header(), e, r)
	}
	if r.Method == http.MethodOptions {
		w.Header().Set("Allow", strings.Join(e.methods, ", "))
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=0, no-cache")
	c := &call{r: r, base: baseURL(r), id: id}
	a, err := ca.runEndpoint(c, e)
	if err != nil {
		a = ca.problemReply(err, namespaceV1)
	}
	if c.acct != nil {
		a.with("Boulder-Requester", formatID(c.acct.ID))
	}
	writeReply(w, a)
}

// brownout is what nginx said before Boulder was reached: no nonce, and a document without a status.
func brownout(w http.ResponseWriter, detail string) {
	data, err := json.Marshal(map[string]string{"type": namespaceV1 + "serverInternal", "detail": detail})
	if err != nil {
		panic("devca: encode brownout: " + err.Error()) // cannot happen: two strings
	}
	writeReply(w, &reply{status: http.StatusForbidden, raw: data, ctype: "application/problem+json"})
}

// allowOrigin lets web pages read the answers, as Boulder does.
func allowOrigin(h http.Header, e *endpoint, r *http.Request) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "Link, Replay-Nonce")
	h.Set("Access-Control-Max-Age", "86400")
	if r.Method == http.MethodOptions {
		h.Set("Access-Control-Allow-Methods", strings.Join(e.methods, ", "))
	}
}

// randomEntry is what a directory's random key leads to: a page that says why it is there.
const randomEntry = "https://community.letsencrypt.org/t/adding-random-entries-to-the-directory/33417"

// serveDirectoryV1 has one random key at each GET, so that no client learns to take every value for an endpoint.
func (ca *CA) serveDirectoryV1(c *call) (*reply, error) {
	d := map[string]any{
		"new-reg":     c.base + "/acme/new-reg",
		"new-authz":   c.base + "/acme/new-authz",
		"new-cert":    c.base + "/acme/new-cert",
		"revoke-cert": c.base + "/acme/revoke-cert",
	}
	// Clients before 0.6 choked on anything else.
	if !strings.HasPrefix(c.r.UserAgent(), "LetsEncryptPythonClient") {
		d["key-change"] = c.base + "/acme/key-change"
		d[randomString(8)] = randomEntry
		d["meta"] = map[string]any{
			"terms-of-service": c.base + termsPath,
			"website":          "https://" + caaIdentity,
			"caaIdentities":    []string{caaIdentity}, // in camel case, alone among the keys
		}
	}
	return answer(http.StatusOK, d), nil
}

// serveTermsV1 leads to the current terms.
func (ca *CA) serveTermsV1(c *call) (*reply, error) {
	to := c.base + termsPath
	a := answer(http.StatusFound, nil).with("Location", to)
	a.raw, a.ctype = fmt.Appendf(nil, "<a href=\"%s\">Found</a>.\n\n", html.EscapeString(to)), "text/html; charset=utf-8"
	return a, nil
}

// doing puts Boulder's prefix before what a problem says: "Error creating new cert :: ...".
func doing(what string, err error) error {
	var p *problem
	if !errors.As(err, &p) {
		return err
	}
	q := *p
	q.Detail = what + " :: " + p.Detail
	return &q
}
