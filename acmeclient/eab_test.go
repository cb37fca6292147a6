package acmeclient

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// newHMAC makes a key, in base64url as pebble is told of it.
func newHMAC(t *testing.T, size int) (key []byte, encoded string) {
	t.Helper()
	key = make([]byte, size)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	return key, base64.RawURLEncoding.EncodeToString(key)
}

func TestAccount_IsBoundByEachAlgorithmAndSpelling(t *testing.T) {
	key, encoded := newHMAC(t, 64)
	for _, alg := range []string{"", "HS256", "HS384", "HS512"} {
		for name, spelled := range map[string]string{
			"base64url":          encoded,
			"padded":             base64.URLEncoding.EncodeToString(key),
			"base64":             base64.RawStdEncoding.EncodeToString(key),
			"padded base64, \\n": base64.StdEncoding.EncodeToString(key) + "\n",
		} {
			t.Run(alg+" "+name, func(t *testing.T) {
				c, p, _, store := setup(t, pebbleOptions{requireEAB: true, eab: map[string]string{"customer-1": encoded}}, func(cfg *Config) {
					cfg.EAB = EAB{KID: "customer-1", HMAC: spelled, Algorithm: alg}
				})
				p.rewrite(editDirectory(func(dir map[string]any) { dir["meta"].(map[string]any)["externalAccountRequired"] = true }))
				acct, err := c.Account(t.Context())
				if err != nil || acct.URL == "" {
					t.Fatalf("account %+v, error %v", acct, err)
				}
				if got := storedRecord(t, c, store).Binding; got != "customer-1" {
					t.Errorf("bound by %q", got)
				}
			})
		}
	}
}

func TestAccount_SaysWhatIsWrongWithTheBinding(t *testing.T) {
	_, good := newHMAC(t, 32)
	_, wrong := newHMAC(t, 32)
	for _, tt := range []struct {
		name     string
		eab      EAB
		says     string
		requests int // newAccount
		later    bool
	}{
		{"none, and the directory says so", EAB{}, "set `eab`", 0, false},
		{"unknown identifier", EAB{KID: "customer-2", HMAC: good}, "get a new one", 1, true},
		{"another key", EAB{KID: "customer-1", HMAC: wrong}, "get a new one", 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, p, _, _ := setup(t, pebbleOptions{requireEAB: true, eab: map[string]string{"customer-1": good}}, func(cfg *Config) { cfg.EAB = tt.eab })
			p.rewrite(editDirectory(func(dir map[string]any) { dir["meta"].(map[string]any)["externalAccountRequired"] = true }))
			for range 2 { // the second time the CA is not asked
				_, err := c.Account(t.Context())
				problem := problemOf(t, err, ScopeCA)
				if !strings.Contains(problem.Advice, tt.says) || problem.RetryAt().IsZero() == tt.later {
					t.Errorf("problem is %v, retry at %v", problem, problem.RetryAt())
				}
				if tt.eab.HMAC != "" && strings.Contains(err.Error(), tt.eab.HMAC) {
					t.Error("the secret is in the error")
				}
			}
			if got := p.count("POST " + pathAccount); got != tt.requests {
				t.Errorf("%d requests, wanted %d", got, tt.requests)
			}
		})
	}
	t.Run("none, and the directory does not say so", func(t *testing.T) {
		c, _, _, _ := setup(t, pebbleOptions{requireEAB: true})
		_, err := c.Account(t.Context())
		if problem := problemOf(t, err, ScopeCA); !strings.Contains(problem.Advice, "set `eab`") {
			t.Errorf("problem is %v", problem)
		}
	})
}

// TestAccount_SendsABindingOnceOnly: the CA made the account, nobody saw its answer, and it takes no binding twice.
func TestAccount_SendsABindingOnceOnly(t *testing.T) {
	_, key := newHMAC(t, 32)
	eab := func(cfg *Config) { cfg.EAB = EAB{KID: "customer-1", HMAC: key} }
	c, p, n, store := setup(t, pebbleOptions{requireEAB: true, eab: map[string]string{"customer-1": key}}, eab)
	lost := lose(pathAccount, nil)
	p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
		if resp.Code == http.StatusCreated {
			resp.Code = http.StatusOK
		}
		lost(r, resp)
	})
	_, err := c.Account(t.Context())
	problemOf(t, err, ScopeCA)
	p.rewrite()
	payloads := p.payloads(pathAccount)
	acct, err := newClient(t, p, n, store, eab).Account(t.Context())
	if err != nil || acct.URL == "" {
		t.Fatalf("account %+v, error %v", acct, err)
	}
	for _, got := range payloads() {
		if strings.Contains(got, "externalAccountBinding") || !strings.Contains(got, "onlyReturnExisting") {
			t.Errorf("request is %s", got)
		}
	}
}

func TestEAB_IsCheckedWithoutBeingShown(t *testing.T) {
	_, good := newHMAC(t, 32)
	for name, tt := range map[string]struct {
		eab  EAB
		says string // empty: fine
	}{
		"none":              {EAB{}, ""},
		"whole":             {EAB{KID: "k", HMAC: good}, ""},
		"no identifier":     {EAB{HMAC: good}, "kid"},
		"no key":            {EAB{KID: "k"}, "hmac"},
		"no base64":         {EAB{KID: "k", HMAC: "s3cret!s3cret!s3cret!"}, "base64"},
		"cut":               {EAB{KID: "k", HMAC: "c2VjcmV0"}, "6 bytes"},
		"another algorithm": {EAB{KID: "k", HMAC: good, Algorithm: "RS256"}, "RS256"},
	} {
		err := tt.eab.validate()
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && tt.eab.HMAC != "" && strings.Contains(err.Error(), tt.eab.HMAC) {
			t.Errorf("%s: the secret is in %v", name, err)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if shown := fmt.Sprintf(verb, Config{EAB: tt.eab}); tt.eab.HMAC != "" && strings.Contains(shown, tt.eab.HMAC) {
				t.Errorf("%s: %s shows the secret", name, verb)
			}
		}
	}
}

func FuzzDecodeHMAC(f *testing.F) {
	for _, s := range []string{"zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W", "++//++//++//++//++//++//++==", "--__--__--__--__--__--__\n", "c2VjcmV0", "=", "", "ä", "a b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, err := decodeHMAC(s)
		if err == nil && len(key) < minHMAC {
			t.Errorf("%d bytes", len(key))
		}
		if err != nil {
			return
		}
		again, err := decodeHMAC(base64.StdEncoding.EncodeToString(key))
		if err != nil || string(again) != string(key) {
			t.Errorf("%q: %x and %x, %v", s, key, again, err)
		}
	})
}
