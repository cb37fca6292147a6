package acmeclient

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zaptest"

	"gatelodge/storage"
)

const letsEncryptDirectory = `{
  "Xk2bD3kJ9sA": "https://community.letsencrypt.org/t/adding-random-entries-to-the-directory/33417",
  "keyChange": "https://ca.test/acme/key-change",
  "meta": {"caaIdentities": ["letsencrypt.org"], "termsOfService": "https://ca.test/tos", "website": "https://ca.test", "profiles": {"classic": "x", "odd": 5}},
  "newAccount": "https://ca.test/acme/new-acct", "newNonce": "https://ca.test/acme/new-nonce", "newOrder": "https://ca.test/acme/new-order",
  "renewalInfo": "https://ca.test/acme/renewal-info", "revokeCert": "https://ca.test/acme/revoke-cert", "number": 7, "object": {"newOrder": 1}}`

func TestParseDirectory_TellsProtocols(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       Protocol
		wantErr    string // of parsing or of the protocol
	}{
		{"v2 with random key and odd values", letsEncryptDirectory, ProtocolV2, ""},
		{"v1", `{"new-reg":"https://ca.test/r","new-authz":"https://ca.test/a","new-cert":"https://ca.test/c","abc":"https://ca.test/x"}`, ProtocolV1, ""},
		{"both families", `{"new-reg":"https://ca.test/r","new-authz":"https://ca.test/a","new-cert":"https://ca.test/c",` +
			`"newNonce":"https://ca.test/n","newAccount":"https://ca.test/a","newOrder":"https://ca.test/o"}`, ProtocolV2, ""},
		{"v2 keys that are no strings", `{"newNonce":1,"newAccount":[],"newOrder":{}}`, "", `"newAccount", "newNonce", "newOrder"`},
		{"v2 keys on plain http", `{"newNonce":"http://ca.test/n","newAccount":"http://ca.test/a","newOrder":"http://ca.test/o"}`, "", "neither"},
		{"v2 keys that are relative", `{"newNonce":"/n","newAccount":"/a","newOrder":"/o"}`, "", "neither"},
		{"one v2 key missing", `{"newNonce":"https://ca.test/n","newAccount":"https://ca.test/a"}`, "", "neither"},
		{"other JSON", `{"hello":"world"}`, "", `"hello"`},
		{"empty object", `{}`, "", "empty"},
		{"array", `[]`, "", "no JSON object"},
		{"null", `null`, "", "no JSON object"},
		{"HTML", `<html></html>`, "", "no JSON object"},
		{"nothing", ``, "", "no JSON object"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := parseDirectory([]byte(tt.body), false)
			var got Protocol
			if err == nil {
				got, err = d.protocol()
			}
			if got != tt.want || tt.wantErr == "" && err != nil || tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)) {
				t.Errorf("protocol is %q, error %v", got, err)
			}
		})
	}
}

func TestParseDirectory_ReadsWhatWeUse(t *testing.T) {
	d, err := parseDirectory([]byte(letsEncryptDirectory), false)
	if err != nil {
		t.Fatal(err)
	}
	if d.newOrder() != "https://ca.test/acme/new-order" || d.terms != "https://ca.test/tos" || d.binding || len(d.profiles) != 2 {
		t.Errorf("directory is %+v", d)
	}
	again, err := parseDirectory(d.canonical(), false)
	if err != nil || again.newOrder() != d.newOrder() || again.terms != d.terms || len(again.profiles) != 2 {
		t.Errorf("canonical form is %s", d.canonical())
	}
}

func FuzzParseDirectory(f *testing.F) {
	for _, s := range []string{letsEncryptDirectory, `{}`, `null`, `{"newNonce":1}`, `<html>`, `{"meta":{"profiles":[]},"newOrder":"http://127.0.0.1/o"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := parseDirectory(body, false)
		if err != nil {
			return
		}
		for k, u := range d.endpoints {
			if !strings.HasPrefix(strings.ToLower(u), "https://") {
				t.Errorf("%s is %q", k, u)
			}
		}
		var v map[string]any
		if json.Unmarshal(d.canonical(), &v) != nil {
			t.Error("canonical form is no JSON")
		}
		_, _ = d.protocol()
	})
}

// clientAt makes a Client of a CA that is only a handler.
func clientAt(t *testing.T, handler http.Handler, change ...func(*Config)) (*Client, *httptest.Server) {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	store := storage.NewMemory()
	cfg := Config{Name: "pebble", Directory: srv.URL + "/dir", Store: store, Responder: NewResponder(store, zaptest.NewLogger(t)), Logger: zaptest.NewLogger(t)}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.wire.retries = nil
	t.Cleanup(func() { _ = c.Close() })
	return c, srv
}

func TestObtain_TellsADirectoryThatItCannotUse(t *testing.T) {
	big := bytes.Repeat([]byte(" "), maxBody+1)
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		says    string
	}{
		{"v1", func(w http.ResponseWriter, r *http.Request) {
			u := "http://" + r.Host
			_ = json.NewEncoder(w).Encode(map[string]string{"new-reg": u + "/r", "new-authz": u + "/a", "new-cert": u + "/c"})
		}, "acme_version"},
		{"HTML", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("<html>")) }, "no JSON object"},
		{"too large", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(big) }, "larger than"},
		{"404", http.NotFound, "check `directory`"},
		{"brownout", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(403)
			_, _ = w.Write([]byte(`{"type":"urn:acme:error:serverInternal","detail":"ACMEv1 Brownout in Progress."}`))
		}, "Brownout"},
		{"redirect to another host", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.test/dir", http.StatusFound)
		}, "another host"},
		{"redirect loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/dir", http.StatusFound) }, "too many redirects"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := clientAt(t, tt.handler, func(cfg *Config) { cfg.Protocol = ProtocolV2 })
			_, err := c.Obtain(t.Context(), newRequest(t, "www.example.test"))
			if p := problemOf(t, err, ScopeCA); !strings.Contains(p.Error(), tt.says) {
				t.Errorf("error does not say %q: %v", tt.says, p)
			}
			if tt.name == "v1" && !strings.Contains(err.Error(), "new-reg, new-authz, new-cert") {
				t.Errorf("error does not name the keys: %v", err)
			}
		})
	}
}

func TestDirectory_FollowsARedirectWithinTheHost(t *testing.T) {
	c, _ := clientAt(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/dir" {
			http.Redirect(w, r, "/v2/dir", http.StatusMovedPermanently)
			return
		}
		u := "http://" + r.Host
		_ = json.NewEncoder(w).Encode(map[string]string{"newNonce": u + "/n", "newAccount": u + "/a", "newOrder": u + "/o"})
	}))
	if _, err := c.speaker(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDirectoryCache_IsBelievedForAWhile runs on simulated time: 12 h fresh, a week on error, a new try every 5 minutes.
func TestDirectoryCache_IsBelievedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &directoryCache{}
		dir := &directory{}
		failed := &Problem{}
		if _, err := c.update(nil, failed, time.Now(), time.Now()); err != failed {
			t.Errorf("a first failure gives %v", err)
		}
		if got, err := c.update(dir, nil, time.Now(), time.Now()); got != dir || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
		time.Sleep(directoryAge - time.Second)
		if c.fresh(time.Now()) != dir {
			t.Error("not believed for 12 h")
		}
		time.Sleep(time.Second)
		if c.fresh(time.Now()) != nil {
			t.Error("believed after 12 h")
		}
		if got, err := c.update(nil, failed, time.Now(), time.Now()); got != dir || err != nil {
			t.Errorf("after a failure got %v, %v, wanted the old one", got, err)
		}
		if time.Sleep(directoryRefresh - time.Second); c.fresh(time.Now()) != dir {
			t.Error("asked again at once after a failure")
		}
		if time.Sleep(time.Second); c.fresh(time.Now()) != nil {
			t.Error("not asked again 5 minutes after a failure")
		}
		time.Sleep(directoryMaxAge)
		if got, err := c.update(nil, failed, time.Now(), time.Now()); got != nil || err != failed {
			t.Errorf("after a week got %v, %v", got, err)
		}
		c.update(dir, nil, time.Now(), time.Now())
		if c.expire(); c.fresh(time.Now()) != nil {
			t.Error("believed though an endpoint was gone")
		}
	})
}
