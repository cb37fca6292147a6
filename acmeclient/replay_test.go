package acmeclient

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"gatelodge/storage"
)

// recordedFlow is one file of testdata/acme-v1.
type recordedFlow struct {
	Flow      string             `json:"flow"`
	Exchanges []recordedExchange `json:"exchanges"`
}

type recordedExchange struct {
	Step    string `json:"step"`
	Request struct {
		Method    string          `json:"method"`
		URL       string          `json:"url"`
		Protected map[string]any  `json:"protected"`
		Payload   json.RawMessage `json:"payload"`
	} `json:"request"`
	Response struct {
		Status   int             `json:"status"`
		Headers  map[string]any  `json:"headers"`
		Body     json.RawMessage `json:"body"`
		BodyText string          `json:"body_text"`
		DER      []byte          `json:"der"`
	} `json:"response"`
}

// path is the request's URL without scheme and host.
func (e *recordedExchange) path() string {
	_, rest, _ := strings.Cut(e.Request.URL, "://")
	return rest[strings.IndexByte(rest, '/'):]
}

// payload is what the recorded request says, if it says it in JSON.
func (e *recordedExchange) payload() map[string]any {
	var p map[string]any
	_ = json.Unmarshal(e.Request.Payload, &p)
	return p
}

// notAsked are the recorded requests that no client makes: they show the server, not the protocol.
var notAsked = []string{
	"01-directory/POST to the directory", "01-directory/CORS", "01-directory/terms", "01-directory/root page", "01-directory/build id",
	"01-directory/a path that does not exist", "02-nonces/GET new-reg", "02-nonces/HEAD something that does not exist",
	"04-agreement/GET the registration (not allowed)",
}

// notSent are recorded requests that were made wrong on purpose, or in ways that the client has no use for. Their answers are understood all the same.
var notSent = map[string]string{
	"03-new-reg/new key, agreement already inside":                     "the agreement comes second, when the answer has named the terms",
	"03-new-reg/new key, agreement that is not the current one":        "as above",
	"/register and agree":                                              "as above",
	"30-same-account-on-v2/v1: register and agree":                     "as above",
	"03-new-reg/a P-521 account key":                                   "no such account keys are made",
	"04-agreement/a wrong resource on the registration URL":            "wrong",
	"06-pending-reuse/upper case is lowered":                           "names are canonical before",
	"09-key-change/a wrong account URL inside":                         "wrong",
	"09-key-change/inner signature by another key than newKey":         "wrong",
	"10-authz-deactivate/a status other than deactivated":              "wrong",
	"11-account-deactivate/an unknown status":                          "wrong",
	"20-error-nonce/no nonce":                                          "wrong",
	"21-error-jws/":                                                    "wrong",
	"22-error-unauthorized/another account's challenge":                "the type is always sent",
	"23-error-identifier/no identifier":                                "wrong",
	"25-bad-challenge-answer/no key authorization at all":              "it is always sent",
	"25-bad-challenge-answer/a key authorization of another key":       "wrong",
	"25-bad-challenge-answer/a wrong resource":                         "wrong",
	"26-expired-authz/answer its challenge":                            "it is always sent",
	"27-error-csr/no csr":                                              "wrong",
	"27-error-csr/garbage":                                             "wrong",
	"27-error-csr/standard base64":                                     "wrong",
	"30-same-account-on-v2/v2: a v1-shaped new-reg sent to newAccount": "wrong",
}

func matchesAny(list []string, name string) bool {
	return slices.ContainsFunc(list, func(s string) bool {
		return strings.HasPrefix(name, s) || strings.HasPrefix(s, "/") && strings.HasSuffix(name, s)
	})
}

// TestReplay_HoldsTheV1DialectToTheRealServer has the client make every recorded request again, and hands it the recorded answer: what it sends must be what was sent
// (random parts by their shape), and what it makes of the answer must be what the answer says.
func TestReplay_HoldsTheV1DialectToTheRealServer(t *testing.T) {
	files, err := filepath.Glob("testdata/acme-v1/*.json")
	if err != nil || len(files) != 25 {
		t.Fatalf("%d recordings, wanted are 25: %v", len(files), err)
	}
	flows := map[string]recordedFlow{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var f recordedFlow
		if err := json.Unmarshal(data, &f); err != nil {
			t.Fatal(err)
		}
		flows[f.Flow] = f
	}
	replayed, compared := 0, 0
	for _, name := range slices.Sorted(maps.Keys(flows)) {
		t.Run(name, func(t *testing.T) {
			p := newPlayer(t, flows)
			for i := range flows[name].Exchanges {
				e := &flows[name].Exchanges[i]
				if matchesAny(notAsked, name+"/"+e.Step) {
					continue
				}
				replayed++
				p.compare = !matchesAny(slices.Collect(maps.Keys(notSent)), name+"/"+e.Step)
				if p.compare {
					compared++
				}
				p.play(t, name, e)
			}
		})
	}
	if replayed != 269 || compared != 223 {
		t.Errorf("%d exchanges were replayed and %d compared", replayed, compared)
	}
}

// player is the recorded server, and the client that asks it.
type player struct {
	url     string
	flows   map[string]recordedFlow
	wire    *wire
	looks   *negotiator
	keys    map[string]crypto.Signer // ours, by the recorded key
	compare bool

	next   *recordedExchange // what is asked for
	asked  []string          // of the present step
	faults []string
	given  map[string]bool // nonces that were handed out and not used yet
}

func newPlayer(t *testing.T, flows map[string]recordedFlow) *player {
	t.Helper()
	p := &player{flows: flows, keys: map[string]crypto.Signer{}, given: map[string]bool{}}
	srv := httptest.NewServer(p)
	t.Cleanup(srv.Close)
	p.url = srv.URL
	cfg := Config{Name: "replay", Directory: p.url + "/directory", Store: storage.NewMemory(), Logger: zaptest.NewLogger(t)}
	cfg.Responder = NewResponder(cfg.Store, cfg.Logger)
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.wire.retries = nil
	t.Cleanup(func() { _ = c.Close() })
	p.wire, p.looks = c.wire, c.negotiator
	return p
}

// ours translates recorded text: the server's addresses are this one.
func (p *player) ours(s string) string {
	return strings.NewReplacer("http://localhost:4000", p.url, "http://localhost:4001", p.url, "http://localhost:4010", p.url).Replace(s)
}

func (p *player) fault(format string, args ...any) {
	p.faults = append(p.faults, fmt.Sprintf(format, args...))
}

// ServeHTTP answers as recorded: the exchange that is being played, and for what the client does about its answer, another of the same kind.
func (p *player) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.asked = append(p.asked, r.Method+" "+r.URL.Path)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		p.fault("read the body: %v", err)
	}
	e := p.next
	if e == nil || len(p.asked) > 1 {
		e = p.followUp(r, body)
	}
	if e == nil { // a nonce
		if r.Method != http.MethodHead {
			p.fault("%s %s follows", r.Method, r.URL.Path)
		}
		p.asked = p.asked[:len(p.asked)-1]
		nonce := "taro" + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "own nonce %06d of the replaying test", len(p.given)))
		p.given[nonce] = true
		w.Header().Set("Replay-Nonce", nonce)
		return
	}
	if p.compare || e != p.next {
		if err := p.check(e, r, body); err != nil {
			p.fault("%s: %v", e.Step, err)
		}
	}
	for k, v := range e.Response.Headers {
		values, ok := v.([]any)
		if !ok {
			values = []any{v}
		}
		for _, value := range values {
			w.Header().Add(k, p.ours(value.(string)))
		}
		if k == "Replay-Nonce" {
			p.given[v.(string)] = true
		}
	}
	w.WriteHeader(e.Response.Status)
	switch {
	case e.Response.DER != nil:
		_, _ = w.Write(e.Response.DER)
	case e.Response.Body != nil:
		_, _ = io.WriteString(w, p.ours(string(e.Response.Body)))
	default:
		_, _ = io.WriteString(w, e.Response.BodyText)
	}
}

// followUp is what was recorded elsewhere for the second request of an operation: agreeing to the terms, reading the registration of a known key, the request again
// after a bad nonce.
func (p *player) followUp(r *http.Request, body []byte) *recordedExchange {
	if r.Method != http.MethodPost {
		return nil
	}
	payload, err := decodePayload(body)
	if err != nil {
		p.fault("%v", err)
		return nil
	}
	find := func(flow, step string) *recordedExchange {
		for _, e := range p.flows[flow].Exchanges {
			if e.Step == step {
				e.Request.URL = strings.Replace(e.Request.URL, "/acme/reg/5", r.URL.Path, 1) // of whatever registration
				if p.compare {
					e.Request.Protected = p.next.Request.Protected // by whatever key
				}
				e.Response.Headers = map[string]any{"Link": e.Response.Headers["Link"], "Replay-Nonce": base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "after %06d", len(p.given)))}
				return &e
			}
		}
		return nil
	}
	switch {
	case payload["agreement"] != nil:
		return find("04-agreement", "agree to the current terms")
	case payload["resource"] == "reg" && len(payload) == 1:
		return find("03-new-reg", "fetch the registration: POST {resource: reg} to its URL")
	}
	return nil
}

func decodePayload(body []byte) (map[string]any, error) {
	var jws struct{ Payload string }
	if err := json.Unmarshal(body, &jws); err != nil {
		return nil, fmt.Errorf("the body is no JWS: %w", err)
	}
	data, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	if err != nil {
		return nil, err
	}
	var payload map[string]any
	return payload, json.Unmarshal(data, &payload)
}

// play has the client make the recorded request and judges what it made of the answer.
func (p *player) play(t *testing.T, flow string, e *recordedExchange) {
	t.Helper()
	p.next, p.asked, p.faults = e, nil, nil
	p.wire.noncesV1, p.wire.nonces = noncePool{}, noncePool{}
	if e.Request.Method == http.MethodPost { // the nonce that was there at the recording
		nonce, _ := e.Request.Protected["nonce"].(string)
		if !isBase64URL(nonce) || !p.compare {
			nonce = base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "given %06d before", len(p.given)))
		}
		p.given[nonce] = true
		p.wire.noncesV1.put(nonce, time.Now())
		p.wire.nonces.put(nonce, time.Now())
	}
	d := &v1{wire: p.wire, dir: p.directory(), agreeTerms: true, moved: func() {}, pause: func() time.Duration { return time.Hour }}
	key := p.key(t, e.Request.Protected["jwk"])
	d.account = &account{accountRecord: accountRecord{V1: &registration{URL: p.ours(e.Request.URL)}}}
	if k, ok := key.(*ecdsa.PrivateKey); ok && k.Curve == elliptic.P256() {
		d.account.key = k
	} else {
		d.account.key = newKey(t)
	}
	err := p.ask(t, d, key, e)
	p.next = nil
	if len(p.asked) == 0 {
		t.Errorf("%s: nothing was asked", e.Step)
	}
	for _, fault := range p.faults {
		t.Errorf("%s: %s", e.Step, fault)
	}
	if err := p.judge(flow, e, err); err != nil {
		t.Errorf("%s: %v", e.Step, err)
	}
	if nonce, _ := e.Response.Headers["Replay-Nonce"].(string); nonce != "" && len(p.asked) == 1 && e.Request.Method != http.MethodHead && e.path() != "/directory" && !strings.HasPrefix(e.Step, "v2: ") {
		if kept, ok := p.wire.noncesV1.take(time.Now()); !ok || kept != nonce {
			t.Errorf("%s: kept the nonce %q of %q", e.Step, kept, nonce)
		}
	}
}

func (p *player) directory() *directory {
	endpoints := map[string]string{}
	for _, k := range []string{"new-reg", "new-authz", "new-cert", "revoke-cert", "key-change"} {
		endpoints[k] = p.url + "/acme/" + k
	}
	return &directory{url: p.url + "/directory", endpoints: endpoints}
}

// key is ours for a recorded one, of the same kind.
func (p *player) key(t *testing.T, jwk any) crypto.Signer {
	t.Helper()
	m, _ := jwk.(map[string]any)
	name := fmt.Sprint(m)
	if k := p.keys[name]; k != nil {
		return k
	}
	var key crypto.Signer
	var err error
	switch {
	case m["kty"] == "RSA":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case m["crv"] == "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		key = newKey(t)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.keys[name] = key
	return key
}

// ask makes the request that the recorded one is, by whatever of the client makes such requests.
func (p *player) ask(t *testing.T, d *v1, key crypto.Signer, e *recordedExchange) error {
	t.Helper()
	ctx, url, payload := t.Context(), p.ours(e.Request.URL), e.payload()
	path, method := e.path(), e.Request.Method
	under := func(prefix string) bool { return strings.HasPrefix(path, "/acme/"+prefix) }
	switch {
	case path == "/directory" && method == http.MethodGet:
		s, _, err := p.looks.look(ctx, atDirectory)
		if want := map[bool]class{true: sawV2, false: sawV1}[strings.HasPrefix(e.Request.URL, "http://localhost:4001")]; s.class != want {
			t.Errorf("%s: saw %q", e.Step, s.class)
		}
		return err
	case strings.HasPrefix(e.Request.URL, "http://localhost:4001"):
		return p.askV2(ctx, key, url, method)
	case method == http.MethodHead:
		d.dir.url = url
		_, err := d.nonce(ctx)
		return err
	case under("new-reg"):
		return p.askRegister(t, d, key, e)
	case under("reg/"):
		return askReg(ctx, d, key, url, payload)
	case under("new-authz"):
		return p.askAuthz(t, d, e)
	case under("authz-v3/") && method == http.MethodPost:
		return d.deactivateAuthorization(ctx, url)
	case under("authz-v3/"):
		return p.readAuthz(t, d, e)
	case under("chall-v3/") && method == http.MethodPost:
		return p.answer(t, d, e)
	case under("chall-v3/"):
		_, body, err := d.get(ctx, "read the challenge", endpointChallenge, url)
		var ch wireChallengeV1
		if err == nil && (json.Unmarshal(body, &ch) != nil || ch.URI != url || ch.Token == "") {
			t.Errorf("%s: challenge is %+v", e.Step, ch)
		}
		return err
	case under("new-cert"):
		return p.askCertificate(t, d, e)
	case under("cert/"), under("issuer-cert"):
		o := &order{certificateURL: url}
		err := d.readCertificate(ctx, o)
		if err == nil && (o.status != statusValid || !bytes.Equal(o.leaf, e.Response.DER) || len(o.issuers) != len(stringsOf(e.Response.Headers["Link"]))) {
			t.Errorf("%s: order is %+v", e.Step, o)
		}
		return err
	case under("revoke-cert"):
		der, err := base64.RawURLEncoding.DecodeString(payload["certificate"].(string))
		if err != nil {
			t.Fatal(err)
		}
		reason, _ := payload["reason"].(float64)
		return d.revoke(ctx, der, key, int(reason))
	case under("key-change"):
		return p.changeKey(t, d, payload)
	}
	t.Fatalf("%s: no part of the client asks for %s %s", e.Step, method, path)
	return nil
}

func (p *player) askV2(ctx context.Context, key crypto.Signer, url, method string) error {
	if method == http.MethodHead {
		_, err := p.wire.nonce(ctx, url)
		return err
	}
	d := &v2{wire: p.wire, dir: &directory{endpoints: map[string]string{"newAccount": url}}, agreeTerms: true}
	_, _, err := d.register(ctx, key, nil)
	return err
}

func (p *player) askRegister(t *testing.T, d *v1, key crypto.Signer, e *recordedExchange) error {
	var contact []string
	for _, c := range anyList(e.payload()["contact"]) {
		contact = append(contact, c.(string))
	}
	regURL, terms, err := d.register(t.Context(), key, contact)
	if err == nil && (regURL != p.ours(e.Response.Headers["Location"].(string)) || terms != p.url+"/terms/v1") {
		t.Errorf("%s: registered %q, agreed to %q", e.Step, regURL, terms)
	}
	return err
}

// askReg makes a request to a registration by the recorded change.
func askReg(ctx context.Context, d *v1, key crypto.Signer, url string, payload map[string]any) error {
	if k, ok := key.(*ecdsa.PrivateKey); ok {
		d.account.key = k
	}
	switch {
	case payload["agreement"] != nil:
		agreement, _ := payload["agreement"].(string)
		return d.change(ctx, "agree", key, url, wireReg{Resource: "reg", Agreement: strings.Replace(agreement, "http://localhost:4000", strings.TrimSuffix(d.dir.url, "/directory"), 1)})
	case payload["contact"] != nil:
		var contact []string
		for _, c := range anyList(payload["contact"]) {
			contact = append(contact, c.(string))
		}
		return d.update(ctx, contact)
	case payload["status"] != nil:
		return d.deactivateAccount(ctx)
	}
	_, _, err := d.registration(ctx, "read the account", key, url)
	return err
}

func (p *player) askAuthz(t *testing.T, d *v1, e *recordedExchange) error {
	id, _ := e.payload()["identifier"].(map[string]any)
	typ, _ := id["type"].(string)
	value, _ := id["value"].(string)
	az, expires, err := d.newAuthzOnce(t.Context(), identifier{typ, value})
	if err == nil {
		p.checkAuthz(t, e, az)
		if az.url != p.ours(e.Response.Headers["Location"].(string)) || expires.Year() != 2026 {
			t.Errorf("%s: authorization is %+v until %v", e.Step, az, expires)
		}
	}
	return err
}

func (p *player) readAuthz(t *testing.T, d *v1, e *recordedExchange) error {
	az, err := d.authorization(t.Context(), p.ours(e.Request.URL))
	if err == nil {
		p.checkAuthz(t, e, az)
	}
	return err
}

// checkAuthz holds an authorization to the recorded answer.
func (p *player) checkAuthz(t *testing.T, e *recordedExchange, az *authorization) {
	t.Helper()
	var want struct {
		Identifier identifier
		Status     string
		Challenges []struct {
			Type, Status, URI, Token string
			Error                    *struct{ Type, Detail string }
		}
	}
	if err := json.Unmarshal([]byte(p.ours(string(e.Response.Body))), &want); err != nil {
		t.Fatal(err)
	}
	if az.status != want.Status || az.identifier != want.Identifier || len(az.challenges) != len(want.Challenges) {
		t.Fatalf("%s: authorization is %+v, recorded %+v", e.Step, az, want)
	}
	for i, ch := range want.Challenges {
		got := az.challenges[i]
		if got.typ != ch.Type || got.status != ch.Status || got.url != ch.URI || got.token != ch.Token || !validToken(got.token) || (got.problem != nil) != (ch.Error != nil) {
			t.Errorf("%s: challenge is %+v, recorded %+v", e.Step, got, ch)
		}
		if ch.Error == nil {
			continue
		}
		problem := validationProblem("replay", got.typ, az.name(), *got.problem)
		if got.problem.typ != ch.Error.Type || got.problem.detail != clean(ch.Error.Detail) || problem.scope != ScopeName || problem.Advice == "" {
			t.Errorf("%s: problem is %+v, recorded %+v", e.Step, problem, ch.Error)
		}
	}
}

func (p *player) answer(t *testing.T, d *v1, e *recordedExchange) error {
	token, typ := "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA", ChallengeHTTP01
	if keyAuth, ok := e.payload()["keyAuthorization"].(string); ok {
		token, _, _ = strings.Cut(keyAuth, ".")
	}
	if s, ok := e.payload()["type"].(string); ok {
		typ = s
	}
	status, err := d.accept(t.Context(), &challenge{typ: typ, url: p.ours(e.Request.URL), token: token})
	var want struct{ Status string }
	if err == nil && (json.Unmarshal(e.Response.Body, &want) != nil || status != want.Status) {
		t.Errorf("%s: status is %q, recorded %q", e.Step, status, want.Status)
	}
	return err
}

func (p *player) askCertificate(t *testing.T, d *v1, e *recordedExchange) error {
	names := []string{"other.test"}
	if csr, err := parseCSR(e.payload()["csr"]); err == nil {
		names = csr.DNSNames
	}
	o := &order{}
	err := d.finalize(t.Context(), o, newRequest(t, names...).CSR)
	if err == nil && (o.status != statusValid || !bytes.Equal(o.leaf, e.Response.DER) || o.certificateURL != p.ours(e.Response.Headers["Location"].(string)) ||
		!slices.Equal(o.issuers, []string{p.url + "/acme/issuer-cert"})) {
		t.Errorf("%s: order is %+v", e.Step, o)
	}
	return err
}

func (p *player) changeKey(t *testing.T, d *v1, payload map[string]any) error {
	var change struct {
		Account string
		NewKey  map[string]any `json:"newKey"`
	}
	if err := decodeSegment(payload["payload"], &change); err != nil {
		t.Fatal(err)
	}
	d.account.V1.URL = p.ours(change.Account)
	return d.changeKey(t.Context(), p.key(t, change.NewKey))
}

// judge compares the outcome with the recorded answer: a success is none, an error is told as it is.
func (p *player) judge(flow string, e *recordedExchange, err error) error {
	var doc struct{ Type, Detail string }
	_ = json.Unmarshal(e.Response.Body, &doc)
	var problem *Problem
	switch {
	case e.Response.Status < 400 || e.Request.Method == http.MethodHead:
		if err != nil {
			return fmt.Errorf("error is %w", err)
		}
		return nil
	case e.Response.Status == http.StatusConflict: // a known key, or a certificate that is revoked already
		if err != nil {
			return fmt.Errorf("error is %w", err)
		}
		return nil
	case kind(doc.Type) == "badNonce": // tried again with the nonce of that very answer, and the other answer was good
		if err != nil || len(p.asked) != 2 {
			return fmt.Errorf("asked %v, error %w", p.asked, err)
		}
		return nil
	case !errors.As(err, &problem):
		return fmt.Errorf("error is %v", err)
	}
	if problem.Status != e.Response.Status || problem.Type != doc.Type || problem.Detail != clean(p.ours(doc.Detail)) || problem.Advice == "" || problem.scope == "" {
		return fmt.Errorf("problem is %+v, recorded %d %+v", problem, e.Response.Status, doc)
	}
	want := map[string]string{"23-error-identifier": ScopeName, "27-error-csr": ScopeName}[flow]
	if want != "" && problem.scope != want {
		return fmt.Errorf("scope is %q, wanted %q: %v", problem.scope, want, problem)
	}
	return nil
}

func anyList(v any) []any {
	list, _ := v.([]any)
	return list
}

func stringsOf(header any) []string {
	switch v := header.(type) {
	case string:
		return []string{v}
	case []any:
		var all []string
		for _, s := range v {
			all = append(all, s.(string))
		}
		return all
	}
	return nil
}
