package dnsprovider

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/cloudflare"
	"github.com/libdns/libdns"
	"github.com/libdns/rfc2136"
)

// build makes a provider whose every secret is secretToken, or for rfc2136 secretKey.
func build(t *testing.T, kind string, own map[string]any) certmagic.DNSProvider {
	t.Helper()
	p, err := New(kind, own, secrets(map[string]string{"TOKEN": secretToken, "KEY": secretKey}))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func txt(name, value string) []libdns.Record {
	return []libdns.Record{libdns.RR{Type: "TXT", Name: name, Data: value}}
}

// cloudflareAPI is the part of the API that the provider uses, with one zone. It answers errors in the shape of the real one; pages are left out.
type cloudflareAPI struct {
	mu      sync.Mutex
	records map[string]map[string]any // by id
	seen    []string                  // "METHOD path" with the token
}

func (a *cloudflareAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
	answer := func(status int, result any, errs ...map[string]any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{"success": len(errs) == 0, "errors": errs, "result": result})
	}
	const records = "/client/v4/zones/z1/dns_records"
	switch {
	case r.Header.Get("Authorization") != "Bearer "+secretToken:
		answer(http.StatusForbidden, nil, map[string]any{"code": 9109, "message": "Invalid access token"})
	case r.URL.Path == "/client/v4/zones":
		answer(http.StatusOK, []any{map[string]any{"id": "z1", "name": strings.TrimSuffix(r.URL.Query().Get("name"), ".")}})
	case r.URL.Path == records && r.Method == http.MethodPost:
		var rec map[string]any
		_ = json.NewDecoder(r.Body).Decode(&rec)
		rec["id"] = fmt.Sprint("r", len(a.records)+1)
		for _, old := range a.records {
			if old["name"] == rec["name"] && old["content"] == rec["content"] {
				answer(http.StatusBadRequest, nil, map[string]any{"code": 81058, "message": "An identical record already exists."})
				return
			}
		}
		a.records[rec["id"].(string)] = rec
		answer(http.StatusOK, rec)
	case r.URL.Path == records:
		found := []any{}
		for _, rec := range a.records {
			if strings.Contains(fmt.Sprint(rec["content"]), r.URL.Query().Get("content.contains")) {
				found = append(found, rec)
			}
		}
		answer(http.StatusOK, found)
	case r.Method == http.MethodDelete:
		id := strings.TrimPrefix(r.URL.Path, records+"/")
		rec := a.records[id]
		delete(a.records, id)
		answer(http.StatusOK, rec)
	default:
		answer(http.StatusNotFound, nil, map[string]any{"code": 7000, "message": "No route"})
	}
}

// redirected sends every request to the server, whatever its host.
type redirected struct{ to *url.URL }

func (r redirected) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.URL.Scheme, req.URL.Host = r.to.Scheme, r.to.Host
	return http.DefaultTransport.RoundTrip(req)
}

func TestCloudflare_MakesAndRemovesOneValueOfAName(t *testing.T) {
	api := &cloudflareAPI{records: map[string]map[string]any{}}
	srv := httptest.NewServer(api)
	defer srv.Close()
	to, _ := url.Parse(srv.URL)
	p := build(t, "cloudflare", map[string]any{"token": "env:TOKEN"}).(*cloudflare.Provider)
	p.HTTPClient = &http.Client{Transport: redirected{to}}
	for _, value := range []string{"one", "two"} {
		if made, err := p.AppendRecords(t.Context(), "example.test.", txt("_acme-challenge", value)); err != nil || len(made) != 1 || made[0].RR().Data != value {
			t.Fatalf("%v, %v", made, err)
		}
	}
	if _, err := p.AppendRecords(t.Context(), "example.test.", txt("_acme-challenge", "two")); err == nil || !strings.Contains(err.Error(), "identical") {
		t.Errorf("twice: %v", err)
	}
	if _, err := p.DeleteRecords(t.Context(), "example.test.", txt("_acme-challenge", "one")); err != nil {
		t.Fatal(err)
	}
	if len(api.records) != 1 || api.records["r2"] == nil {
		t.Errorf("left: %v", api.records)
	}
	p.APIToken = secretToken + "-wrong"
	if _, err := p.AppendRecords(t.Context(), "example.test.", txt("_acme-challenge", "x")); err == nil || !strings.Contains(err.Error(), "Invalid access token") || strings.Contains(err.Error(), secretToken) {
		t.Errorf("with a wrong token: %v", err)
	}
}

func TestACMEDNS_WritesByTheAccountThatTheNameBelongsTo(t *testing.T) {
	var mu sync.Mutex
	var updates []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		updates = append(updates, r.URL.Path+" "+r.Header.Get("X-Api-User")+" "+string(body))
		if r.Header.Get("X-Api-Key") != secretToken {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer srv.Close()
	one := map[string]any{"server": srv.URL + "/", "username": "user1", "password": "env:TOKEN", "subdomain": "D420-C1"}
	accounts := fmt.Sprintf(`{"a.test":{"username":"user1","password":%q,"fulldomain":"d420-c1.auth.test","subdomain":"d420-c1","server_url":%q},
		"b.test":{"username":"user2","password":"wrong","fulldomain":"e111-a2.auth.test","subdomain":"e111-a2","server_url":%q}}`, secretToken, srv.URL, srv.URL)
	many, err := New("acmedns", map[string]any{"accounts": "file:/accounts"}, func(string) (string, error) { return accounts, nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []certmagic.DNSProvider{build(t, "acmedns", one), many} {
		if made, err := p.AppendRecords(t.Context(), "auth.test.", txt("d420-c1", "value")); err != nil || len(made) != 1 {
			t.Fatalf("%v, %v", made, err)
		}
		if got := updates[len(updates)-1]; got != `/update user1 {"subdomain":"D420-C1","txt":"value"}` && got != `/update user1 {"subdomain":"d420-c1","txt":"value"}` {
			t.Errorf("sent: %s", got)
		}
		if _, err := p.AppendRecords(t.Context(), "auth.test.", txt("ffff", "value")); err == nil || !strings.Contains(err.Error(), "ffff.auth.test., which is the name of no account") {
			t.Errorf("a stranger's name: %v", err)
		}
		if _, err := p.DeleteRecords(t.Context(), "auth.test.", txt("d420-c1", "value")); err != nil {
			t.Error(err)
		}
	}
	if _, err := many.AppendRecords(t.Context(), "auth.test.", txt("e111-a2", "value")); err == nil || !strings.Contains(err.Error(), "401") || strings.Contains(err.Error(), "wrong") {
		t.Errorf("wrong password: %v", err)
	}
	if len(updates) != 3 {
		t.Errorf("%q", updates)
	}
}

func TestRFC2136_SaysNoSecretWhenTheServerIsDown(t *testing.T) {
	p := build(t, "rfc2136", map[string]any{"server": "127.0.0.1:1", "key_name": "k", "key": "env:KEY"}).(*rfc2136.Provider)
	if _, err := p.AppendRecords(t.Context(), "example.test.", txt("_acme-challenge", "x")); err == nil || strings.Contains(err.Error(), secretKey) {
		t.Errorf("%v", err)
	}
}

// hook makes an exec provider that runs this test's own binary.
func hook(t *testing.T, timeout string, args ...any) certmagic.DNSProvider {
	t.Helper()
	t.Setenv("DNSPROVIDER_HOOK", "1")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return build(t, "exec", map[string]any{"command": append([]any{self}, args...), "timeout": timeout})
}

func TestExec_TellsTheProgramNameAndValueWithoutAShell(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p := hook(t, "30s", "append", log)
	const value = `$(touch x); "two words" *`
	made, err := p.AppendRecords(t.Context(), "example.test.", txt("_acme-challenge", value))
	if err != nil || len(made) != 1 || made[0].RR().Data != value {
		t.Fatalf("%v, %v", made, err)
	}
	if _, err := p.DeleteRecords(t.Context(), "example.test.", txt("@", "v")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(log)
	if want := []string{"present _acme-challenge.example.test. " + value, "cleanup example.test. v", ""}; err != nil || !slices.Equal(strings.Split(string(got), "\n"), want) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestExec_RepeatsTheEndOfWhatAFailingProgramSaid(t *testing.T) {
	_, err := hook(t, "30s", "fail").AppendRecords(t.Context(), "example.test.", txt("_acme-challenge", "v"))
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.HasSuffix(err.Error(), "[31mno such zone") || strings.Contains(err.Error(), "\x1b") || len(err.Error()) > maxSaid+200 {
		t.Errorf("%v", err)
	}
	_, err = build(t, "exec", map[string]any{"command": "/nonexistent/hook"}).AppendRecords(t.Context(), "example.test.", txt("_acme-challenge", "v"))
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/hook") {
		t.Errorf("%v", err)
	}
}

// Whoever calls it must know, or would end it sooner.
func TestExec_SaysHowLongItsProgramMayTake(t *testing.T) {
	p, ok := hook(t, "9m", "hang").(interface{ CallTimeout() time.Duration }) // acmeclient.PatientProvider
	if !ok || p.CallTimeout() != 9*time.Minute {
		t.Errorf("%T does not say it", p)
	}
}

func TestExec_KillsAProgramThatHangs(t *testing.T) {
	began := time.Now()
	_, err := hook(t, "100ms", "hang").AppendRecords(t.Context(), "example.test.", txt("_acme-challenge", "v"))
	if err == nil || !strings.Contains(err.Error(), "killed after") || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}
