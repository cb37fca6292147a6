package devca

import (
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/acme"
)

func TestAccount_IsFoundUpdatedAndDeactivated(t *testing.T) {
	ca := quietCA(t, Config{})
	p := newPoster(t, ca)
	byKey := &poster{t: t, h: p.h, key: p.key}
	for _, payload := range []map[string]any{{"onlyReturnExisting": true}, {"termsOfServiceAgreed": true}, {}} {
		res := byKey.post("/v2/new-acct", payload)
		res.want(t, 200, "")
		if res.header.Get("Location") != p.kid {
			t.Errorf("%v: Location is %q, want %q", payload, res.header.Get("Location"), p.kid)
		}
	}
	res := p.post(p.kid, map[string]any{"contact": []string{"mailto:a@test.example"}, "unknown": 1})
	res.want(t, 200, "")
	if got := string(encodeJSON(t, p.post(p.kid, nil).body["contact"])); got != `["mailto:a@test.example"]` {
		t.Errorf("contact is %s", got)
	}
	p.post(p.kid, map[string]any{"contact": []string{"tel:1"}}).want(t, 400, "unsupportedContact")
	p.post(p.kid, map[string]any{"contact": []string{"mailto:a@x.test,b@x.test"}}).want(t, 400, "invalidContact")
	p.post(p.kid, map[string]any{"contact": []string{"mailto:a@x.test?subject=b"}}).want(t, 400, "invalidContact")
	p.post(p.kid, map[string]any{"status": "revoked"}).want(t, 400, "malformed")
	newPoster(t, ca).post(p.kid, nil).want(t, 403, "unauthorized")

	res = p.post(p.kid, map[string]any{"status": "deactivated"})
	res.want(t, 200, "")
	if res.text("status") != statusDeactivated {
		t.Errorf("account is %s", res.raw)
	}
	p.post(p.kid, nil).want(t, 401, "unauthorized")
	byKey.post("/v2/new-acct", map[string]any{"termsOfServiceAgreed": true}).want(t, 401, "unauthorized")
}

func TestNewAccount_NeedsTheTermsAndMakesNothingWhenAskedNotTo(t *testing.T) {
	ca := quietCA(t, Config{})
	p := &poster{t: t, h: ca.Handler(), key: newKey(t)}
	res := p.post("/v2/new-acct", map[string]any{})
	res.want(t, 403, "userActionRequired")
	if !strings.Contains(strings.Join(res.header["Link"], " "), `rel="terms-of-service"`) {
		t.Errorf("Link is %v", res.header["Link"])
	}
	p.post("/v2/new-acct", map[string]any{"onlyReturnExisting": true}).want(t, 400, "accountDoesNotExist")
	p.post("/v2/new-acct", map[string]any{"termsOfServiceAgreed": true, "contact": []string{"x"}}).want(t, 400, "unsupportedContact")
	if n := ca.Stats().Accounts; n != 0 {
		t.Errorf("%d accounts were made", n)
	}
}

func TestNewAccount_MakesOneAccountForOneKeyHoweverManyAsk(t *testing.T) {
	ca := quietCA(t, Config{Dir: filepath.Join(t.TempDir(), "ca")})
	key := newKey(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			p := &poster{t: t, h: ca.Handler(), key: key}
			if res := p.post("/v2/new-acct", map[string]any{"termsOfServiceAgreed": true}); res.status >= 300 {
				t.Errorf("got %d %s", res.status, res.raw)
			}
		})
	}
	wg.Wait()
	if n := ca.Stats().Accounts; n != 1 {
		t.Errorf("%d accounts were made", n)
	}
}

func TestKeyChange_ByAClientThatNobodyHereWrote(t *testing.T) {
	s := newSite(t)
	dir := filepath.Join(t.TempDir(), "ca")
	ca := startCA(t, s, Config{Dir: dir})
	client := newClient(t, ca, newKey(t))
	uri := register(t, client)
	other := newClient(t, ca, newKey(t))
	register(t, other)

	if err := client.AccountKeyRollover(t.Context(), other.Key); err == nil {
		t.Error("took another account's key")
	} else {
		wantProblem(t, err, http.StatusConflict, "malformed")
	}
	oldKey, next := client.Key, newKey(t)
	must(t, client.AccountKeyRollover(t.Context(), next))
	issue(t, s, client, challengeHTTP, "a.localhost")

	stale := newClient(t, ca, oldKey)
	stale.KID = acme.KeyID(uri)
	if _, err := stale.AuthorizeOrder(t.Context(), ids("a.localhost")); err == nil {
		t.Error("the old key still works")
	}
	must(t, ca.Close())

	again := startCA(t, s, Config{Dir: dir})
	a, err := newClient(t, again, next).GetReg(t.Context(), "")
	must(t, err)
	if a.URI != uri {
		t.Errorf("after a restart the new key's account is %s, want %s", a.URI, uri)
	}
}

func TestKeyChange_ChecksTheInnerJWS(t *testing.T) {
	ca := quietCA(t, Config{})
	p := newPoster(t, ca)
	next := newKey(t)
	url := testBase + "/v2/key-change"
	inner := func(change func(head, payload map[string]any)) flattened {
		head := map[string]any{"alg": "ES256", "jwk": jwkOf(t, next.Public()), "url": url}
		payload := map[string]any{"account": p.kid, "oldKey": jwkOf(t, p.key.Public())}
		change(head, payload)
		return signWith(t, next, head, encodeJSON(t, payload))
	}
	for name, change := range map[string]func(head, payload map[string]any){
		"another url":        func(head, _ map[string]any) { head["url"] = testBase + "/v2/new-acct" },
		"a nonce":            func(head, _ map[string]any) { head["nonce"] = p.nonce() },
		"a kid":              func(head, _ map[string]any) { delete(head, "jwk"); head["kid"] = p.kid },
		"another account":    func(_, payload map[string]any) { payload["account"] = testBase + "/v2/acct/77" },
		"another old key":    func(_, payload map[string]any) { payload["oldKey"] = jwkOf(t, next.Public()) },
		"no old key":         func(_, payload map[string]any) { delete(payload, "oldKey") },
		"a key not its own":  func(head, _ map[string]any) { head["jwk"] = jwkOf(t, newKey(t).Public()) },
		"alg of another key": func(head, _ map[string]any) { head["alg"] = "RS256" },
	} {
		t.Run(name, func(t *testing.T) { p.post("/v2/key-change", inner(change)).want(t, 400, "malformed") })
	}
	p.post("/v2/key-change", inner(func(_, _ map[string]any) {})).want(t, 200, "")
	p.post(p.kid, nil).want(t, 400, "malformed") // signed by the old key
}

func TestDeactivate_ByAClientThatNobodyHereWrote(t *testing.T) {
	s := newSite(t)
	ca := startCA(t, s, Config{})
	client := newClient(t, ca, newKey(t))
	register(t, client)
	o := authorize(t, s, client, challengeTLS, "a.localhost")
	must(t, client.RevokeAuthorization(t.Context(), o.AuthzURLs[0]))
	if o, err := client.GetOrder(t.Context(), o.URI); err != nil || o.Status != acme.StatusInvalid {
		t.Errorf("order is %+v, %v", o, err)
	}
	must(t, client.DeactivateReg(t.Context()))
	_, err := client.AuthorizeOrder(t.Context(), ids("a.localhost"))
	wantProblem(t, err, http.StatusUnauthorized, "unauthorized")
}
