package proxy_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

// dripping is a body of a byte now and then; nothing is ever silent long enough to be called stalled.
type dripping struct{ until <-chan struct{} }

func (d dripping) Read(p []byte) (int, error) {
	select {
	case <-time.After(20 * time.Millisecond):
		p[0] = 'x'
		return 1, nil
	case <-d.until:
		return 0, io.ErrUnexpectedEOF
	}
}

func TestLimits_ABodyThatDripsIsA408(t *testing.T) {
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, to, "a.test")), func(c *proxy.Config) {
		c.Limits.StallTimeout = time.Second
		c.Limits.BodyRate = 1e6
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for name, length := range map[string]int64{"with a length": 1 << 20, "without": -1} {
			ended := make(chan struct{})
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, mode.URL("a.test", "/"), dripping{ended})
			r.ContentLength = length
			res, err := p.Client(mode).Do(r)
			close(ended)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusRequestTimeout {
				t.Errorf("%s: %s", name, res.Status)
			}
		}
	})
	if n := p.Metrics.UpstreamErrors(""); n != 0 {
		t.Errorf("the clients' slowness was counted against the upstream %d times", n)
	}
}

// An upstream that has answered and goes on reading has a conversation with the client, which may think for as long as it likes. TestPace has the schedule; this
// is about the sockets.
func TestLimits_AConversationMayPause(t *testing.T) {
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(w, r.Body)
	})
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, to, "a.test")), func(c *proxy.Config) {
		c.Limits.StallTimeout = 6 * time.Second // of which a client that has no answer yet may wait for four and a half
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		t.Parallel()
		body, write := io.Pipe()
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, mode.URL("a.test", "/"), body)
		res, err := p.Client(mode).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		time.Sleep(5 * time.Second) // more than that; a longer pause on a slow machine proves the same
		go func() {
			_, _ = io.WriteString(write, "still there")
			_ = write.Close()
		}()
		if got, err := io.ReadAll(res.Body); err != nil || string(got) != "still there" {
			t.Errorf("%q, %v", got, err)
		}
	})
}
