package permission

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestAllowedBy_TakesWhatSaysNothingAndRefusesWhatSaysItWrongly(t *testing.T) {
	for _, c := range []struct{ body, tenant, to, fault string }{
		{body: ""},
		{body: "OK"},
		{body: "<html>{"},
		{body: "[1]"},
		{body: `"http://10.0.0.9"`},
		{body: "{}"},
		{body: " \r\n\t{\"tenant\":\"acme\"}\n", tenant: "acme"},
		{body: `{"tenant":5,"to":null,"more":[]}`},
		{body: `{"tenant":"acme","to":""}`, tenant: "acme"},
		{body: `{"to":"http://10.0.0.9"}`, to: "http://10.0.0.9"},
		{body: `{"to":"https://[2001:db8::1]:8443/"}`, to: "https://[2001:db8::1]:8443/"},
		{body: `{"to":"http://app.internal:65535"}`, to: "http://app.internal:65535"},
		{body: `{"tenant":"acme","to":"http://10.0.0`, fault: "broken JSON"},
		{body: "\n{", fault: "broken JSON"},
		{body: `{"tenant":"acme"} and more`, fault: "broken JSON"},
		{body: `{"to":5}`, fault: `"to" = 5`},
		{body: `{"to":["http://10.0.0.9"]}`, fault: `"to" = [`},
		{body: `{"to":"@app"}`, fault: `"to" = "@app"`},
		{body: `{"to":"10.0.0.9:80"}`, fault: `"to" = "10.0.0.9:80"`},
		{body: `{"to":"app"}`, fault: `"to" = "app"`},
		{body: `{"to":"h2c://10.0.0.9"}`, fault: "http://host:port"},
		{body: `{"to":"unix:///run/app.sock"}`, fault: "http://host:port"},
		{body: `{"to":"http://"}`, fault: "http://host:port"},
		{body: `{"to":"http://:80"}`, fault: "http://host:port"},
		{body: `{"to":"http://10.0.0.9:"}`, fault: "http://host:port"},
		{body: `{"to":"http://10.0.0.9:0"}`, fault: "http://host:port"},
		{body: `{"to":"http://10.0.0.9:65536"}`, fault: "http://host:port"},
		{body: `{"to":"http://10.0.0.9/app"}`, fault: "http://host:port"},
		{body: `{"to":"http://10.0.0.9?a"}`, fault: "http://host:port"},
		{body: `{"to":"http://10.0.0.9#"}`, fault: "http://host:port"},
		{body: `{"to":"http://user:secret@10.0.0.9"}`, fault: "user or password"},
	} {
		answer, err := allowedBy([]byte(c.body))
		switch {
		case c.fault == "":
			if err != nil || !answer.Allowed || answer.Tenant != c.tenant || answer.To != c.to {
				t.Errorf("%s: %+v, %v", c.body, answer, err)
			}
		case err == nil || !strings.Contains(err.Error(), c.fault) || strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: %v, want %s", c.body, err, c.fault)
		}
	}
}

func FuzzAskBody(f *testing.F) {
	f.Add([]byte(`{"tenant":"acme","to":"http://127.0.0.1:3000"}`))
	f.Add([]byte(`{"tenant":{}}`))
	f.Add([]byte(`{"to":"http://127.0.0.1:3000`))
	f.Add([]byte("OK"))
	f.Fuzz(func(t *testing.T, data []byte) {
		answer, err := allowedBy(data)
		ours := bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
		if answer.Allowed != (err == nil) {
			t.Fatalf("%+v, %v", answer, err)
		}
		if !ours && (err != nil || answer != Answer{Allowed: true}) {
			t.Fatalf("the status allowed it: %+v, %v", answer, err)
		}
		if err == nil && ours && !json.Valid(data) {
			t.Fatal("allowed by broken JSON")
		}
		if u, no := url.Parse(answer.To); answer.To != "" && (no != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https") {
			t.Fatalf("requests would go to %q", answer.To)
		}
	})
}

// An answer that is cut short must not send a customer's requests elsewhere: it is as if there were none.
func TestAsk_AnAnswerThatIsBrokenIsNone(t *testing.T) {
	for _, broken := range []string{`{"tenant":"acme","to":"http://127.0.`, `{"tenant":"acme","to":"@app"}`} {
		var body atomic.Pointer[string]
		good := `{"tenant":"acme","to":"http://127.0.0.1:1"}`
		body.Store(&good)
		a, _ := newTestAsk(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=0")
			fmt.Fprint(w, *body.Load())
		})
		core, logs := observer.New(zap.InfoLevel)
		a.cfg.Logger = zap.New(core)
		allow := func(name string) error { return a.Allow(t.Context(), name, netip.Addr{}) }
		if err := allow("a.example"); err != nil {
			t.Fatal(err)
		}
		body.Store(&broken)
		if err := allow("a.example"); err != nil {
			t.Errorf("%s: a name that was allowed before: %v", broken, err)
		}
		if told, ok := a.Told("a.example"); !ok || told.To != "http://127.0.0.1:1" {
			t.Errorf("%s: %+v, want what was said before", broken, told)
		}
		if err := allow("b.example"); err == nil || errors.Is(err, ErrDenied) {
			t.Errorf("%s: a new name: %v, want that nobody can tell", broken, err)
		}
		if n := logs.FilterMessageSnippet("the ask endpoint fails").Len(); n != 1 {
			t.Errorf("%s: the log says it %d times", broken, n)
		}
	}
}
