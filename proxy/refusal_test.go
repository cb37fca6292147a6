package proxy_test

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatelodge/proxy/proxytest"
)

func TestGuard_ARefusedRequestIsLoggedAndHasAnID(t *testing.T) {
	for name, c := range map[string]struct {
		request, why string
		status       int
	}{
		"malformed":   {"GET / HTTP/1.1\r\nHost: a.test\r\nX y: z\r\n\r\n", "field line without a proper name", 400},
		"no host":     {"GET / HTTP/1.1\r\n\r\n", "no Host", 400},
		"two hosts":   {"GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n", "more than one Host", 400},
		"too large":   {"GET / HTTP/1.1\r\nHost: a.test\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n", "431", 431},
		"no protocol": {"HELO\r\n\r\n", "request line", 400},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, func(w http.ResponseWriter, r *http.Request) {})
			answer := p.Raw(proxytest.H1, "a.test", c.request)
			_, id, ok := strings.Cut(answer, "X-Request-Id: ")
			id, _, _ = strings.Cut(id, "\r\n")
			if !strings.HasPrefix(answer, "HTTP/1.1 "+strconv.Itoa(c.status)+" ") || !ok || !strings.HasSuffix(answer, "request id: "+id+"\n") || c.status == 400 && strings.Contains(answer, c.why) {
				t.Errorf("answer %q", answer)
			}
			eventually(t, "the access log has the request", func() bool { return p.Access.Len() == 1 })
			entry := p.Access.All()[0].ContextMap()
			if err, _ := entry["error"].(string); entry["request_id"] != id || entry["status"] != int64(c.status) || !strings.Contains(err, c.why) || entry["client"] != "127.0.0.1" {
				t.Errorf("logged %v", entry)
			}
			if n := p.Metrics.Requests(c.status); n != 1 {
				t.Errorf("counted %d times", n)
			}
		})
	}
}

// What a client sends behind a request does not cost it the answer: an empty line is taken from old ones after a POST (RFC 9112 §2.2), all else is refused afterwards.
func TestGuard_ARequestIsAnsweredWhateverComesBehindIt(t *testing.T) {
	const get, post = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody"
	gone := make(chan struct{}, 100)
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
			gone <- struct{}{}
		case <-time.After(50 * time.Millisecond): // time to be given up
		}
	})
	for name, c := range map[string]struct {
		requests string
		statuses []string
	}{
		"nonsense":                         {get + "NONSENSE\r\n\r\n", []string{"200", "400"}},
		"nonsense behind a body":           {post + "NONSENSE\r\n\r\n", []string{"200", "400"}},
		"a request that is no proper one":  {get + "GET / HTTP/1.1\r\nHost: a.test\r\nX : y\r\n\r\n", []string{"200", "400"}},
		"an empty line, then a request":    {post + "\r\n" + get + "NONSENSE\r\n\r\n", []string{"200", "200", "400"}},
		"two requests, then nonsense":      {get + get + "NONSENSE\r\n\r\n", []string{"200", "200", "400"}},
		"a body that is nonsense halfways": {"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\nNONSENSE\r\n", []string{"400"}},
	} {
		t.Run(name, func(t *testing.T) {
			proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
				var got []string
				for _, line := range strings.Split(p.Raw(mode, "a.test", c.requests), "\r\n") {
					if status, ok := strings.CutPrefix(line, "HTTP/1.1 "); ok {
						got = append(got, status[:3])
					}
				}
				if !slices.Equal(got, c.statuses) {
					t.Errorf("answers %v, want %v", got, c.statuses)
				}
			}, proxytest.H1, proxytest.Plain)
		})
	}
	if len(gone) > 2 { // of the last row alone
		t.Errorf("%d requests were given up", len(gone))
	}
}
