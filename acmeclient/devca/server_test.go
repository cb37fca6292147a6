package devca

import (
	"net/http"
	"strings"
	"testing"
)

func TestNewNonce_AnswersHeadAndGet(t *testing.T) {
	ca := quietCA(t, Config{})
	p := &poster{t: t, h: ca.Handler(), key: newKey(t)}
	seen := make(map[string]bool)
	for method, status := range map[string]int{http.MethodHead: 200, http.MethodGet: 204} {
		res := p.do(method, testBase+"/v2/new-nonce", "", nil)
		nonce := res.header.Get("Replay-Nonce")
		if res.status != status || nonce == "" || seen[nonce] {
			t.Errorf("%s: got %d with nonce %q", method, res.status, nonce)
		}
		// RFC 8555 §7.2: "The server MUST include a Cache-Control header field with the "no-store" directive".
		if !strings.Contains(strings.Join(res.header["Cache-Control"], ","), "no-store") {
			t.Errorf("%s: Cache-Control is %v", method, res.header["Cache-Control"])
		}
		seen[nonce] = true
	}
}

func TestNonces_ForgetTheOldestFirst(t *testing.T) {
	n := newNonces()
	first := n.issue()
	var last string
	for range maxNonces {
		last = n.issue()
	}
	if n.take(first) {
		t.Error("the oldest nonce is still good")
	}
	if !n.take(last) || n.take(last) {
		t.Error("the newest nonce is not good exactly once")
	}
	if len(n.live) > maxNonces || len(n.ring) > maxNonces {
		t.Errorf("%d nonces are kept", len(n.live))
	}
}

func TestServe_RefusesOtherMethods(t *testing.T) {
	ca := quietCA(t, Config{})
	p := newPoster(t, ca)
	for _, tt := range []struct{ method, path, allow string }{
		{http.MethodGet, "/v2/new-order", "POST"}, // RFC 8555 §6.3: a GET is refused with 405
		{http.MethodGet, "/v2/acct/1", "POST"},
		{http.MethodPost, "/directory", "GET, HEAD"},
		{http.MethodPut, "/v2/new-nonce", "GET, HEAD"},
		{http.MethodPost, "/v2/renewal-info/a.b", "GET, HEAD"},
	} {
		res := p.do(tt.method, testBase+tt.path, "", nil)
		res.want(t, http.StatusMethodNotAllowed, "malformed")
		if res.header.Get("Allow") != tt.allow {
			t.Errorf("%s %s: Allow is %q, want %q", tt.method, tt.path, res.header.Get("Allow"), tt.allow)
		}
	}
	if res := p.do(http.MethodGet, testBase+"/nowhere", "", nil); res.status != http.StatusNotFound {
		t.Errorf("unknown path: got %d", res.status)
	}
	if res := p.do(http.MethodGet, testBase+"/v2/acct/", "", nil); res.status != http.StatusNotFound {
		t.Errorf("account without an id: got %d", res.status)
	}
	if res := p.do(http.MethodGet, testBase+termsPath, "", nil); res.status != http.StatusOK || !strings.Contains(string(res.raw), "trying out") {
		t.Errorf("terms: got %d %s", res.status, res.raw)
	}
}

func TestFault_AnswersBeforeTheEndpoint(t *testing.T) {
	s := newSite(t)
	failing := true
	ca := startCA(t, s, Config{Fault: func(w http.ResponseWriter, r *http.Request, endpoint string) bool {
		if failing && endpoint == "newOrder" {
			http.Error(w, "no", http.StatusInternalServerError)
			return true
		}
		return false
	}})
	client := newClient(t, ca, newKey(t))
	register(t, client)
	if _, err := client.AuthorizeOrder(t.Context(), ids("a.localhost")); err == nil {
		t.Error("the fault was not injected")
	}
	failing = false
	issue(t, s, client, challengeHTTP, "a.localhost")
	if st := ca.Stats(); st.Requests["newOrder"] != 2 || st.Orders["a.localhost"] != 1 {
		t.Errorf("stats are %+v", st)
	}
}

func TestLog_HoldsNothingSecret(t *testing.T) {
	s := newSite(t)
	var log syncBuffer
	ca := startCA(t, s, Config{Log: &log})
	client := newClient(t, ca, newKey(t))
	register(t, client)
	o := authorize(t, s, client, challengeHTTP, "a.localhost")
	z, err := client.GetAuthorization(t.Context(), o.AuthzURLs[0])
	must(t, err)
	for _, secret := range []string{z.Challenges[0].Token, "PRIVATE"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has %q:\n%s", secret, log.String())
		}
	}
	if strings.Count(log.String(), "\n") < 3 {
		t.Errorf("log is %q", log.String())
	}
}
