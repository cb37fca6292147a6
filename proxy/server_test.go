package proxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

func TestServer_ARequestKeepsTheSettingsItBeganWith(t *testing.T) {
	release := make(chan struct{})
	old := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "old")
		_ = http.NewResponseController(w).Flush()
		<-release
		_, _ = io.WriteString(w, " end")
	})
	young := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "new") })
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, old, "a.test")), nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		if err := p.Apply(proxytest.Sites(proxytest.Site(t, old, "a.test"))); err != nil {
			t.Fatal(err)
		}
		client := p.Client(mode)
		res, err := client.Get(mode.URL("a.test", "/"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if err := p.Apply(proxytest.Sites(proxytest.Site(t, young, "a.test"))); err != nil {
			t.Fatal(err)
		}
		if _, body := proxytest.Get(t, client, mode.URL("a.test", "/")); body != "new" {
			t.Errorf("after the reload: %q", body)
		}
		release <- struct{}{}
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "old end" {
			t.Errorf("the stream across the reload: %q, %v", body, err)
		}
	})
}

func TestServer_KeepsItsSettingsWhenNewOnesAreBad(t *testing.T) {
	p := start(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	good := proxytest.Site(t, "http://127.0.0.1:1", "b.test")
	for name, set := range map[string]proxy.Settings{
		"a host twice":           proxytest.Sites(good, proxy.Site{Name: "c", Hosts: []string{"b.test"}, Upstream: good.Upstream}),
		"a name twice":           proxytest.Sites(good, proxy.Site{Name: "b.test", Hosts: []string{"c.test"}, Upstream: good.Upstream}),
		"a host in capitals":     proxytest.Sites(proxy.Site{Name: "c", Hosts: []string{"C.test"}, Upstream: good.Upstream}),
		"a host that is none":    proxytest.Sites(proxy.Site{Name: "c", Hosts: []string{"c/d"}, Upstream: good.Upstream}),
		"no host":                proxytest.Sites(proxy.Site{Name: "c", Upstream: good.Upstream}),
		"no upstream":            proxytest.Sites(proxy.Site{Name: "c", Hosts: []string{"c.test"}}),
		"a default name unknown": {Sites: []proxy.Site{good}, DefaultName: "c.test"},
	} {
		if err := p.Apply(set); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, body := proxytest.Get(t, p.Client(proxytest.H1), "https://a.test/"); body != "ok" {
		t.Errorf("body = %q", body)
	}
	if _, ok := p.Site("a.test"); !ok {
		t.Error("the old site is gone")
	}
}

func TestNew_NamesEverythingThatIsMissing(t *testing.T) {
	_, err := proxy.New(proxy.Config{Limits: proxy.Limits{HeaderBytes: 100}}, proxy.Settings{})
	for _, want := range []string{"listener", "Logger", "HeaderBytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not mention %s", err, want)
		}
	}
	l := proxytest.Listen(t)
	defer l.Close()
	if _, err := proxy.New(proxy.Config{HTTPS: []net.Listener{l}, Logger: zap.NewNop()}, proxy.Settings{}); err == nil || !strings.Contains(err.Error(), "GetCertificate") {
		t.Errorf("error = %v", err)
	}
}

func TestShutdown_LetsRequestsFinishAndSendsClientsElsewhere(t *testing.T) {
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		arrived, release := make(chan struct{}), make(chan struct{})
		p := start(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "begin")
			_ = http.NewResponseController(w).Flush()
			close(arrived)
			<-release
			_, _ = io.WriteString(w, " end")
		})
		res, err := p.Client(mode).Get(mode.URL("a.test", "/"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		<-arrived
		done := make(chan error, 1)
		go func() { done <- p.Shutdown(t.Context()) }()
		eventually(t, "new connections are refused", func() bool {
			c, err := net.Dial("tcp", p.Addr(mode))
			if err == nil {
				_ = c.Close()
			}
			return err != nil
		})
		select {
		case err := <-done:
			t.Fatalf("Shutdown = %v with a request under way", err)
		default:
		}
		close(release)
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "begin end" {
			t.Errorf("body = %q, %v", body, err)
		}
		if err := <-done; err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		if err := p.Wait(); err != nil {
			t.Errorf("Serve = %v", err)
		}
		if p.Metrics.Open() != 0 {
			t.Errorf("%d connections are open", p.Metrics.Open())
		}
	})
}

func TestShutdown_ClosesWhatIsLeftAtItsDeadline(t *testing.T) {
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		canceled := make(chan struct{})
		p := start(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "begin")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			close(canceled)
		})
		res, err := p.Client(mode).Get(mode.URL("a.test", "/"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := p.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown = %v", err)
		}
		if err := p.Wait(); err != nil {
			t.Errorf("Serve = %v", err)
		}
		<-canceled
		if _, err := io.ReadAll(res.Body); err == nil {
			t.Error("the client took the cut answer for a whole one")
		}
	})
}

// The connections of clients that still send are closed with patience elsewhere, so that they can read their answer; here they would wait for each other.
func TestShutdown_ClosesWhatIsLeftAtOnceThoughClientsStillSend(t *testing.T) {
	const clients = 30
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.WriteString(w, "begin")
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	})
	for range clients {
		c := p.Dial(proxytest.H1, "a.test")
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
		if _, err := c.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := p.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown = %v", err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("Serve = %v", err)
	}
	if took := time.Since(began); took > clients*time.Second/2 {
		t.Errorf("it took %v: every client was waited for", took)
	}
}

func TestServe_SaysWhenAListenerFails(t *testing.T) {
	var l net.Listener
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, "http://127.0.0.1:1", "a.test")), func(c *proxy.Config) { l = c.HTTP[0] })
	_, _ = proxytest.Get(t, p.Client(proxytest.H1), "https://a.test/") // it runs
	_ = l.Close()
	if err := p.Wait(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve = %v", err)
	}
	p.Forgive()
}

func TestServer_ContainsAPanic(t *testing.T) {
	site := proxytest.Site(t, "http://127.0.0.1:1", "a.test")
	site.Upstream = panics{}
	p := proxytest.Start(t, proxytest.Sites(site), nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		client := p.Client(mode)
		for range 2 {
			res, body := proxytest.Get(t, client, mode.URL("a.test", "/"))
			if res.StatusCode != http.StatusInternalServerError || !strings.Contains(body, res.Header.Get("X-Request-Id")) {
				t.Errorf("%d %q", res.StatusCode, body)
			}
		}
		if res, err := client.Post(mode.URL("a.test", "/late"), "", nil); err == nil { // a GET that is cut before its header is repeated by the client
			if _, err := io.ReadAll(res.Body); err == nil {
				t.Error("the client took the cut answer for a whole one")
			}
			_ = res.Body.Close()
		}
	})
	if n := p.Log.FilterMessage("panic in a request").Len(); n != 3*len(proxytest.Modes) {
		t.Errorf("%d panics in the log, want three per mode", n)
	}
}

// panics is an upstream with a bug: before its answer, or in the middle of it.
type panics struct{}

func (panics) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasPrefix(r.URL.Opaque, "/late") {
		return &http.Response{StatusCode: 200, Body: io.NopCloser(badBody{}), ContentLength: -1, Header: http.Header{}}, nil
	}
	panic("bug")
}

type badBody struct{}

func (badBody) Read([]byte) (int, error) { time.Sleep(5 * time.Millisecond); panic("bug in a body") }

func TestAccessLog_HasOneRecordPerRequest(t *testing.T) {
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, strings.Repeat("x", int(n)))
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		_ = p.Access.TakeAll()
		r, _ := http.NewRequest(http.MethodPost, mode.URL("a.test", "/p?q=%22"), strings.NewReader("12345"))
		r.Header = http.Header{"User-Agent": {"agent\"007"}, "Authorization": {"Bearer secret"}, "Cookie": {"s=secret"}}
		_, _ = proxytest.Do(t, p.Client(mode), r)
		eventually(t, "one record", func() bool { return p.Access.Len() == 1 })
		m := p.Access.All()[0].ContextMap()
		for k, want := range map[string]any{
			"client": "127.0.0.1", "method": "POST", "host": "a.test", "uri": "/p?q=%22", "status": int64(200), "bytes_in": int64(5), "bytes_out": int64(5),
			"user_agent": "agent\"007", "site": "a.test",
		} {
			if m[k] != want {
				t.Errorf("%s = %v, want %v", k, m[k], want)
			}
		}
		if _, secure := m["tls"]; secure != mode.TLS || m["request_id"] == "" || m["duration"].(time.Duration) <= 0 || !strings.HasPrefix(m["upstream"].(string), "http://127.0.0.1:") {
			t.Errorf("record = %v", m)
		}
		for k, v := range m {
			if s, ok := v.(string); ok && strings.Contains(s, "secret") {
				t.Errorf("a secret in %s", k)
			}
		}
	})
}

func TestAccessLog_IsSilentWhenTurnedOff(t *testing.T) {
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {})
	quiet := proxytest.Site(t, to, "quiet.test")
	quiet.AccessLog = false
	p := proxytest.Start(t, proxytest.Sites(quiet), nil)
	_, _ = proxytest.Get(t, p.Client(proxytest.H1), "https://quiet.test/")
	off := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, to, "a.test")), func(c *proxy.Config) { c.AccessLog = nil })
	_, _ = proxytest.Get(t, off.Client(proxytest.H1), "https://a.test/")
	eventually(t, "the requests are counted", func() bool { return p.Metrics.Requests(200) == 1 && off.Metrics.Requests(200) == 1 })
	if p.Access.Len() != 0 {
		t.Error("a site without access log was logged")
	}
}
