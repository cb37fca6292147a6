package policy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatelodge/proxy/policy"
)

// newForward asks a server that answers with the handler.
func newForward(t testing.TB, decide http.HandlerFunc, change func(*policy.ForwardConfig)) *policy.Forward {
	t.Helper()
	s := httptest.NewServer(decide)
	t.Cleanup(s.Close)
	cfg := policy.ForwardConfig{
		URL: s.URL + "/verify?app=1", Copy: []string{"Remote-User", "x-groups"}, Transport: s.Client().Transport,
		Header: func(r *http.Request) http.Header {
			h := r.Header.Clone()
			h.Set("X-Forwarded-Host", r.Host)
			return h
		},
	}
	if change != nil {
		change(&cfg)
	}
	f, err := policy.NewForward(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// echo answers with the fields that tell who asks, as an application sees them.
func echo(w http.ResponseWriter, r *http.Request) {
	for name, v := range r.Header {
		variable := strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if variable == "REMOTE_USER" || variable == "X_GROUPS" {
			_, _ = fmt.Fprintf(w, "%s=%v ", variable, v)
		}
	}
}

func TestForward_GivesTheRequestWhatTheServerDecidedAndNothingOfTheClients(t *testing.T) {
	var says atomic.Value
	f := newForward(t, func(w http.ResponseWriter, _ *http.Request) {
		if user := says.Load().(string); user != "" {
			w.Header().Set("Remote-User", user)
		}
		w.Header().Set("X-Other", "not copied")
		w.WriteHeader(http.StatusNoContent)
	}, func(cfg *policy.ForwardConfig) {
		cfg.Own = func(_ *http.Request, names ...string) {
			if strings.Join(names, " ") != "Remote-User X-Groups" {
				t.Errorf("the server decides about %q", names)
			}
		}
	})
	s := serve(t, f, echo)
	for name, row := range map[string]struct {
		says   string
		client []string
		want   string
	}{
		"alice":                              {"alice", nil, "REMOTE_USER=[alice] "},
		"alice, though the client says root": {"alice", []string{"Remote-User", "root"}, "REMOTE_USER=[alice] "},
		"alice, with aliases":                {"alice", []string{"Remote_User", "root", "remote.user", "root", "X-GROUPS", "wheel", "X_Groups", "wheel"}, "REMOTE_USER=[alice] "},
		"nobody, though the client says so":  {"", []string{"Remote-User", "root", "REMOTE_USER", "root"}, ""},
	} {
		says.Store(row.says)
		if a := get(t, s, row.client...); a.body != row.want {
			t.Errorf("%s: the application saw %q, want %q", name, a.body, row.want)
		}
	}
}

func TestForward_AsksWithTheRequestsOwnHeaderAndNoBody(t *testing.T) {
	asked := make(chan *http.Request, 1)
	f := newForward(t, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		r.Header.Set("Test-Body", string(b))
		asked <- r
	}, nil)
	s := serve(t, f, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/a%2Fb?c=d", strings.NewReader("the body"))
	for _, f := range []string{"Cookie: session=1", "Accept: text/html", "Content-Type: text/plain", "If-None-Match: \"x\"", "Range: bytes=0-1", "X-Forwarded-Method: DELETE", "X-Forwarded-Uri: /open", "Remote-User: root", "Remote_User: root"} {
		name, value, _ := strings.Cut(f, ": ")
		r.Header.Set(name, value)
	}
	res, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if string(body) != "the body" {
		t.Errorf("behind the policy the body is %q", body)
	}
	q := <-asked
	if q.Method != http.MethodGet || q.RequestURI != "/verify?app=1" || q.Header.Get("Test-Body") != "" || q.ContentLength != 0 {
		t.Errorf("asked %s %s, %d bytes", q.Method, q.RequestURI, q.ContentLength)
	}
	for name, want := range map[string]string{
		"X-Forwarded-Method": "POST", "X-Forwarded-Uri": "/a%2Fb?c=d", "X-Forwarded-Host": s.Listener.Addr().String(), "Cookie": "session=1", "Accept": "text/html",
		"Remote-User": "", "Remote_User": "", "Content-Type": "", "If-None-Match": "", "Range": "", "Accept-Encoding": "",
	} {
		if got := strings.Join(q.Header[name], "|"); got != want && name != "Accept-Encoding" {
			t.Errorf("asked with %s: %q, want %q", name, got, want)
		}
	}
}

func TestForward_GivesOtherAnswersToTheClient(t *testing.T) {
	f := newForward(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") == "" {
			w.Header().Set("Location", "https://login.example.com/?rd=x")
			w.Header().Set("Set-Cookie", "csrf=1")
			w.Header().Set("Connection", "X-Hop")
			w.Header().Set("X-Hop", "1")
			w.WriteHeader(http.StatusFound)
			return
		}
		w.Header().Set("Www-Authenticate", "Bearer")
		http.Error(w, "expired", http.StatusUnauthorized)
	}, nil)
	s := serve(t, f, func(http.ResponseWriter, *http.Request) { t.Error("the request went on") })
	a := get(t, s)
	if a.StatusCode != 302 || a.Header.Get("Location") != "https://login.example.com/?rd=x" || a.Header.Get("Set-Cookie") != "csrf=1" || a.Header.Get("X-Hop") != "" {
		t.Errorf("%s %v", a.Status, a.Header)
	}
	a = get(t, s, "Cookie", "session=old")
	if a.StatusCode != 401 || a.Header.Get("Www-Authenticate") != "Bearer" || a.body != "expired\n" {
		t.Errorf("%s %q %v", a.Status, a.body, a.Header)
	}
}

// Whatever is wrong with the server that decides, nobody gets in.
func TestForward_IsNeverOpen(t *testing.T) {
	raw := func(answer string) string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 4096))
				_, _ = io.WriteString(c, answer)
				_ = c.Close()
			}
		}()
		return "http://" + ln.Addr().String()
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	never := make(chan struct{})
	for name, row := range map[string]struct {
		decide http.HandlerFunc
		url    string
		want   int
	}{
		"nobody listens":     {url: "http://" + closed.Addr().String(), want: 503},
		"no HTTP":            {url: raw("220 smtp.example.com ESMTP\r\n"), want: 503},
		"closes at once":     {url: raw(""), want: 503},
		"half a header":      {url: raw("HTTP/1.1 200 OK\r\nRemote-User: ro"), want: 503},
		"unasked upgrade":    {url: raw("HTTP/1.1 101 Switching Protocols\r\n\r\n"), want: 502},
		"fails":              {decide: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, want: 502},
		"is overloaded":      {decide: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, want: 502},
		"does not answer":    {decide: func(http.ResponseWriter, *http.Request) { <-never }, want: 503},
		"breaks off at once": {decide: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, want: 503},
	} {
		t.Run(name, func(t *testing.T) {
			f := newForward(t, row.decide, func(cfg *policy.ForwardConfig) {
				if row.url != "" {
					cfg.URL = row.url
				}
				cfg.Timeout = 5 * time.Second
				if name == "does not answer" {
					cfg.Timeout = 50 * time.Millisecond
				}
			})
			s := serve(t, f, func(http.ResponseWriter, *http.Request) { t.Error("the request went on") })
			if a := get(t, s); a.StatusCode != row.want {
				t.Errorf("%s, want %d", a.Status, row.want)
			}
			if name == "does not answer" {
				close(never)
			}
		})
	}
}

func TestForward_RefusesAnAddressOrNamesThatAreNone(t *testing.T) {
	header := func(r *http.Request) http.Header { return r.Header.Clone() }
	for name, cfg := range map[string]policy.ForwardConfig{
		"no address":            {Transport: http.DefaultTransport, Header: header},
		"no scheme":             {URL: "127.0.0.1:9091", Transport: http.DefaultTransport, Header: header},
		"another scheme":        {URL: "ftp://x/", Transport: http.DefaultTransport, Header: header},
		"a password":            {URL: "http://a:hunter2@x/", Transport: http.DefaultTransport, Header: header},
		"no transport":          {URL: "http://x/", Header: header},
		"framing to be copied":  {URL: "http://x/", Copy: []string{"content-length"}, Transport: http.DefaultTransport, Header: header},
		"an alias to be copied": {URL: "http://x/", Copy: []string{"Remote_User"}, Transport: http.DefaultTransport, Header: header},
	} {
		if _, err := policy.NewForward(cfg); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkForward(b *testing.B) {
	f := newForward(b, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Remote-User", "alice") }, nil)
	h := f.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(discard{}, r)
	}
}
