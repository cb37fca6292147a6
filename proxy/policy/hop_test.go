package policy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatelodge/proxy"
	"gatelodge/proxy/policy"
	"gatelodge/proxy/proxytest"
)

// behind is a whole proxy with the policy around its one site, a.test, before an upstream that answers by h.
func behind(t *testing.T, p wrapper, h http.HandlerFunc) *proxytest.Proxy {
	t.Helper()
	site := proxytest.Site(t, proxytest.Upstream(t, h), "a.test")
	site.Wrap = p.Wrap
	return proxytest.Start(t, proxytest.Sites(site), nil)
}

func newRequest(t *testing.T, mode proxytest.Mode, method, path string, fields ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, mode.URL("a.test", path), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return r
}

func TestHop_CompressesWholeAnswersInEveryProtocol(t *testing.T) {
	p := behind(t, newCompress(t), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Etag", `"v1"`)
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", strconv.Itoa(len(page)))
		}
		if r.Method == http.MethodHead {
			return
		}
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, page)
		w.Header().Set("X-Sum", "42")
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, path := range []string{"/known", "/unknown"} {
			for _, coding := range []string{"", "gzip", "br", "zstd"} {
				res, body := proxytest.Do(t, p.Client(mode), newRequest(t, mode, http.MethodGet, path, "Accept-Encoding", coding))
				plain, err := io.ReadAll(decoder(t, coding, strings.NewReader(body)))
				if err != nil || string(plain) != page || res.Header.Get("Content-Encoding") != coding {
					t.Errorf("%s, %q: %d bytes, %v, %v", path, coding, len(plain), err, res.Header)
				}
				if want := `"v1"`; coding == "" && res.Header.Get("Etag") != want || coding != "" && res.Header.Get("Etag") != "W/"+want {
					t.Errorf("%s, %q: validator %s", path, coding, res.Header.Get("Etag"))
				}
				if path == "/unknown" && res.Trailer.Get("X-Sum") != "42" {
					t.Errorf("%s, %q: trailers %v", path, coding, res.Trailer)
				}
				head, _ := proxytest.Do(t, p.Client(mode), newRequest(t, mode, http.MethodHead, path, "Accept-Encoding", coding))
				if head.Header.Get("Content-Encoding") != coding || coding != "" && head.Header.Get("Content-Length") != "" {
					t.Errorf("HEAD %s, %q: %v", path, coding, head.Header)
				}
			}
		}
	})
}

func TestHop_SendsCompressedEventsAtOnceInEveryProtocol(t *testing.T) {
	seen := make(chan struct{})
	p := behind(t, newCompress(t), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-seen:
			case <-r.Context().Done():
				return
			}
		}
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		res, err := p.Client(mode).Do(newRequest(t, mode, http.MethodGet, "/", "Accept-Encoding", "gzip"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		lines := bufio.NewScanner(decoder(t, "gzip", res.Body))
		for i := range 3 {
			for lines.Scan() && lines.Text() == "" {
			}
			if want := fmt.Sprintf("data: %d", i); lines.Text() != want {
				t.Fatalf("event %d is %q: %v", i, lines.Text(), lines.Err())
			}
			seen <- struct{}{}
		}
	})
}

// A compressed answer whose upstream broke off must not look complete, though what there is of it could be completed.
func TestHop_ShowsThatACompressedAnswerBrokeOff(t *testing.T) {
	p := behind(t, newCompress(t), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", strconv.Itoa(2*len(page)))
		_, _ = io.WriteString(w, page)
		panic(http.ErrAbortHandler)
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		res, err := p.Client(mode).Do(newRequest(t, mode, http.MethodGet, "/", "Accept-Encoding", "gzip"))
		if err != nil {
			return // it broke off before there was a header
		}
		defer func() { _ = res.Body.Close() }()
		if _, err := io.ReadAll(res.Body); err == nil {
			t.Error("the client takes the answer for complete")
		}
	})
}

func TestHop_RefusesWithRequestIDAndCountsNothingAgainstTheUpstream(t *testing.T) {
	limit, err := policy.NewLimit(policy.LimitConfig{Rate: 1e-6, Burst: 1, Client: proxy.ClientOf, Refuse: proxy.Refuse})
	if err != nil {
		t.Fatal(err)
	}
	var reached atomic.Int64
	p := behind(t, limit, func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	first := true
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		if first {
			first = false
			_, _ = proxytest.Do(t, p.Client(mode), newRequest(t, mode, http.MethodGet, "/"))
		}
		_ = p.Access.TakeAll()
		r := newRequest(t, mode, http.MethodPost, "/")
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat("x", 1<<20))), 1<<20
		res, body := proxytest.Do(t, p.Client(mode), r)
		id := res.Header.Get("X-Request-Id")
		if res.StatusCode != 429 || res.Header.Get("Retry-After") == "" || id == "" || !strings.Contains(body, id) {
			t.Errorf("%s %v %q", res.Status, res.Header, body)
		}
		for end := time.Now().Add(20 * time.Second); p.Access.Len() == 0 && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		if log := p.Access.All(); len(log) != 1 || log[0].ContextMap()["request_id"] != id || !strings.Contains(fmt.Sprint(log[0].ContextMap()["error"]), "limit") {
			t.Errorf("the access log says %v", log)
		}
	})
	if reached.Load() != 1 || p.Metrics.UpstreamErrors("") != 0 {
		t.Errorf("%d requests reached the upstream, %d errors of it", reached.Load(), p.Metrics.UpstreamErrors(""))
	}
}
