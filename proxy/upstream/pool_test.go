package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"crypto/tls"

	"go.uber.org/goleak"

	"gatelodge/proxy/proxytest"
	"gatelodge/proxy/upstream"
)

func TestMain(m *testing.M) {
	// net/http waits for half a second in it before it closes a connection whose client may still be sending, longer than goleak waits.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

func newPool(t *testing.T, cfg upstream.Config) *upstream.Pool {
	t.Helper()
	p, err := upstream.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func get(t *testing.T, p *upstream.Pool) (*http.Response, string, error) {
	t.Helper()
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "/path", nil)
	r.Host = "a.test"
	res, err := p.RoundTrip(r)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}

func TestNew_RefusesTargetsThatItCannotServe(t *testing.T) {
	for _, to := range [][]string{
		nil, {"http://a", "http://a"}, {""}, {"a:80"}, {"127.0.0.1:80"}, {"ftp://a"}, {"http://"}, {"http://u:secret@a"}, {"http://a/path"}, {"http://a?q"}, {"http://a#f"},
		{"http://a:0"}, {"http://a:99999"}, {"http://a b"}, {"unix://x"}, {"unix:///"}, {"unix:x"}, {"h2c://"},
	} {
		p, err := upstream.New(upstream.Config{To: to})
		if err == nil {
			t.Errorf("%q: %s, want an error", to, p)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows a password: %v", to, err)
		}
	}
	for _, to := range []string{"http://a", "https://a.test:8443/", "http://[::1]:80", "http://127.0.0.1:3000", "h2c://a:50051", "unix:///run/app.sock"} {
		if p := newPool(t, upstream.Config{To: []string{to}}); p.String() != strings.TrimSuffix(to, "/") {
			t.Errorf("%q became %q", to, p)
		}
	}
}

func TestPool_SendsHostAndPathAsTheyAre(t *testing.T) {
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Host+r.RequestURI)
	})
	if _, body, err := get(t, newPool(t, upstream.Config{To: []string{to}})); err != nil || body != "a.test/path" {
		t.Errorf("%q, %v", body, err)
	}
}

// secure serves HTTPS for the name "up.test" and returns its address.
func secure(t *testing.T, ca *proxytest.CA, h http.HandlerFunc) string {
	t.Helper()
	srv := &http.Server{Handler: h, TLSConfig: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.Certificate("up.test") }}, ErrorLog: log.New(io.Discard, "", 0)}
	l := proxytest.Listen(t)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return "https://" + l.Addr().String()
}

func TestPool_VerifiesWhomItTalksTo(t *testing.T) {
	ca, other := proxytest.NewCA(t), proxytest.NewCA(t)
	to := secure(t, ca, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	for _, c := range []struct {
		name string
		tls  upstream.TLS
		ok   bool
	}{
		{"right roots and name", upstream.TLS{ServerName: "up.test", Roots: ca.Pool}, true},
		{"wrong roots", upstream.TLS{ServerName: "up.test", Roots: other.Pool}, false},
		{"wrong name", upstream.TLS{ServerName: "down.test", Roots: ca.Pool}, false},
		{"no name", upstream.TLS{Roots: ca.Pool}, false},
		{"told not to", upstream.TLS{SkipVerify: true}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, body, err := get(t, newPool(t, upstream.Config{To: []string{to}, TLS: c.tls}))
			if c.ok && (err != nil || body != "HTTP/2.0") {
				t.Errorf("%q, %v", body, err)
			}
			if !c.ok && !errors.Is(err, upstream.ErrConnect) {
				t.Errorf("error = %v, want ErrConnect", err)
			}
		})
	}
}

func TestPool_SpeaksHTTP1ForUpgradesWhereItSpeaksHTTP2Otherwise(t *testing.T) {
	ca := proxytest.NewCA(t)
	to := secure(t, ca, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto+" "+r.Header.Get("Upgrade"))
	})
	p := newPool(t, upstream.Config{To: []string{to}, TLS: upstream.TLS{ServerName: "up.test", Roots: ca.Pool}})
	r, _ := http.NewRequest(http.MethodGet, "/", nil)
	r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"custom"}}
	res, err := p.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); string(body) != "HTTP/1.1 custom" {
		t.Errorf("upstream got %q", body)
	}
}

func TestPool_SaysWhatKindOfFailureItWas(t *testing.T) {
	closed := proxytest.Listen(t)
	_ = closed.Close()
	plain := proxytest.Upstream(t, func(http.ResponseWriter, *http.Request) {})
	raw := func(answer string) string { return proxytest.NewRawUpstream(t, proxytest.Reply(answer)).URL }
	for _, c := range []struct {
		name, to string
		class    error
	}{
		{"nobody listens", "http://" + closed.Addr().String(), upstream.ErrConnect},
		{"no such name", "http://does-not-exist.invalid", upstream.ErrConnect},
		{"no TLS there", strings.Replace(plain, "http", "https", 1), upstream.ErrConnect},
		{"closes at once", raw(""), upstream.ErrAborted},
		{"closes in the header", raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"), upstream.ErrAborted},
		{"closes in the body", raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"), upstream.ErrAborted},
		{"no HTTP", raw("hello\r\n\r\n"), upstream.ErrProtocol},
		{"bad chunks", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), upstream.ErrProtocol},
		{"HTTP/2.0 in an HTTP/1.1 connection", raw("HTTP/2.0 200 OK\r\n\r\n"), upstream.ErrProtocol},
		{"101 unasked", raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), upstream.ErrProtocol},
		{"never answers", proxytest.NewRawUpstream(t, func(_ net.Conn, _ string, r *bufio.Reader) { _, _ = r.ReadByte() }).URL, upstream.ErrTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := get(t, newPool(t, upstream.Config{To: []string{c.to}, ResponseHeaderTimeout: 200 * time.Millisecond, TLS: upstream.TLS{SkipVerify: true}}))
			var e *upstream.Error
			if !errors.As(err, &e) || e.Class != c.class || e.Target != c.to {
				t.Errorf("error = %v, want %v at %s", err, c.class, c.to)
			}
		})
	}
}

func TestPool_SaysWhenTheClientCanceled(t *testing.T) {
	p := newPool(t, upstream.Config{To: []string{proxytest.NewRawUpstream(t, func(_ net.Conn, _ string, r *bufio.Reader) { _, _ = r.ReadByte() }).URL}})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	if _, err := p.RoundTrip(r); upstream.Classify(err) != "canceled" {
		t.Errorf("error = %v", err)
	}
}

func TestClassify_HasOneWordForEachClass(t *testing.T) {
	for err, want := range map[error]string{
		upstream.ErrConnect: "connect", upstream.ErrTimeout: "timeout", upstream.ErrProtocol: "protocol", upstream.ErrAborted: "aborted", upstream.ErrCanceled: "canceled",
		io.EOF: "protocol",
	} {
		if got := upstream.Classify(&upstream.Error{Class: err, Err: io.EOF}); got != want {
			t.Errorf("%v = %q, want %q", err, got, want)
		}
	}
}

func TestPool_KeepsConnectionsUntilItIsClosed(t *testing.T) {
	var opened atomic.Int32
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				opened.Add(1)
			}
		},
	}
	l := proxytest.Listen(t)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	p := newPool(t, upstream.Config{To: []string{"http://" + l.Addr().String()}})
	for range 5 {
		if _, _, err := get(t, p); err != nil {
			t.Fatal(err)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for five requests, want 1", n)
	}
	_ = p.Close()
	for range 2 { // a request that began before a reload still works
		if _, _, err := get(t, p); err != nil {
			t.Fatal(err)
		}
	}
	if n := opened.Load(); n != 3 {
		t.Errorf("%d connections, want one for each request after Close", n)
	}
}
