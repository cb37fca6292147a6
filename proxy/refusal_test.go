package proxy_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

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
