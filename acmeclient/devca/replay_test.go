package devca

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// recording is one file of testdata/acme-v1.
type recording struct {
	Flow      string     `json:"flow"`
	Recorded  time.Time  `json:"recorded"`
	Exchanges []exchange `json:"exchanges"`
}

type exchange struct {
	Step    string `json:"step"`
	Request struct {
		Method    string            `json:"method"`
		URL       string            `json:"url"`
		Headers   map[string]string `json:"headers"`
		JWS       *recordedJWS      `json:"jws"`
		Form      string            `json:"form"`
		Body      json.RawMessage   `json:"body"`
		BodyText  string            `json:"body_text"`
		BodyBytes int               `json:"body_bytes"`
	} `json:"request"`
	Response struct {
		Status      int             `json:"status"`
		Headers     map[string]any  `json:"headers"`
		Body        json.RawMessage `json:"body"`
		BodyText    *string         `json:"body_text"`
		Certificate *struct {
			DNSNames []string `json:"dns_names"`
			IsCA     bool     `json:"is_ca"`
			Serial   string   `json:"serial"`
		} `json:"certificate"`
	} `json:"response"`
}

type recordedJWS struct {
	Payload     json.RawMessage `json:"payload"`
	PayloadText *string         `json:"payload_text"`
	Protected   map[string]any  `json:"protected"`
	Header      map[string]any  `json:"header"`
}

// leftOut are the recorded steps that devca does not follow, and why. A name that ends in "*" leaves out all steps of that beginning.
var leftOut = map[string]string{
	"01-directory/root page":                      "a page for people",
	"01-directory/build id":                       "Boulder's own",
	"23-error-identifier/a public suffix":         "devca knows no public suffixes: it issues for localhost and test names",
	"23-error-identifier/no known TLD":            "as above",
	"23-error-identifier/a single label":          "the label is localhost, which devca issues for",
	"24-failed-validation/http-01, no such name*": "devca resolves no names: it connects to one configured address",
	"24-failed-validation/CAA forbids*":           "devca does not look at CAA records",
}

// TestReplay_HoldsTheV1DialectToTheRealServer sends every recorded request again, signed by keys of its own, and compares status, headers and body field by
// field. All flows meet one CA in the order of their recording, since some build upon others.
func TestReplay_HoldsTheV1DialectToTheRealServer(t *testing.T) {
	r := newReplayer(t)
	sent := 0
	for _, rec := range readRecordings(t) {
		t.Run(rec.Flow, func(t *testing.T) { sent += r.replay(t, rec) })
	}
	// 279 are recorded; leftOut names 18.
	if sent != 261 && !t.Failed() {
		t.Errorf("%d exchanges were compared, want 261", sent)
	}
}

func readRecordings(t *testing.T) []recording {
	t.Helper()
	files, err := filepath.Glob("testdata/acme-v1/*.json")
	must(t, err)
	if len(files) != 25 {
		t.Fatalf("found %d recordings, want 25", len(files))
	}
	var recs []recording
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		var rec recording
		must(t, json.Unmarshal(data, &rec))
		recs = append(recs, rec)
	}
	slices.SortStableFunc(recs, func(a, b recording) int { return a.Recorded.Compare(b.Recorded) })
	return recs
}

// replayer drives one CA through the recordings.
type replayer struct {
	t      *testing.T
	ca     *CA
	site   *site
	client *http.Client
	m      *matcher
	keys   map[string]crypto.Signer // ours, by the recorded key's thumbprint
	certs  map[string][]byte        // ours, by recorded serial
	nonces map[string]string        // ours, by recorded value
	gate   gate
	limits map[string]int

	mu    sync.Mutex // guards texts
	texts map[string]string
}

// gate holds validations back, so that an authorization is pending for as long as it was at the recording.
type gate struct {
	mu   sync.Mutex
	open chan struct{}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) lift() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open != nil {
		close(g.open)
		g.open = nil
	}
}

func (g *gate) pass(ctx context.Context) error {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	if open == nil {
		return nil
	}
	select {
	case <-open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newReplayer(t *testing.T) *replayer {
	t.Helper()
	r := &replayer{
		t: t, site: newSite(t), keys: make(map[string]crypto.Signer), certs: make(map[string][]byte), nonces: make(map[string]string),
		limits: make(map[string]int), texts: make(map[string]string),
		client: &http.Client{
			Transport:     &http.Transport{DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	t.Cleanup(r.client.CloseIdleConnections)
	dnsAddr := startDNS(t, func(name string) ([]string, bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		text, ok := r.texts[name]
		return []string{text}, ok
	})
	r.ca = startCA(t, r.site, Config{
		Protocols: ProtocolsBeside, PlainHTTP: true, DNSAddr: dnsAddr, RateLimit: r.rateLimit, Policy: blockList,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if err := r.gate.pass(ctx); err != nil {
				return nil, err
			}
			return dialLoopback(ctx, network, addr)
		},
	})
	t.Cleanup(r.gate.lift)
	r.ca.Upgrade()
	r.m = newMatcher(strings.TrimSuffix(r.ca.DirectoryURLV1(), "/directory"))
	return r
}

func blockList(name string) error {
	if name == "highrisk.le-test.hoffman-andrews.com" {
		return errors.New("The ACME server refuses to issue a certificate for this domain name, because it is forbidden by policy")
	}
	return nil
}

func (r *replayer) replay(t *testing.T, rec recording) (sent int) {
	r.setUp(t, rec)
	skipping := ""
	for _, e := range rec.Exchanges {
		if reason, prefix := skip(rec.Flow, e.Step); reason != "" {
			skipping = prefix
			continue
		}
		// The polls of a sub-flow that is left out have a common name.
		if skipping != "" && strings.HasPrefix(e.Step, "poll ") {
			continue
		}
		skipping = ""
		r.before(t, rec.Flow, e)
		req := r.request(t, e)
		resp, err := r.client.Do(req)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		must(t, resp.Body.Close())
		if err := r.compare(t, e, resp, body); err != nil {
			t.Fatalf("%s: %v\nanswer: %d %v\n%s", e.Step, err, resp.StatusCode, resp.Header, body)
		}
		sent++
	}
	r.settle(t)
	return sent
}

// skip answers why a step is left out; prefix is not empty if what follows belongs to it.
func skip(flow, step string) (reason, prefix string) {
	for key, why := range leftOut {
		name, isPrefix := strings.CutSuffix(key, "*")
		switch {
		case isPrefix && strings.HasPrefix(flow+"/"+step, name):
			return why, name
		case flow+"/"+step == key:
			return why, ""
		}
	}
	return "", ""
}

// request builds the recorded request with our keys, URLs, tokens and nonces in it.
func (r *replayer) request(t *testing.T, e exchange) *http.Request {
	t.Helper()
	var body io.Reader = http.NoBody
	q := e.Request
	switch {
	case q.JWS != nil:
		body = bytes.NewReader(r.sign(t, e))
	case q.Body != nil:
		body = bytes.NewReader(q.Body)
	case q.BodyText != "":
		body = strings.NewReader(q.BodyText)
	case q.BodyBytes > 0:
		body = strings.NewReader(strings.Repeat("x", q.BodyBytes))
	}
	if strings.Contains(e.Step, "chunked") {
		body = io.MultiReader(body) // of unknown length
	}
	req, err := http.NewRequestWithContext(t.Context(), q.Method, r.m.toOurs(q.URL), body)
	must(t, err)
	req.Header.Set("User-Agent", "replay")
	for k, v := range q.Headers {
		req.Header.Set(k, v)
	}
	return req
}

// sign makes the JWS in the recorded serialization.
func (r *replayer) sign(t *testing.T, e exchange) []byte {
	t.Helper()
	j := e.Request.JWS
	head := make(map[string]any)
	for k, v := range j.Protected {
		head[k] = v
	}
	unprotected := j.Header
	key := r.signer(t, head, unprotected)
	if s, ok := head["nonce"].(string); ok {
		head["nonce"] = r.nonce(t, s)
	}
	for _, k := range []string{"kid", "url"} {
		if s, ok := head[k].(string); ok {
			head[k] = r.m.toOurs(s)
		}
	}
	f := signAny(t, key, head, r.payload(t, j))
	if strings.Contains(e.Step, "broken signature") && e.Request.JWS.Payload != nil {
		f.Signature = signAny(t, key, head, []byte("{}")).Signature
	}
	one := map[string]any{"protected": f.Protected, "signature": f.Signature}
	switch e.Request.Form {
	case "compact":
		return []byte(f.Protected + "." + f.Payload + "." + f.Signature)
	case "general, 1":
		return encodeJSON(t, map[string]any{"payload": f.Payload, "signatures": []any{one}})
	case "general, 2":
		return encodeJSON(t, map[string]any{"payload": f.Payload, "signatures": []any{one, one}})
	}
	one["payload"] = f.Payload
	if unprotected != nil {
		one["header"] = unprotected
	}
	return encodeJSON(t, one)
}

// signer puts our key in the place of the recorded one, wherever the header has it.
func (r *replayer) signer(t *testing.T, head, unprotected map[string]any) crypto.Signer {
	t.Helper()
	for _, h := range []map[string]any{head, unprotected} {
		if jwk, ok := h["jwk"].(map[string]any); ok {
			key := r.key(t, jwk)
			h["jwk"] = jwkOf(t, key.Public())
			return key
		}
	}
	return newKey(t) // a request without a key
}

// nonce is ours for a recorded one: what the same answer gave us, or a fresh one where the recording does not show where it came from. Those that were made
// up go as they are.
func (r *replayer) nonce(t *testing.T, recorded string) string {
	t.Helper()
	if ours, ok := r.nonces[recorded]; ok {
		return ours
	}
	if recorded == "nope" || strings.HasPrefix(recorded, "taroAAAAAAAA") {
		return recorded
	}
	ours := r.ca.nonces.issue()
	r.nonces[recorded] = ours
	must(t, r.m.bind(recorded, ours))
	return ours
}

func (r *replayer) payload(t *testing.T, j *recordedJWS) []byte {
	t.Helper()
	if j.PayloadText != nil {
		return []byte(*j.PayloadText)
	}
	var p map[string]any
	must(t, json.Unmarshal(j.Payload, &p))
	for k, v := range p {
		s, ok := v.(string)
		switch {
		case ok && k == "csr":
			p[k] = r.csr(t, s)
		case ok && k == "certificate":
			p[k] = r.certificate(t, s)
		case ok:
			p[k] = r.m.toOurs(s)
		}
	}
	if _, inner := p["protected"]; inner {
		r.inner(t, p)
	}
	return encodeJSON(t, p)
}

// inner signs the JWS within a key change.
func (r *replayer) inner(t *testing.T, p map[string]any) {
	t.Helper()
	var head, change map[string]any
	for member, to := range map[string]*map[string]any{"protected": &head, "payload": &change} {
		data, err := base64.RawURLEncoding.DecodeString(p[member].(string))
		must(t, err)
		must(t, json.Unmarshal(data, to))
	}
	key := r.key(t, head["jwk"].(map[string]any))
	newKey := r.key(t, change["newKey"].(map[string]any))
	head["jwk"] = jwkOf(t, key.Public())
	change = map[string]any{"account": r.m.toOurs(change["account"].(string)), "newKey": jwkOf(t, newKey.Public())}
	f := signAny(t, key, head, encodeJSON(t, change))
	p["protected"], p["payload"], p["signature"] = f.Protected, f.Payload, f.Signature
}

// compare holds an answer to the recorded one.
func (r *replayer) compare(t *testing.T, e exchange, resp *http.Response, body []byte) error {
	t.Helper()
	want := e.Response
	if resp.StatusCode != want.Status {
		return fmt.Errorf("got status %d, recorded %d", resp.StatusCode, want.Status)
	}
	isV2 := strings.HasPrefix(e.Request.URL, "http://localhost:4001")
	if err := r.compareHeaders(want.Headers, resp.Header, isV2); err != nil {
		return err
	}
	switch {
	case want.Certificate != nil:
		return r.compareCertificate(want.Certificate.DNSNames, want.Certificate.IsCA, want.Certificate.Serial, body)
	case want.BodyText != nil:
		return r.m.text(*want.BodyText, string(body))
	case want.Body == nil:
		if len(body) > 0 {
			return errors.New("the recorded body is empty")
		}
		return nil
	}
	recorded, err := decodeAny(want.Body)
	must(t, err)
	ours, err := decodeAny(body)
	if err != nil {
		return fmt.Errorf("our body is not JSON: %w", err)
	}
	if isV2 {
		return r.compareV2(recorded, ours)
	}
	return r.m.json("", recorded, ours)
}

// compareV2 asks only that what Boulder's v2 answered is in ours too: flow 30 is about the account, not about v2.
func (r *replayer) compareV2(recorded, ours any) error {
	o := ours.(map[string]any)
	for k, v := range withoutRandomKey(recorded.(map[string]any)) {
		switch k {
		case "(random)", "meta", "detail":
			continue
		}
		if err := r.m.json("."+k, v, o[k]); err != nil {
			return err
		}
	}
	return nil
}

// notCompared are headers that say nothing about ACME.
var notCompared = []string{"Date", "Content-Length", "Replay-Nonce", "Cache-Control", "Connection"}

func (r *replayer) compareHeaders(want map[string]any, got http.Header, isV2 bool) error {
	_, recorded := want["Replay-Nonce"].(string)
	if ours := got.Get("Replay-Nonce"); recorded && ours == "" || !recorded && ours != "" && !isV2 {
		return fmt.Errorf("Replay-Nonce: got %q, recorded %v", ours, want["Replay-Nonce"])
	} else if recorded {
		r.nonces[want["Replay-Nonce"].(string)] = ours
		if err := r.m.bind(want["Replay-Nonce"].(string), ours); err != nil {
			return err
		}
	}
	if v, ok := want["Cache-Control"].(string); ok && !strings.Contains(strings.Join(got["Cache-Control"], ", "), v) {
		return fmt.Errorf("Cache-Control: got %q, recorded %q", got["Cache-Control"], v)
	}
	for k, v := range want {
		if slices.Contains(notCompared, k) || isV2 && k == "Boulder-Requester" {
			continue
		}
		list, ok := v.([]any)
		if !ok {
			list = []any{v}
		}
		if len(list) != len(got[k]) && !(isV2 && len(list) < len(got[k])) {
			return fmt.Errorf("%s: got %q, recorded %q", k, got[k], list)
		}
		for i := range list {
			if err := r.header(k, list[i].(string), got[k][i]); err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok && !slices.Contains(notCompared, k) && !isV2 {
			return fmt.Errorf("%s: got %q, none recorded", k, got[k])
		}
	}
	return nil
}

func (r *replayer) header(name, recorded, ours string) error {
	if name == "Boulder-Requester" {
		recorded, ours = "/reg/"+recorded, "/reg/"+ours
	}
	return r.m.text(recorded, ours)
}

// settle lets validations go on and waits until each is decided.
func (r *replayer) settle(t *testing.T) {
	t.Helper()
	r.gate.lift()
	for deadline := time.Now().Add(10 * time.Second); r.validating(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a validation does not end")
		}
	}
	must(t, r.ca.SetTargets(r.site.httpAddr, r.site.tlsAddr))
}

func (r *replayer) validating() bool {
	r.ca.state.mu.Lock()
	defer r.ca.state.mu.Unlock()
	for _, z := range r.ca.state.authzs {
		if z.underValidation() {
			return true
		}
	}
	return false
}

// key is ours for a recorded key, of the same kind and size.
func (r *replayer) key(t *testing.T, recorded map[string]any) crypto.Signer {
	t.Helper()
	data := encodeJSON(t, recorded)
	var jwk jose.JSONWebKey
	must(t, jwk.UnmarshalJSON(data))
	return r.keyFor(t, &jwk, data)
}
