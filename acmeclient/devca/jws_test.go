package devca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestVerify_RefusesWhatWasTamperedWith sends a correct request with one thing wrong in it at a time.
func TestVerify_RefusesWhatWasTamperedWith(t *testing.T) {
	ca := quietCA(t, Config{})
	p, other := newPoster(t, ca), newPoster(t, ca)
	url := testBase + "/v2/new-order"
	payload := []byte(`{"identifiers":[{"type":"dns","value":"a.localhost"}]}`)

	// header changes one member before signing; nil deletes it.
	header := func(change map[string]any) []byte {
		h := p.protected(url)
		for k, v := range change {
			if v == nil {
				delete(h, k)
			} else {
				h[k] = v
			}
		}
		return encodeJSON(t, signWith(t, p.key, h, payload))
	}
	signed := func() flattened { return signWith(t, p.key, p.protected(url), payload) }
	used := p.nonce()
	if !ca.nonces.take(used) {
		t.Fatal("a fresh nonce is not good")
	}
	spki, err := x509.MarshalPKIXPublicKey(p.key.Public())
	must(t, err)

	for _, tt := range []struct {
		name   string
		body   func() []byte
		status int
		kind   string
	}{
		{"nothing wrong", func() []byte { return header(nil) }, 201, ""},
		{"url of another resource", func() []byte { return header(map[string]any{"url": testBase + "/v2/new-acct"}) }, 403, "unauthorized"},
		{"url of another host", func() []byte { return header(map[string]any{"url": "http://other.test/v2/new-order"}) }, 403, "unauthorized"},
		{"url missing", func() []byte { return header(map[string]any{"url": nil}) }, 400, "malformed"},
		{"url not a string", func() []byte { return header(map[string]any{"url": 7}) }, 400, "malformed"},
		{"nonce missing", func() []byte { return header(map[string]any{"nonce": nil}) }, 400, "badNonce"},
		{"nonce made up", func() []byte { return header(map[string]any{"nonce": "bm9uY2U"}) }, 400, "badNonce"},
		{"nonce used before", func() []byte { return header(map[string]any{"nonce": used}) }, 400, "badNonce"},
		{"kid and jwk", func() []byte { return header(map[string]any{"jwk": jwkOf(t, p.key.Public())}) }, 400, "malformed"},
		{"neither kid nor jwk", func() []byte { return header(map[string]any{"kid": nil}) }, 400, "malformed"},
		{"jwk where kid is needed", func() []byte { return header(map[string]any{"kid": nil, "jwk": jwkOf(t, p.key.Public())}) }, 400, "malformed"},
		{"kid of another account", func() []byte { return header(map[string]any{"kid": other.kid}) }, 400, "malformed"},
		{"kid of no account", func() []byte { return header(map[string]any{"kid": testBase + "/v2/acct/99"}) }, 400, "accountDoesNotExist"},
		{"kid at another host", func() []byte {
			return header(map[string]any{"kid": strings.Replace(p.kid, "devca", "evil", 1)})
		}, 400, "malformed"},
		{"kid spelled differently", func() []byte { return header(map[string]any{"kid": testBase + "/v2/acct/01"}) }, 400, "malformed"},
		{"alg none", func() []byte {
			f := signWith(t, p.key, map[string]any{"alg": "none", "kid": p.kid, "nonce": p.nonce(), "url": url}, payload)
			f.Signature = ""
			return encodeJSON(t, f)
		}, 400, "badSignatureAlgorithm"},
		{"alg HS256 with the public key as secret", func() []byte {
			f := signWith(t, p.key, map[string]any{"alg": "HS256", "kid": p.kid, "nonce": p.nonce(), "url": url}, payload)
			mac := hmac.New(sha256.New, spki)
			mac.Write([]byte(f.Protected + "." + f.Payload))
			f.Signature = b64(mac.Sum(nil))
			return encodeJSON(t, f)
		}, 400, "badSignatureAlgorithm"},
		{"alg of another key type", func() []byte { return header(map[string]any{"alg": "RS256"}) }, 400, "malformed"},
		{"alg of another curve", func() []byte { return header(map[string]any{"alg": "ES384"}) }, 400, "malformed"},
		{"signed by another key", func() []byte { return encodeJSON(t, signWith(t, other.key, p.protected(url), payload)) }, 400, "malformed"},
		{"payload changed after signing", func() []byte {
			f := signed()
			f.Payload = b64([]byte(`{"identifiers":[{"type":"dns","value":"b.localhost"}]}`))
			return encodeJSON(t, f)
		}, 400, "malformed"},
		{"signature cut", func() []byte { f := signed(); f.Signature = f.Signature[:80]; return encodeJSON(t, f) }, 400, "malformed"},
		{"base64 with padding", func() []byte { f := signed(); f.Payload += "="; return encodeJSON(t, f) }, 400, "malformed"},
		{"compact serialization", func() []byte { f := signed(); return []byte(f.Protected + "." + f.Payload + "." + f.Signature) }, 400, "malformed"},
		{"general serialization", func() []byte {
			f := signed()
			return encodeJSON(t, map[string]any{"payload": f.Payload, "signatures": []any{map[string]any{"protected": f.Protected, "signature": f.Signature}}})
		}, 400, "malformed"},
		{"unprotected header", func() []byte {
			f := signed()
			return encodeJSON(t, map[string]any{"payload": f.Payload, "protected": f.Protected, "signature": f.Signature, "header": map[string]any{"alg": "ES256"}})
		}, 400, "malformed"},
		{"unencoded payload", func() []byte { return header(map[string]any{"b64": false, "crit": []string{"b64"}}) }, 400, "malformed"},
		{"unknown critical extension", func() []byte { return header(map[string]any{"crit": []string{"exp"}, "exp": 1}) }, 400, "malformed"},
		{"payload not an object", func() []byte { return encodeJSON(t, signWith(t, p.key, p.protected(url), []byte(`[1]`))) }, 400, "malformed"},
		{"payload empty", func() []byte { return encodeJSON(t, signWith(t, p.key, p.protected(url), nil)) }, 400, "malformed"},
		{"no body", func() []byte { return nil }, 400, "malformed"},
		{"body too large", func() []byte { return []byte(`{"payload":"` + strings.Repeat("A", maxBody) + `"}`) }, 413, "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := ca.Stats().Orders["a.localhost"]
			p.do(http.MethodPost, url, "application/jose+json", tt.body()).want(t, tt.status, tt.kind)
			if n := ca.Stats().Orders["a.localhost"] - before; (n == 1) != (tt.status == 201) {
				t.Errorf("%d orders were made", n)
			}
		})
	}
}

func TestVerify_SpendsANonceOnlyOnce(t *testing.T) {
	ca := quietCA(t, Config{})
	p := newPoster(t, ca)
	body := encodeJSON(t, signWith(t, p.key, p.protected(p.kid), nil))
	p.do(http.MethodPost, p.kid, "application/jose+json", body).want(t, 200, "")
	p.do(http.MethodPost, p.kid, "application/jose+json", body).want(t, 400, "badNonce")
}

func TestVerify_WantsTheContentType(t *testing.T) {
	ca := quietCA(t, Config{})
	p := newPoster(t, ca)
	for ctype, status := range map[string]int{
		"application/jose+json": 200, "application/jose+json; charset=utf-8": 200, "application/json": 415, "": 415, ";": 415,
	} {
		body := encodeJSON(t, signWith(t, p.key, p.protected(p.kid), nil))
		if res := p.do(http.MethodPost, p.kid, ctype, body); res.status != status {
			t.Errorf("%q: got %d, want %d", ctype, res.status, status)
		}
	}
}

func TestVerify_NamesTheAlgorithmsItTakes(t *testing.T) {
	ca := quietCA(t, Config{})
	p := newPoster(t, ca)
	h := p.protected(p.kid)
	h["alg"] = "PS512"
	res := p.do(http.MethodPost, p.kid, "application/jose+json", encodeJSON(t, signWith(t, p.key, h, nil)))
	res.want(t, 400, "badSignatureAlgorithm")
	if algs, _ := res.body["algorithms"].([]any); len(algs) != len(signatureAlgorithms) {
		t.Errorf("algorithms are %v", res.body["algorithms"])
	}
}

func TestNewAccount_RefusesWeakAndPrivateKeys(t *testing.T) {
	ca := quietCA(t, Config{})
	good := newKey(t)
	url := testBase + "/v2/new-acct"
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	must(t, err)
	small := &rsa.PublicKey{N: weakModulus(t), E: 65537}
	private := map[string]any{}
	must(t, json.Unmarshal(jwkOf(t, good.Public()), &private))
	d, err := good.Bytes()
	must(t, err)
	private["d"] = b64(d)
	offCurve := map[string]any{"kty": "EC", "crv": "P-256", "x": b64(make([]byte, 32)), "y": b64(make([]byte, 32))}

	for _, tt := range []struct {
		name string
		jwk  any
		alg  string
		kind string
	}{
		{"P-521", jwkOf(t, p521.Public()), "ES512", "badPublicKey"},
		{"RSA of 1024 bits", jwkOf(t, small), "RS256", "badPublicKey"},
		{"private key", private, "ES256", "malformed"},
		{"point off the curve", offCurve, "ES256", "malformed"},
		{"symmetric key", map[string]any{"kty": "oct", "k": "c2VjcmV0"}, "ES256", "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &poster{t: t, h: ca.Handler(), key: good}
			h := p.protected(url)
			h["jwk"], h["alg"] = tt.jwk, tt.alg
			body := encodeJSON(t, signWith(t, good, h, []byte(`{"termsOfServiceAgreed":true}`)))
			p.do(http.MethodPost, url, "application/jose+json", body).want(t, 400, tt.kind)
		})
	}
	if n := ca.Stats().Accounts; n != 0 {
		t.Errorf("%d accounts were made", n)
	}
}

// FuzzServe throws bytes at the signed endpoints of both dialects: they must answer with a problem document and a nonce, and change nothing.
func FuzzServe(f *testing.F) {
	ca := quietCA(f, Config{Protocols: ProtocolsBeside})
	ca.Upgrade()
	p := newPoster(f, ca)
	paths := []string{"/v2/new-acct", "/v2/new-order", "/v2/acct/1", "/v2/revoke-cert", "/v2/key-change", "/v2/finalize/1",
		"/acme/new-reg", "/acme/reg/1", "/acme/revoke-cert", "/acme/key-change"}
	good := encodeJSON(f, signWith(f, p.key, p.protected(testBase+"/v2/new-order"), []byte(`{}`)))
	f.Add(0, good)
	f.Add(1, good)
	f.Add(4, []byte(`{"protected":"e30","payload":"","signature":""}`))
	f.Add(2, []byte(`{"protected":"`+base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","jwk":{"kty":"EC"},"crit":["b64"]}`))+`","payload":"","signature":"AA"}`))
	f.Add(3, []byte(`{"signatures":[{}],"payload":"x"}`))
	f.Add(6, good)
	f.Add(7, []byte("eyJhbGciOiJIUzI1NiJ9.e30.AAAA"))
	f.Add(8, []byte(`{"payload":"e30","header":{"alg":"ES256"},"signatures":[{"signature":"AA"},{"signature":"AA"}]}`))
	f.Fuzz(func(t *testing.T, which int, body []byte) {
		path := paths[uint(which)%uint(len(paths))]
		r := httptest.NewRequest(http.MethodPost, testBase+path, strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/jose+json")
		w := httptest.NewRecorder()
		ca.ServeHTTP(w, r)
		if w.Code < 400 || w.Code >= 500 || w.Header().Get("Replay-Nonce") == "" || !json.Valid(w.Body.Bytes()) {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
		if ca.Stats().Accounts != 1 {
			t.Fatal("an account was made")
		}
	})
}

// weakModulus is a product of two primes of 512 bits; crypto/rsa no longer makes such keys.
func weakModulus(t *testing.T) *big.Int {
	t.Helper()
	a, err := rand.Prime(rand.Reader, 512)
	must(t, err)
	b, err := rand.Prime(rand.Reader, 512)
	must(t, err)
	return a.Mul(a, b)
}
