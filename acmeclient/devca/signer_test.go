package devca

import (
	"crypto"
	"crypto/rand"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// testBase is what a handler sees as scheme and host in httptest.
const testBase = "http://devca.test"

// poster signs requests by go-jose and gives them to the handler without a network, so that every member can be tampered with.
type poster struct {
	t   testing.TB
	h   http.Handler
	key crypto.Signer
	kid string
}

// response is an answer, decoded if it is JSON.
type response struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any
}

func (r response) text(member string) string {
	s, _ := r.body[member].(string)
	return s
}

func (r response) problem() string { return strings.TrimPrefix(r.text("type"), namespaceV2) }

func (p *poster) do(method, url, ctype string, body []byte) response {
	p.t.Helper()
	r := httptest.NewRequest(method, url, strings.NewReader(string(body)))
	if ctype != "" {
		r.Header.Set("Content-Type", ctype)
	}
	w := httptest.NewRecorder()
	p.h.ServeHTTP(w, r)
	res := w.Result()
	raw, err := io.ReadAll(res.Body)
	must(p.t, err)
	out := response{status: res.StatusCode, header: res.Header, raw: raw}
	if strings.Contains(res.Header.Get("Content-Type"), "json") {
		must(p.t, json.Unmarshal(raw, &out.body))
	}
	return out
}

func (p *poster) nonce() string {
	p.t.Helper()
	return p.do(http.MethodHead, testBase+"/v2/new-nonce", "", nil).header.Get("Replay-Nonce")
}

// protected is the header of a correct request.
func (p *poster) protected(url string) map[string]any {
	p.t.Helper()
	h := map[string]any{"alg": "ES256", "nonce": p.nonce(), "url": url}
	if p.kid != "" {
		h["kid"] = p.kid
	} else {
		h["jwk"] = jwkOf(p.t, p.key.Public())
	}
	return h
}

func jwkOf(t testing.TB, pub crypto.PublicKey) json.RawMessage {
	t.Helper()
	data, err := (&jose.JSONWebKey{Key: pub}).MarshalJSON()
	must(t, err)
	return data
}

// flattened is a JWS as the wire has it.
type flattened struct {
	Protected string `json:"protected"`
	Payload   string `json:"payload"`
	Signature string `json:"signature"`
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// signWith makes a JWS by ES256 with any header at all, also one that go-jose would not write.
func signWith(t testing.TB, key crypto.Signer, protected map[string]any, payload []byte) flattened {
	t.Helper()
	head, err := json.Marshal(protected)
	must(t, err)
	f := flattened{Protected: b64(head), Payload: b64(payload)}
	f.Signature = b64(rawSignature(t, key, f.Protected+"."+f.Payload))
	return f
}

// rawSignature is ES256 over "header.payload", whatever the header says.
func rawSignature(t testing.TB, key crypto.Signer, input string) []byte {
	t.Helper()
	digest := crypto.SHA256.New()
	digest.Write([]byte(input))
	der, err := key.Sign(rand.Reader, digest.Sum(nil), crypto.SHA256)
	must(t, err)
	return ecdsaFixed(t, der, 64)
}

func encodeJSON(t testing.TB, v any) []byte {
	t.Helper()
	if v == nil {
		return nil // POST-as-GET
	}
	data, err := json.Marshal(v)
	must(t, err)
	return data
}

// post sends a correct request; a nil payload is POST-as-GET.
func (p *poster) post(path string, payload any) response {
	p.t.Helper()
	url := path
	if strings.HasPrefix(path, "/") {
		url = testBase + path
	}
	f := signWith(p.t, p.key, p.protected(url), encodeJSON(p.t, payload))
	return p.do(http.MethodPost, url, "application/jose+json", encodeJSON(p.t, f))
}

// newPoster has an account.
func newPoster(t testing.TB, ca *CA) *poster {
	t.Helper()
	p := &poster{t: t, h: ca.Handler(), key: newKey(t)}
	res := p.post("/v2/new-acct", map[string]any{"termsOfServiceAgreed": true})
	if res.status != http.StatusCreated {
		t.Fatalf("newAccount: %d %s", res.status, res.raw)
	}
	p.kid = res.header.Get("Location")
	return p
}

// quietCA is a CA that nothing is served by; only its handler is used.
func quietCA(t testing.TB, cfg Config) *CA {
	t.Helper()
	if cfg.HTTPAddr == "" {
		cfg.HTTPAddr, cfg.TLSAddr = "127.0.0.1:9", "127.0.0.1:9"
	}
	ca, err := New(cfg)
	must(t, err)
	t.Cleanup(func() {
		if err := ca.Close(); err != nil {
			t.Error(err)
		}
	})
	return ca
}

func (r response) want(t testing.TB, status int, kind string) {
	t.Helper()
	if r.status != status || r.problem() != kind {
		t.Errorf("got %d %s, want %d %q", r.status, r.raw, status, kind)
	}
	if r.header.Get("Replay-Nonce") == "" {
		t.Error("the answer has no Replay-Nonce")
	}
	if kind != "" && r.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("content type is %q", r.header.Get("Content-Type"))
	}
}

// ecdsaFixed turns an ASN.1 signature into the fixed-size one of JWS (RFC 7518 §3.4).
func ecdsaFixed(t testing.TB, der []byte, size int) []byte {
	t.Helper()
	var sig struct{ R, S *big.Int }
	_, err := asn1.Unmarshal(der, &sig)
	must(t, err)
	out := make([]byte, size)
	sig.R.FillBytes(out[:size/2])
	sig.S.FillBytes(out[size/2:])
	return out
}
