package devca

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func identifiers(names ...string) map[string]any {
	var list []any
	for _, id := range ids(names...) {
		list = append(list, map[string]any{"type": id.Type, "value": id.Value})
	}
	return map[string]any{"identifiers": list}
}

// makeValid decides an order's authorizations without connecting anywhere.
func makeValid(ca *CA, o response) {
	ca.state.mu.Lock()
	defer ca.state.mu.Unlock()
	for _, u := range o.body["authorizations"].([]any) {
		url := u.(string)
		id, err := strconv.ParseInt(url[strings.LastIndexByte(url, '/')+1:], 10, 64)
		if err != nil {
			panic(err) // cannot happen: the CA's own URL
		}
		ca.state.authzs[id].status = statusValid
	}
}

func TestNewOrder_RefusesWhatItCannotIssue(t *testing.T) {
	ca := quietCA(t, Config{Profiles: map[string]Profile{"short": {Description: "short-lived", Lifetime: time.Hour}}})
	p := newPoster(t, ca)
	long := strings.Repeat("a", 64)
	many := identifiers()
	var list []any
	for i := range maxNames + 1 {
		list = append(list, map[string]any{"type": "dns", "value": "n" + formatID(int64(i)) + ".test"})
	}
	many["identifiers"] = list
	for _, tt := range []struct {
		name    string
		payload map[string]any
		kind    string
	}{
		{"no identifiers", map[string]any{}, "malformed"},
		{"empty identifiers", map[string]any{"identifiers": []any{}}, "malformed"},
		{"identifiers of another shape", map[string]any{"identifiers": "a.test"}, "malformed"},
		{"too many", many, "malformed"},
		{"unknown type", map[string]any{"identifiers": []any{map[string]any{"type": "email", "value": "a@b.test"}}}, "unsupportedIdentifier"},
		{"wildcard without dns-01", identifiers("*.a.test"), "rejectedIdentifier"},
		{"single label", identifiers("devbox"), "rejectedIdentifier"},
		{"empty label", identifiers("a..test"), "rejectedIdentifier"},
		{"trailing dot", identifiers("a.test."), "rejectedIdentifier"},
		{"underscore", identifiers("a_b.test"), "rejectedIdentifier"},
		{"Unicode", identifiers("bücher.test"), "rejectedIdentifier"},
		{"hyphen first", identifiers("-a.test"), "rejectedIdentifier"},
		{"long label", identifiers(long + ".test"), "rejectedIdentifier"},
		{"long name", identifiers(strings.Repeat("abcdefg.", 32) + "test"), "rejectedIdentifier"},
		{"numeric last label", identifiers("a.1"), "rejectedIdentifier"},
		{"address as dns", map[string]any{"identifiers": []any{map[string]any{"type": "dns", "value": "127.0.0.1"}}}, "rejectedIdentifier"},
		{"address not canonical", map[string]any{"identifiers": []any{map[string]any{"type": "ip", "value": "::0001"}}}, "malformed"},
		{"unknown profile", map[string]any{"identifiers": identifiers("a.test")["identifiers"], "profile": "long"}, "invalidProfile"},
		{"notAfter", map[string]any{"identifiers": identifiers("a.test")["identifiers"], "notAfter": "2030-01-01T00:00:00Z"}, "malformed"},
		{"replaces nonsense", map[string]any{"identifiers": identifiers("a.test")["identifiers"], "replaces": "x"}, "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) { p.post("/v2/new-order", tt.payload).want(t, 400, tt.kind) })
	}
	res := p.post("/v2/new-order", identifiers("good.test", "bad_one.test", "*.test"))
	res.want(t, 400, "rejectedIdentifier")
	if subs, _ := res.body["subproblems"].([]any); len(subs) != 2 {
		t.Errorf("subproblems are %v, want one for each refused name", res.body["subproblems"])
	}
}

func TestNewOrder_LowersCaseDropsDoublesAndIgnoresUnknownFields(t *testing.T) {
	ca := quietCA(t, Config{})
	p := newPoster(t, ca)
	req := identifiers("A.Test", "a.test", "::1")
	req["someday"] = "a new field"
	o := p.post("/v2/new-order", req)
	o.want(t, 201, "")
	if got := string(encodeJSON(t, o.body["identifiers"])); got != `[{"type":"dns","value":"a.test"},{"type":"ip","value":"::1"}]` {
		t.Errorf("identifiers are %s", got)
	}
	if o.text("status") != statusPending || o.header.Get("Location") == "" || !strings.Contains(strings.Join(o.header["Link"], " "), `rel="index"`) {
		t.Errorf("order is %s with %v", o.raw, o.header)
	}
}

func TestNewOrder_WithoutAWayToValidateIsTheServersFault(t *testing.T) {
	var log syncBuffer
	ca, err := New(Config{Log: &log})
	must(t, err)
	newPoster(t, ca).post("/v2/new-order", identifiers("a.test")).want(t, 500, "serverInternal")
	if !strings.Contains(log.String(), "HTTPAddr") {
		t.Errorf("the log does not say what is missing: %s", log.String())
	}
}

func TestFinalize_ChecksTheRequest(t *testing.T) {
	ca := quietCA(t, Config{})
	p := newPoster(t, ca)
	o := p.post("/v2/new-order", identifiers("a.test", "127.0.0.1"))
	finalize := func(csr any) response { return p.post(o.text("finalize"), map[string]any{"csr": csr}) }
	good := csrFor(t, newKey(t), "a.test", "127.0.0.1")
	finalize(b64(good)).want(t, 403, "orderNotReady")
	makeValid(ca, o)
	broken := append([]byte(nil), good...)
	broken[len(broken)-1] ^= 1
	for _, tt := range []struct {
		name string
		csr  any
		kind string
	}{
		{"not base64", "%%%", "malformed"},
		{"not a string", 7, "malformed"},
		{"not a CSR", b64([]byte("junk")), "badCSR"},
		{"signature broken", b64(broken), "badCSR"},
		{"name missing", b64(csrFor(t, newKey(t), "a.test")), "badCSR"},
		{"name too many", b64(csrFor(t, newKey(t), "a.test", "b.test", "127.0.0.1")), "badCSR"},
		{"account's key", b64(csrFor(t, p.key, "a.test", "127.0.0.1")), "badCSR"},
	} {
		t.Run(tt.name, func(t *testing.T) { finalize(tt.csr).want(t, 400, tt.kind) })
	}
	other := newPoster(t, ca)
	other.post(o.text("finalize"), map[string]any{"csr": b64(good)}).want(t, 403, "unauthorized")
	if res := p.post(o.header.Get("Location"), nil); res.text("status") != statusReady {
		t.Errorf("after bad requests the order is %s", res.text("status"))
	}
	done := finalize(b64(good))
	done.want(t, 200, "")
	if done.text("status") != statusValid {
		t.Fatalf("order is %s", done.raw)
	}
	finalize(b64(good)).want(t, 403, "orderNotReady")

	p.post(done.text("certificate"), map[string]any{}).want(t, 400, "malformed")
	other.post(done.text("certificate"), nil).want(t, 403, "unauthorized")
	chain := p.post(done.text("certificate"), nil)
	if chain.header.Get("Content-Type") != "application/pem-certificate-chain" {
		t.Errorf("content type is %q", chain.header.Get("Content-Type"))
	}
	block, _ := pem.Decode(chain.raw)
	leaf, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	if leaf.Subject.CommonName != "a.test" || leaf.KeyUsage != x509.KeyUsageDigitalSignature || leaf.IsCA {
		t.Errorf("leaf is %v, usage %v", leaf.Subject, leaf.KeyUsage)
	}
}

func TestCertificate_HasNoCommonNameWhenTheNameIsTooLong(t *testing.T) {
	ca := quietCA(t, Config{})
	p := newPoster(t, ca)
	name := strings.Repeat("a", 60) + ".example.test"
	leaf, _ := issueQuietly(t, ca, p, map[string]any{}, name)
	if leaf.Subject.CommonName != "" {
		t.Errorf("common name is %q", leaf.Subject.CommonName)
	}
	must(t, leaf.VerifyHostname(name))
}

// issueQuietly issues without any validation; extra goes into newOrder.
func issueQuietly(t *testing.T, ca *CA, p *poster, extra map[string]any, names ...string) (*x509.Certificate, response) {
	t.Helper()
	req := identifiers(names...)
	for k, v := range extra {
		req[k] = v
	}
	o := p.post("/v2/new-order", req)
	o.want(t, 201, "")
	makeValid(ca, o)
	done := p.post(o.text("finalize"), map[string]any{"csr": b64(csrFor(t, newKey(t), names...))})
	done.want(t, 200, "")
	chain := p.post(done.text("certificate"), nil)
	block, _ := pem.Decode(chain.raw)
	if block == nil {
		t.Fatalf("no certificate in %d %s", chain.status, chain.raw)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	return leaf, o
}

func TestOrder_StaysInProcessingForAsLongAsConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := quietCA(t, Config{ProcessingTime: time.Hour, RetryAfter: 90 * time.Second})
		p := newPoster(t, ca)
		o := p.post("/v2/new-order", identifiers("a.test"))
		makeValid(ca, o)
		res := p.post(o.text("finalize"), map[string]any{"csr": b64(csrFor(t, newKey(t), "a.test"))})
		if res.text("status") != statusProcessing || res.header.Get("Retry-After") != "90" {
			t.Fatalf("after finalize: %s, Retry-After %q", res.raw, res.header.Get("Retry-After"))
		}
		time.Sleep(59 * time.Minute)
		if res = p.post(o.header.Get("Location"), nil); res.text("status") != statusProcessing {
			t.Fatalf("after 59 minutes: %s", res.raw)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if res = p.post(o.header.Get("Location"), nil); res.text("status") != statusValid || res.text("certificate") == "" {
			t.Fatalf("after an hour: %s", res.raw)
		}
	})
}

func TestOrder_EndsWithTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := quietCA(t, Config{Lifetime: time.Minute})
		p := newPoster(t, ca)
		o := p.post("/v2/new-order", identifiers("a.test"))
		leaf, _ := issueQuietly(t, ca, p, nil, "b.test")
		time.Sleep(time.Minute)
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: ca.Roots()}); err == nil {
			t.Error("the certificate outlives its minute")
		}
		time.Sleep(orderLifetime)
		if res := p.post(o.header.Get("Location"), nil); res.text("status") != statusInvalid {
			t.Errorf("order is %s", res.raw)
		}
		z := p.post(o.body["authorizations"].([]any)[0].(string), nil)
		if z.text("status") != statusInvalid {
			t.Errorf("authorization is %s", z.raw)
		}
		list := p.post(strings.Replace(p.kid, "/acct/", "/orders/", 1), nil)
		if got, _ := list.body["orders"].([]any); len(got) != 1 {
			t.Errorf("orders are %s, want the issued one alone", list.raw)
		}
	})
}

func TestAuthorization_IsReusedOnlyWhenConfigured(t *testing.T) {
	for _, reuse := range []bool{false, true} {
		ca := quietCA(t, Config{ReuseAuthorizations: reuse})
		p := newPoster(t, ca)
		makeValid(ca, p.post("/v2/new-order", identifiers("a.test")))
		o := p.post("/v2/new-order", identifiers("a.test"))
		if ready := o.text("status") == statusReady; ready != reuse {
			t.Errorf("reuse %v: the second order is %s", reuse, o.text("status"))
		}
		other := newPoster(t, ca)
		if o := other.post("/v2/new-order", identifiers("a.test")); o.text("status") != statusPending {
			t.Errorf("reuse %v: another account's order is %s", reuse, o.text("status"))
		}
	}
}

func TestAuthorization_IsItsAccountsAlone(t *testing.T) {
	ca := quietCA(t, Config{})
	p, other := newPoster(t, ca), newPoster(t, ca)
	o := p.post("/v2/new-order", identifiers("a.test"))
	authz := o.body["authorizations"].([]any)[0].(string)
	other.post(o.header.Get("Location"), nil).want(t, 403, "unauthorized")
	other.post(authz, nil).want(t, 403, "unauthorized")
	other.post(authz, map[string]any{"status": "deactivated"}).want(t, 403, "unauthorized")
	p.post("/v2/authz/999", nil).want(t, 404, "malformed")
	p.post("/v2/order/x", nil).want(t, 404, "malformed")
	p.post("/v2/cert/00", nil).want(t, 404, "malformed")
	p.post(authz, map[string]any{"status": "valid"}).want(t, 400, "malformed")
	p.post(authz, map[string]any{"status": "deactivated"}).want(t, 200, "")
	p.post(authz, map[string]any{"status": "deactivated"}).want(t, 400, "malformed")
	if res := p.post(o.header.Get("Location"), nil); res.text("status") != statusInvalid {
		t.Errorf("order is %s", res.raw)
	}
	_, ok := p.post(authz, nil).body["challenges"].([]any)
	if !ok {
		t.Errorf("a deactivated authorization has no list of challenges")
	}
}

func TestProfile_SetsTheLifetime(t *testing.T) {
	ca := quietCA(t, Config{Profiles: map[string]Profile{"short": {Description: "short-lived", Lifetime: time.Hour}}})
	p := newPoster(t, ca)
	dir := p.do(http.MethodGet, testBase+"/directory", "", nil)
	var d directoryV2
	must(t, json.Unmarshal(dir.raw, &d))
	if d.Meta.Profiles["short"] != "short-lived" {
		t.Errorf("directory is %s", dir.raw)
	}
	leaf, o := issueQuietly(t, ca, p, map[string]any{"profile": "short"}, "a.test")
	if life := leaf.NotAfter.Sub(leaf.NotBefore) + time.Second; life != time.Hour || o.text("profile") != "short" {
		t.Errorf("lifetime is %v, order %s", life, o.raw)
	}
}

func certID(leaf *x509.Certificate) string {
	return b64(leaf.AuthorityKeyId) + "." + b64(serialDER(leaf.SerialNumber))
}

// serialDER is the content of the DER integer: with a leading zero where the first bit is set.
func serialDER(n *big.Int) []byte {
	b := n.Bytes()
	if len(b) > 0 && b[0]&0x80 != 0 {
		b = append([]byte{0}, b...)
	}
	return b
}

func TestRenewalInfo_AndReplaces(t *testing.T) {
	ca := quietCA(t, Config{})
	p, other := newPoster(t, ca), newPoster(t, ca)
	leaf, _ := issueQuietly(t, ca, p, nil, "a.test", "b.test")
	id := certID(leaf)

	start, end := windowOf(t, p, id)
	if want := leaf.NotBefore.Add(60 * 24 * time.Hour); start.After(want) || end.Before(want) || end.Sub(start) > 48*time.Hour {
		t.Errorf("window is %v to %v, want it around %v", start, end, want)
	}
	p.do(http.MethodGet, testBase+"/v2/renewal-info/x.y", "", nil).want(t, 400, "malformed")
	p.do(http.MethodGet, testBase+"/v2/renewal-info/nodot", "", nil).want(t, 400, "malformed")
	p.do(http.MethodGet, testBase+"/v2/renewal-info/AAAA."+b64(leaf.SerialNumber.Bytes()), "", nil).want(t, 404, "malformed")

	replacing := func(p *poster, name string) response {
		req := identifiers(name)
		req["replaces"] = id
		return p.post("/v2/new-order", req)
	}
	replacing(other, "a.test").want(t, 403, "unauthorized")
	replacing(p, "c.test").want(t, 400, "malformed")
	first := replacing(p, "a.test")
	first.want(t, 201, "")
	if first.text("replaces") != id {
		t.Errorf("order is %s", first.raw)
	}
	replacing(p, "b.test").want(t, 409, "alreadyReplaced")
	// An order that came to nothing has replaced nothing.
	p.post(first.body["authorizations"].([]any)[0].(string), map[string]any{"status": "deactivated"}).want(t, 200, "")
	issueQuietly(t, ca, p, map[string]any{"replaces": id}, "b.test")
	replacing(p, "a.test").want(t, 409, "alreadyReplaced")

	p.post("/v2/revoke-cert", map[string]any{"certificate": b64(leaf.Raw)}).want(t, 200, "")
	p.post("/v2/revoke-cert", map[string]any{"certificate": b64(leaf.Raw)}).want(t, 400, "alreadyRevoked")
	if _, end = windowOf(t, p, id); end.After(time.Now()) {
		t.Errorf("a revoked certificate's window ends at %v", end)
	}
}

func windowOf(t *testing.T, p *poster, id string) (start, end time.Time) {
	t.Helper()
	res := p.do(http.MethodGet, testBase+"/v2/renewal-info/"+id, "", nil)
	if res.status != 200 || res.header.Get("Retry-After") != "21600" {
		t.Fatalf("got %d %s, Retry-After %q", res.status, res.raw, res.header.Get("Retry-After"))
	}
	w, _ := res.body["suggestedWindow"].(map[string]any)
	for _, x := range []struct {
		to   *time.Time
		name string
	}{{&start, "start"}, {&end, "end"}} {
		s, _ := w[x.name].(string)
		var err error
		*x.to, err = time.Parse(time.RFC3339, s)
		must(t, err)
	}
	if !end.After(start) {
		t.Errorf("window ends at %v and starts at %v", end, start)
	}
	return start, end
}
