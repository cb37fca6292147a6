package devca

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// posterV1 signs as v1 wants it: always the key itself, no url, and a "resource" in each payload.
type posterV1 struct{ poster }

func newPosterV1(t testing.TB, ca *CA) *posterV1 {
	t.Helper()
	p := &posterV1{poster{t: t, h: ca.Handler(), key: newKey(t)}}
	p.register()
	return p
}

func (p *posterV1) register() response {
	p.t.Helper()
	res := p.post("/acme/new-reg", map[string]any{"resource": "new-reg", "agreement": testBase + termsPath})
	if res.status != http.StatusCreated {
		p.t.Fatalf("new-reg: %d %s", res.status, res.raw)
	}
	p.kid = res.header.Get("Location")
	return res
}

func (p *posterV1) post(path string, payload map[string]any) response {
	p.t.Helper()
	url := path
	if strings.HasPrefix(path, "/") {
		url = testBase + path
	}
	nonce := p.do(http.MethodHead, testBase+"/acme/new-reg", "", nil).header.Get("Replay-Nonce")
	head := map[string]any{"alg": "ES256", "nonce": nonce, "jwk": jwkOf(p.t, p.key.Public())}
	f := signWith(p.t, p.key, head, encodeJSON(p.t, payload))
	return p.do(http.MethodPost, url, "", encodeJSON(p.t, f))
}

func (r response) wantV1(t testing.TB, status int, kind, detail string) {
	t.Helper()
	if r.status != status || r.text("type") != namespaceV1+kind || !strings.Contains(r.text("detail"), detail) {
		t.Errorf("got %d %s, want %d %s %q", r.status, r.raw, status, kind, detail)
	}
}

func authzV1(name string) map[string]any {
	return map[string]any{"resource": "new-authz", "identifier": map[string]any{"type": "dns", "value": name}}
}

func newCert(t *testing.T, names ...string) map[string]any {
	t.Helper()
	return map[string]any{"resource": "new-cert", "csr": b64(csrFor(t, newKey(t), names...))}
}

// validate makes the account's authorization of a name valid without connecting anywhere.
func (p *posterV1) validate(ca *CA, name string) {
	p.t.Helper()
	if res := p.post("/acme/new-authz", authzV1(name)); res.status != http.StatusCreated {
		p.t.Fatalf("new-authz: %d %s", res.status, res.raw)
	}
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	for _, z := range ca.state.authzs {
		if z.ident.Value == name && z.status == statusPending {
			z.status, z.expires = statusValid, time.Now().Add(validAuthzLifetime)
		}
	}
}

func TestProtocols_DecideWhatIsServedWhere(t *testing.T) {
	for _, tt := range []struct {
		protocols Protocols
		upgraded  bool
		v1, v2    string // the directories' paths; empty: none
	}{
		{ProtocolsV2, false, "", "/directory"},
		{ProtocolsV2, true, "", "/directory"},
		{ProtocolsV1, false, "/directory", ""},
		{ProtocolsV1, true, "", "/directory"},
		{ProtocolsBeside, false, "/directory", ""},
		{ProtocolsBeside, true, "/directory", "/v2/directory"},
	} {
		ca := quietCA(t, Config{Protocols: tt.protocols})
		if tt.upgraded {
			ca.Upgrade()
		}
		p := &poster{t: t, h: ca.Handler(), key: newKey(t)}
		found := map[string]string{}
		for _, path := range []string{"/directory", "/v2/directory"} {
			res := p.do(http.MethodGet, testBase+path, "", nil)
			_, isV1 := res.body["new-reg"]
			_, isV2 := res.body["newOrder"]
			switch {
			case isV1 && isV2:
				t.Errorf("%s: both key families at once", path)
			case isV1:
				found["v1"] = path
			case isV2:
				found["v2"] = path
			case res.status != http.StatusNotFound:
				t.Errorf("%s: got %d %s", path, res.status, res.raw)
			}
		}
		if found["v1"] != tt.v1 || found["v2"] != tt.v2 {
			t.Errorf("%s, upgraded %v: found %v, want v1 at %q and v2 at %q", tt.protocols, tt.upgraded, found, tt.v1, tt.v2)
		}
		if res := p.do(http.MethodGet, testBase+"/v2/new-nonce", "", nil); (res.status == http.StatusNoContent) != (tt.v2 != "") {
			t.Errorf("%s, upgraded %v: v2's newNonce answers %d", tt.protocols, tt.upgraded, res.status)
		}
		// Over v1 what was begun can be ended, also after an upgrade at the same URL.
		if res := p.do(http.MethodHead, testBase+"/acme/new-cert", "", nil); (res.status == http.StatusMethodNotAllowed) != (tt.protocols != ProtocolsV2) {
			t.Errorf("%s, upgraded %v: v1's new-cert answers %d", tt.protocols, tt.upgraded, res.status)
		}
	}
	if _, err := New(Config{Protocols: "3"}); err == nil {
		t.Error("protocols 3 were accepted")
	}
}

func TestUpgrade_KeepsURLsAccountsAndWhatWasBegun(t *testing.T) {
	for _, tt := range []struct {
		protocols Protocols
		same      bool
	}{{ProtocolsV1, true}, {ProtocolsBeside, false}} {
		dir := filepath.Join(t.TempDir(), "ca")
		ca := startCA(t, newSite(t), Config{Protocols: tt.protocols, Dir: dir})
		v1, v2 := ca.DirectoryURLV1(), ca.DirectoryURL()
		if (v1 == v2) != tt.same || v1 == "" {
			t.Errorf("%s: directories are %q and %q", tt.protocols, v1, v2)
		}
		old := newPosterV1(t, ca)
		old.validate(ca, "a.localhost")
		ca.Upgrade()
		if ca.DirectoryURLV1() != v1 || ca.DirectoryURL() != v2 {
			t.Errorf("%s: the directories moved", tt.protocols)
		}
		if res := old.post("/acme/new-cert", newCert(t, "a.localhost")); res.status != http.StatusCreated {
			t.Errorf("%s: new-cert after the upgrade: %d %s", tt.protocols, res.status, res.raw)
		}
		// The same key finds the same account over v2, made through v1; and the terms are agreed to.
		now := &poster{t: t, h: ca.Handler(), key: old.key}
		res := now.post("/v2/new-acct", map[string]any{"onlyReturnExisting": true})
		res.want(t, http.StatusOK, "")
		if res.header.Get("Location") != testBase+"/v2/acct/1" || old.kid != testBase+"/acme/reg/1" || res.body["termsOfServiceAgreed"] != true {
			t.Errorf("%s: account is %q, was %q: %s", tt.protocols, res.header.Get("Location"), old.kid, res.raw)
		}
		// And the other way round.
		p := newPoster(t, ca)
		young := &posterV1{poster{t: t, h: ca.Handler(), key: p.key}}
		again := young.post("/acme/new-reg", map[string]any{"resource": "new-reg"})
		again.wantV1(t, http.StatusConflict, "malformed", "already in use")
		if again.header.Get("Location") != testBase+"/acme/reg/2" {
			t.Errorf("%s: Location is %q", tt.protocols, again.header.Get("Location"))
		}
	}
}

func TestV1Switches_EndTheServiceStepByStep(t *testing.T) {
	ca := quietCA(t, Config{Protocols: ProtocolsBeside})
	ca.Upgrade()
	old := newPosterV1(t, ca)
	ca.SetV1(V1Switches{NoNewRegistrations: true, NoNewNames: true})
	stranger := &posterV1{poster{t: t, h: ca.Handler(), key: newKey(t)}}
	stranger.post("/acme/new-reg", map[string]any{"resource": "new-reg"}).wantV1(t, 403, "unauthorized", "Account creation on ACMEv1 is disabled")
	old.post("/acme/new-authz", authzV1("a.localhost")).wantV1(t, 403, "unauthorized", "Validations for new domains are disabled in the V1 API")

	ca.SetV1(V1Switches{Brownout: "ACMEv1 Brownout in Progress."})
	for _, path := range []string{"/directory", "/acme/issuer-cert", "/acme/new-reg"} {
		res := old.do(http.MethodGet, testBase+path, "", nil)
		if res.status != 403 || string(res.raw) != `{"detail":"ACMEv1 Brownout in Progress.","type":"urn:acme:error:serverInternal"}` || res.header.Get("Replay-Nonce") != "" {
			t.Errorf("%s: got %d %s", path, res.status, res.raw)
		}
	}
	newPoster(t, ca) // v2 is not touched
	ca.SetV1(V1Switches{})
	if res := old.post("/acme/new-authz", authzV1("a.localhost")); res.status != http.StatusCreated {
		t.Errorf("after the brownout: %d %s", res.status, res.raw)
	}
}

func TestNewCert_CanBeAsynchronousAsTheDraftAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := quietCA(t, Config{Protocols: ProtocolsV1, ProcessingTime: time.Minute, RetryAfter: 20 * time.Second})
		p := newPosterV1(t, ca)
		p.validate(ca, "a.localhost")
		res := p.post("/acme/new-cert", newCert(t, "a.localhost"))
		url := res.header.Get("Location")
		if res.status != http.StatusAccepted || len(res.raw) > 0 || url == "" || res.header.Get("Retry-After") != "20" {
			t.Fatalf("new-cert: %d %s %v", res.status, res.raw, res.header)
		}
		time.Sleep(59 * time.Second)
		if res = p.do(http.MethodGet, url, "", nil); res.status != http.StatusAccepted || len(res.raw) > 0 {
			t.Fatalf("after 59 s: %d", res.status)
		}
		time.Sleep(time.Second)
		if res = p.do(http.MethodGet, url, "", nil); res.status != http.StatusOK || res.header.Get("Content-Type") != "application/pkix-cert" {
			t.Fatalf("after a minute: %d %v", res.status, res.header)
		}
	})
}

func TestLog_NamesTheDialect(t *testing.T) {
	var log syncBuffer
	ca := quietCA(t, Config{Protocols: ProtocolsV1, Log: &log})
	p := newPosterV1(t, ca)
	p.validate(ca, "a.localhost")
	p.post("/acme/new-cert", newCert(t, "a.localhost"))
	ca.Upgrade()
	issueQuietly(t, ca, newPoster(t, ca), nil, "b.localhost")
	for _, want := range []string{
		"v1 account 1: registered", "v1 account 1 authorization 1: new for a.localhost", "v1 account 1: issued a.localhost", "v2 is served from now on",
		"v2 account 2 order 2: new order for b.localhost", "v2 account 2 order 2: issued b.localhost",
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log lacks %q:\n%s", want, log.String())
		}
	}
}

func TestV1_RefusesWhatTheRecordingsDoNotShow(t *testing.T) {
	ca := quietCA(t, Config{Protocols: ProtocolsV1})
	p := newPosterV1(t, ca)
	p.post("/acme/authz-v3/1", map[string]any{"resource": "authz"}).wantV1(t, 404, "malformed", "No such authorization")
	p.post("/acme/chall-v3/x/y", map[string]any{"resource": "challenge"}).wantV1(t, 400, "malformed", "Invalid authorization ID")
	p.validate(ca, "a.localhost")
	p.post("/acme/chall-v3/1/y", map[string]any{"resource": "challenge"}).wantV1(t, 404, "malformed", "No such challenge")
	p.post("/acme/new-cert", newCert(t, "a.localhost", "127.0.0.1")).wantV1(t, 400, "malformed", "IP address")
	p.post("/acme/revoke-cert", map[string]any{"resource": "revoke-cert", "certificate": b64(ca.authority.intermediate.Raw)}).wantV1(t, 404, "malformed", "No such certificate")
	p.post("/acme/key-change", map[string]any{"resource": "key-change"}).wantV1(t, 400, "malformed", "Parse error")
	nobody := &posterV1{poster{t: t, h: ca.Handler(), key: newKey(t)}}
	if res := nobody.post("/acme/new-reg", map[string]any{"resource": "new-reg"}); res.status != http.StatusCreated {
		t.Fatalf("new-reg without agreement: %d %s", res.status, res.raw)
	}
	nobody.post("/acme/chall-v3/1/"+ca.state.authzs[1].challenges[0].id, map[string]any{"resource": "challenge"}).wantV1(t, 403, "unauthorized", "agree")
}
