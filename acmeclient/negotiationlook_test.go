package acmeclient

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"gatelodge/storage"
)

// observation is what a server, or the way to it, may do when it is asked for a directory.
type observation struct {
	name    string
	class   class
	body    string // with {} for scheme and host
	status  int    // 0: 200
	headers []string
	handler http.HandlerFunc // instead of body and status
	dial    error            // instead of an answer
}

const (
	jsonV2  = `"newNonce":"{}/n","newAccount":"{}/a","newOrder":"{}/o"`
	jsonV1  = `"new-reg":"{}/acme/new-reg","new-authz":"{}/acme/new-authz","new-cert":"{}/acme/new-cert","revoke-cert":"{}/acme/revoke-cert"`
	jsonKey = `"BYoEP1jSRd4":"https://community.letsencrypt.org/t/adding-random-entries-to-the-directory/33417"`
	brown   = `{"type":"urn:acme:error:serverInternal","detail":"ACMEv1 Brownout in Progress. ACMEv1 will fully turn off on June 1, 2021."}`
)

var observations = []observation{
	{name: "v2", class: sawV2, body: `{` + jsonV2 + `}`},
	{name: "v2 with a random key", class: sawV2, body: `{` + jsonV2 + `,` + jsonKey + `}`},
	{name: "v2 with values of other types", class: sawV2, body: `{` + jsonV2 + `,"meta":5,"x":null,"y":[{}],"profiles":"z"}`},
	{name: "v2 with all of v1's keys", class: sawV2, body: `{` + jsonV2 + `,` + jsonV1 + `}`},
	{name: "v2 as text/html", class: sawV2, body: `{` + jsonV2 + `}`, headers: []string{"Content-Type", "text/html"}},
	{name: "v2 after a redirect within the host", class: sawV2, handler: func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/moved" {
			http.Redirect(w, r, "/moved", http.StatusPermanentRedirect)
			return
		}
		_, _ = io.WriteString(w, strings.ReplaceAll(`{`+jsonV2+`}`, "{}/", "http://"+r.Host+"/"))
	}},

	{name: "v1", class: sawV1, body: `{` + jsonV1 + `}`},
	{name: "v1 with a random key and meta", class: sawV1, body: `{` + jsonV1 + `,` + jsonKey + `,"meta":{"terms-of-service":"{}/terms"},"key-change":"{}/k"}`},
	{name: "v1 with values of other types", class: sawV1, body: `{` + jsonV1 + `,"meta":"x","key-change":7}`},

	{name: "404", class: sawAbsent, status: 404, body: "404 page not found"},
	{name: "404 with a v2 directory", class: sawAbsent, status: 404, body: `{` + jsonV2 + `}`},
	{name: "404 with a v1 directory", class: sawAbsent, status: 404, body: `{` + jsonV1 + `}`},
	{name: "410", class: sawAbsent, status: 410},
	{name: "405", class: sawAbsent, status: 405},
	{name: "501", class: sawAbsent, status: 501},

	{name: "HTML", class: sawNotACME, body: "<!DOCTYPE html><title>Welcome to nginx!</title>"},
	{name: "nothing", class: sawNotACME},
	{name: "null", class: sawNotACME, body: "null"},
	{name: "an array", class: sawNotACME, body: "[]"},
	{name: "an empty object", class: sawNotACME, body: "{}"},
	{name: "other JSON", class: sawNotACME, body: `{"hello":"world"}`},
	{name: "half a document", class: sawNotACME, body: `{` + jsonV2},
	{name: "v2 without newOrder", class: sawNotACME, body: `{"newNonce":"{}/n","newAccount":"{}/a"}`},
	{name: "v2 with values of other types in its keys", class: sawNotACME, body: `{"newNonce":1,"newAccount":[],"newOrder":{}}`},
	{name: "v2 with plain http elsewhere", class: sawNotACME, body: `{"newNonce":"http://ca.test/n","newAccount":"http://ca.test/a","newOrder":"http://ca.test/o"}`},
	{name: "v1 without new-cert", class: sawNotACME, body: `{"new-reg":"{}/r","new-authz":"{}/a"}`},
	{name: "v1 with one key of v2", class: sawNotACME, body: `{` + jsonV1 + `,"newOrder":"{}/o"}`},
	{name: "v1 with a broken key of v2", class: sawNotACME, body: `{` + jsonV1 + `,"newNonce":null}`},
	{name: "v1 with values of other types in its keys", class: sawNotACME, body: `{"new-reg":1,"new-authz":[],"new-cert":{}}`},
	{name: "201 with a v1 directory", class: sawNotACME, status: 201, body: `{` + jsonV1 + `}`},
	{name: "204", class: sawNotACME, status: 204},
	{name: "304", class: sawNotACME, status: 304},
	{name: "400 with a problem document", class: sawNotACME, status: 400, body: `{"type":"urn:acme:error:malformed"}`},
	{name: "too large", class: sawNotACME, body: strings.Repeat(" ", maxBody+1)},

	{name: "a brownout", class: sawDenied, status: 403, body: brown, headers: []string{"Content-Type", "application/problem+json"}},
	{name: "403 with a v1 directory", class: sawDenied, status: 403, body: `{` + jsonV1 + `}`},
	{name: "401", class: sawDenied, status: 401},
	{name: "407", class: sawDenied, status: 407},
	{name: "a redirect to another host", class: sawDenied, status: 302, headers: []string{"Location", "https://evil.test/directory"}},
	{name: "a redirect to another port", class: sawDenied, status: 307, headers: []string{"Location", "http://127.0.0.1:1/directory"}},
	{name: "a redirect to itself", class: sawDenied, status: 302, headers: []string{"Location", "/dir"}},

	{name: "429", class: sawNothing, status: 429, body: `{` + jsonV1 + `}`},
	{name: "500 with serverInternal", class: sawNothing, status: 500, body: brown},
	{name: "502", class: sawNothing, status: 502, body: "<html>"},
	{name: "503 with Retry-After", class: sawNothing, status: 503, headers: []string{"Retry-After", "60"}, body: `{` + jsonV1 + `}`},
	{name: "511 of a captive portal", class: sawNothing, status: 511},
	{name: "an answer cut short", class: sawNothing, handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{`+jsonV1+`}`)
	}},
	{name: "a connection that is dropped", class: sawNothing, handler: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	{name: "a name that does not exist", class: sawNothing, dial: &net.DNSError{Err: "no such host", Name: "ca.test", IsNotFound: true}},
	{name: "a resolver that fails", class: sawNothing, dial: &net.DNSError{Err: "server misbehaving", Name: "ca.test", IsTemporary: true}},
	{name: "a refused connection", class: sawNothing, dial: &net.OpError{Op: "dial", Err: errors.New("connection refused")}},
	{name: "a timeout", class: sawNothing, dial: context.DeadlineExceeded},
	{name: "a certificate of nobody", class: sawNothing, dial: &tls.CertificateVerificationError{Err: errors.New("unknown authority")}},
}

// shown is a CA that does what an observation says, at /dir, or at /v1 where there is one.
type shown struct {
	url string

	mu     sync.Mutex
	at     map[string]observation // by path
	others []string               // requests to other paths
}

func newShown(t *testing.T) *shown {
	t.Helper()
	s := &shown{at: map[string]observation{}}
	srv := httptest.NewUnstartedServer(s)
	srv.Config.ErrorLog = quietLog()
	srv.Start()
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func (s *shown) show(path string, o observation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[path] = o
}

func (s *shown) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	o, ok := s.at[r.URL.Path]
	if r.URL.Path == "/moved" {
		o, ok = s.at["/dir"]
	}
	if !ok {
		s.others = append(s.others, r.Method+" "+r.URL.Path)
	}
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	if o.handler != nil {
		o.handler(w, r)
		return
	}
	for i := 0; i+1 < len(o.headers); i += 2 {
		w.Header().Set(o.headers[i], o.headers[i+1])
	}
	w.WriteHeader(cmp.Or(o.status, http.StatusOK))
	_, _ = io.WriteString(w, strings.ReplaceAll(o.body, "{}/", s.url+"/"))
}

// client makes a client of it over the store.
func (s *shown) client(t *testing.T, store storage.Store, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{Name: "shown", Directory: s.url + "/dir", Store: store, Responder: NewResponder(store, zaptest.NewLogger(t)), Logger: zaptest.NewLogger(t)}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.wire.retries = nil
	c.wire.transport.DisableKeepAlives = true
	c.wire.transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		s.mu.Lock()
		err := s.at["/dir"].dial
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestLook_TellsWhatItSees(t *testing.T) {
	s := newShown(t)
	c := s.client(t, storage.NewMemory())
	for _, o := range observations {
		t.Run(o.name, func(t *testing.T) {
			s.show("/dir", o)
			got, dir, err := c.negotiator.look(t.Context(), atDirectory)
			if got.class != o.class || got.says == "" || strings.Contains(got.says, "\n") || (dir != nil) != (o.class == sawV2) || (got.v1 != nil) != (o.class == sawV1) {
				t.Fatalf("saw %q: %q, %+v, %v", got.class, got.says, got.v1, dir)
			}
			if (err == nil) != (o.class == sawV2 || o.class == sawV1) {
				t.Errorf("error is %v", err)
			}
			var p *Problem
			if err != nil && (!errors.As(err, &p) || p.scope != ScopeCA && o.status != 429 || p.Advice == "") {
				t.Errorf("error is %+v", err)
			}
			if got.v1 != nil && (got.v1.Endpoints["new-reg"] != s.url+"/acme/new-reg" || got.v1.URL != s.url+"/dir") {
				t.Errorf("v1 directory is %+v", got.v1)
			}
		})
	}
}

func TestLook_SeesATimeoutAndATLSErrorForReal(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	secure.Config.ErrorLog = quietLog()
	hang, release := httptest.NewServer(nil), make(chan struct{})
	hang.Config.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })
	defer hang.Close()
	defer close(release)
	for _, url := range []string{secure.URL, hang.URL, "http://127.0.0.1:1"} {
		c := (&shown{url: url, at: map[string]observation{}}).client(t, storage.NewMemory())
		c.wire.timeout = 100 * time.Millisecond
		if s, _, err := c.negotiator.look(t.Context(), atDirectory); s.class != sawNothing || err == nil {
			t.Errorf("%s: saw %q, %v", url, s.class, err)
		}
	}
}

// TestNegotiator_EveryStateMeetsEveryObservation drives the whole: the stored state, a real answer, the table's outcome. Whatever a CA that spoke v2 shows, it gets
// no request but for its directory.
func TestNegotiator_EveryStateMeetsEveryObservation(t *testing.T) {
	for _, known := range []negotiation{{}, knownV2, suspected, knownV1(atDirectory), upgrading(atDirectory, time.Minute)} {
		t.Run(known.State.String(), func(t *testing.T) {
			for _, o := range observations {
				checkMeeting(t, known, o)
			}
		})
	}
}

func checkMeeting(t *testing.T, known negotiation, o observation) {
	t.Helper()
	s, store := newShown(t), storage.NewMemory()
	s.show("/dir", o)
	known.Directory = s.url + "/dir"
	if known.V1 != nil {
		known.V1At = atDirectory
		known.V1 = &v1Directory{URL: s.url + "/dir", Endpoints: map[string]string{"new-reg": s.url + "/acme/new-reg"}}
	}
	if known.State == stateUpgrading {
		known.Since = time.Now().Add(-time.Minute)
	}
	data, err := json.Marshal(known)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Put(t.Context(), "acme/shown/negotiation", data); err != nil {
		t.Fatal(err)
	}
	c := s.client(t, store)
	want, act := known.next(sight{place: atDirectory, class: o.class, v1: someV1}, c.negotiator.rules, time.Now())
	n, lookErr := c.negotiator.lookInBackground(t.Context(), known.State)
	stored := negotiated(t, store, "shown")
	if n.State != want.State || stored.State != want.State {
		t.Errorf("%s: state is %q, stored %q, wanted %q", o.name, n.State, stored.State, want.State)
	}
	if (lookErr != nil) != (act == giveUp || act == lookAgain || act == alarm) {
		t.Errorf("%s: error is %v", o.name, lookErr)
	}
	if known.State == stateV2 || known.State == stateSuspected {
		_, err := c.Obtain(t.Context(), newRequest(t, "www.example.test"))
		var p *Problem
		if !errors.As(err, &p) || p.scope != ScopeCA && o.status != 429 {
			t.Errorf("%s: Obtain: %v", o.name, err)
		}
		for _, line := range s.others {
			if strings.Contains(line, "/acme/") {
				t.Errorf("%s: v1 was asked: %s", o.name, line)
			}
		}
	}
}

func FuzzLook(f *testing.F) {
	for _, o := range observations {
		if len(o.body) < 1000 {
			f.Add(max(o.status, 200), o.body)
		}
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		var dir *directory
		var err error
		if status == http.StatusOK {
			if dir, err = parseDirectory([]byte(body), true); err != nil {
				err = &answerError{err}
			}
		}
		c, err := classify(status, dir, err)
		if (c == sawV1 || c == sawV2) && (status != http.StatusOK || err != nil) {
			t.Errorf("status %d is %q, %v", status, c, err)
		}
		if c == sawV1 && dir.mentionsV2 {
			t.Errorf("a directory with keys of v2 is one of v1: %s", body)
		}
		if c != sawV1 && c != sawV2 && err == nil {
			t.Errorf("%q without a reason", c)
		}
		if c == sawV1 {
			for k, u := range dir.v1Endpoints() {
				if _, err := parseURL(u, true); err != nil {
					t.Errorf("%s is %q", k, u)
				}
			}
		}
	})
}
