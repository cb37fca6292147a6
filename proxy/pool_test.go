package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
	"gatelodge/proxy/upstream"
)

// startPool runs a proxy with the one site a.test before a pool.
func startPool(t *testing.T, cfg upstream.Config) *proxytest.Proxy {
	t.Helper()
	pool, err := upstream.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	pool.Start()
	return proxytest.Start(t, proxytest.Sites(proxy.Site{Name: "a", Hosts: []string{"a.test"}, Upstream: pool, AccessLog: true}), nil)
}

var retryAll = upstream.Retries{Max: 1, On: []string{"connect", "502", "503", "504"}, Methods: []string{"GET", "PUT"}, Budget: 100}

func TestPool_ARequestThatCouldNotConnectGoesElsewhereWithItsBody(t *testing.T) {
	closed := proxytest.Listen(t)
	_ = closed.Close()
	up := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	p := startPool(t, upstream.Config{To: []string{"http://" + closed.Addr().String(), up}, Balance: "first", Retries: retryAll})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		r, _ := http.NewRequest(http.MethodPost, mode.URL("a.test", "/"), strings.NewReader("body"))
		if res, body := proxytest.Do(t, p.Client(mode), r); res.StatusCode != http.StatusOK || body != "body" {
			t.Errorf("%d %q", res.StatusCode, body)
		}
		logged := p.Access.All()
		if got := logged[len(logged)-1].ContextMap()["upstream"]; got != up {
			t.Errorf("the access log says that %v answered, it was %s", got, up)
		}
	})
	if n := p.Metrics.UpstreamErrors(""); n != 0 {
		t.Errorf("%d errors, but every client had its answer", n)
	}
}

func TestPool_NothingThatWasSentIsSentAgainUnlessItIsSafe(t *testing.T) {
	for name, answer := range map[string]string{
		"closes":       "",
		"is busy":      "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		"is no HTTP":   "220 smtp ready\r\n\r\n",
		"says 1xx too": "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 502 Bad\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			bad := proxytest.NewRawUpstream(t, func(c net.Conn, header string, r *bufio.Reader) {
				if strings.Contains(header, "Content-Length: 4") {
					_, _ = io.ReadFull(r, make([]byte, 4))
				}
				_, _ = io.WriteString(c, answer)
			})
			var got atomic.Int32
			good := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { got.Add(1) })
			p := startPool(t, upstream.Config{To: []string{bad.URL, good}, Balance: "first", Retries: retryAll})
			proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
				for _, c := range []struct {
					method, body string
					again        bool
				}{{"GET", "", true}, {"POST", "", false}, {"POST", "body", false}, {"PUT", "body", false}, {"DELETE", "", false}} {
					got.Store(0)
					var body io.Reader
					if c.body != "" {
						body = strings.NewReader(c.body)
					}
					r, _ := http.NewRequest(c.method, mode.URL("a.test", "/"), body)
					r.Header.Set("Idempotency-Key", "k") // changes nothing
					res, _ := proxytest.Do(t, p.Client(mode), r)
					if again := got.Load() == 1; again != c.again || (res.StatusCode == http.StatusOK) != c.again {
						t.Errorf("%s with %q: %d, the other target got %d", c.method, c.body, res.StatusCode, got.Load())
					}
				}
			})
		})
	}
}

func TestPool_StickyCookiesAreForTLSWhereTheClientCameByIt(t *testing.T) {
	p := startPool(t, upstream.Config{To: []string{
		proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "one") }),
		proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "two") }),
	}, Sticky: "lb"})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		client := p.Client(mode)
		res, who := proxytest.Get(t, client, mode.URL("a.test", "/"))
		cookies := res.Cookies()
		if len(cookies) != 1 || cookies[0].Secure != mode.TLS || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteLaxMode || cookies[0].Path != "/" {
			t.Fatalf("the cookies are %v", res.Header["Set-Cookie"])
		}
		for range 10 {
			r, _ := http.NewRequest(http.MethodGet, mode.URL("a.test", "/"), nil)
			r.AddCookie(cookies[0])
			if res, again := proxytest.Do(t, client, r); again != who || len(res.Cookies()) != 0 {
				t.Fatalf("%s, then %s with %v", who, again, res.Cookies())
			}
		}
	})
}

func TestPool_SaysThatNobodyIsThereWithoutWaiting(t *testing.T) {
	up := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	p := startPool(t, upstream.Config{To: []string{up}, Health: upstream.Health{Path: "/up", Every: 10 * time.Millisecond, Fall: 1}})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		client := p.Client(mode)
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			res, body := proxytest.Get(t, client, mode.URL("a.test", "/"))
			if id := res.Header.Get("X-Request-Id"); res.StatusCode == http.StatusServiceUnavailable && id != "" && strings.Contains(body, id) {
				break // our own, after the first probe
			}
			if time.Now().After(end) {
				t.Fatalf("%d %q", res.StatusCode, body)
			}
		}
	})
	if p.Metrics.UpstreamErrors("unavailable") == 0 {
		t.Error("it is not counted")
	}
}

func TestPool_AClientThatBreaksOffIsNoFaultOfTheTarget(t *testing.T) {
	up := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	pool, err := upstream.New(upstream.Config{To: []string{up, "http://127.0.0.1:1"}, Balance: "first", Passive: upstream.Passive{Fails: 1}, Retries: retryAll})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	p := proxytest.Start(t, proxytest.Sites(proxy.Site{Name: "a", Hosts: []string{"a.test"}, Upstream: pool}), nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, body := range []string{"zz\r\n", "5\r\nhel", "-1\r\n"} {
			c := p.Dial(mode, "a.test")
			_, _ = io.WriteString(c, "PUT / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"+body)
			if half, ok := c.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
			_, _ = io.Copy(io.Discard, c)
		}
	}, proxytest.H1, proxytest.Plain)
	if s := pool.Status(); s[0].State != "up" || s[0].Failures != 0 || s[1].Requests != 0 {
		t.Errorf("%+v", s)
	}
}
