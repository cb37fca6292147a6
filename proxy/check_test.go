package proxy_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

func TestCheck_RefusesHostsThatAreNone(t *testing.T) {
	p, up := startRaw(t, proxytest.Reply(proxytest.OK))
	for _, host := range []string{"", "a@b", "a,b", "[::1]evil", "[::1", "a.test:port", "a.test:99999", "a test", "a.test/x", "a.test?x", "-a.test", "::1", "a\tb", "a..test", "*.test", "a.test#"} {
		answer := p.Raw(proxytest.Plain, "", "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 400 ") {
			t.Errorf("Host %q: %q", host, answer)
		}
	}
	if a := p.Raw(proxytest.Plain, "", "GET / HTTP/1.0\r\n\r\n"); !strings.HasPrefix(a, "HTTP/1.0 400 ") {
		t.Errorf("no Host in HTTP/1.0: %q", a)
	}
	if a := p.Raw(proxytest.Plain, "", "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n"); !strings.HasPrefix(a, "HTTP/1.1 405 ") || strings.Count(a, "HTTP/1.1") != 1 {
		t.Errorf("CONNECT: %q", a)
	}
	if a := p.Raw(proxytest.Plain, "", "GET /#x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(a, "HTTP/1.1 400 ") {
		t.Errorf("fragment: %q", a)
	}
	_ = p.Raw(proxytest.Plain, "", "GET /last HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
	if line, _ := received(t, up.Next(t)); line != "GET /last HTTP/1.1" {
		t.Errorf("the upstream got %q, which should have been refused", line)
	}
	if n := p.Metrics.UpstreamErrors(""); n != 0 {
		t.Errorf("%d errors were counted against the upstream", n)
	}
}

func TestCheck_AnswersMalformedMessagesWith400AndCloses(t *testing.T) {
	p, _ := startRaw(t, proxytest.Reply(proxytest.OK))
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for name, m := range map[string]string{
			"length and chunks": "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"two hosts":         "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
			"no host":           "GET / HTTP/1.1\r\n\r\n",
			"bare line feeds":   "GET / HTTP/1.1\nHost: a.test\n\n",
			"folding":           "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\r\n b\r\n\r\n",
			"chunks in 1.0":     "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"HTTP/0.9":          "GET /\r\n\r\n",
		} {
			answer := p.Raw(mode, "a.test", m+"GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n")
			if !strings.HasPrefix(answer, "HTTP/1.1 400 ") || !strings.Contains(answer, "Connection: close") || strings.Count(answer, "HTTP/1.1") != 1 {
				t.Errorf("%s: %q", name, answer)
			}
		}
	}, proxytest.H1, proxytest.Plain)
}

func TestCheck_BadChunksAreTheClientsFault(t *testing.T) {
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "ok")
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, chunks := range []string{"xyz\r\n", "4\r\nbodybody\r\n0\r\n\r\n", "4\nbody\r\n0\r\n\r\n", "ffffffffffffffffff\r\n"} {
			answer := p.Raw(mode, "a.test", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"+chunks)
			if !strings.HasPrefix(answer, "HTTP/1.1 400 ") || !strings.Contains(answer, "Connection: close") {
				t.Errorf("%q: %q", chunks, answer)
			}
		}
		if n := p.Metrics.UpstreamErrors(""); n != 0 {
			t.Errorf("%d errors were counted against the upstream", n)
		}
	}, proxytest.H1, proxytest.Plain)
}

// frames sends one HTTP/2 request with exactly these fields, and returns its status, or "RST_STREAM", or "GOAWAY".
func frames(t *testing.T, p *proxytest.Proxy, fields ...string) string {
	t.Helper()
	return framesWithBody(t, p, "", fields...)
}

// framesWithBody is frames with a body that comes a moment after the header.
func framesWithBody(t *testing.T, p *proxytest.Proxy, body string, fields ...string) string {
	t.Helper()
	c, err := tls.Dial("tcp", p.HTTPS, &tls.Config{ServerName: "a.test", RootCAs: p.CA.Pool, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_, _ = io.WriteString(c, http2.ClientPreface)
	fr := http2.NewFramer(c, c)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = fr.WriteSettings()
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: body == ""})
	if body != "" {
		time.Sleep(50 * time.Millisecond)
		_ = fr.WriteData(1, true, []byte(body))
	}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return "RST_STREAM"
		case *http2.GoAwayFrame:
			return "GOAWAY"
		}
	}
}

func TestCheck_RefusesMalformedHTTP2Requests(t *testing.T) {
	p, up := startRaw(t, proxytest.Reply(proxytest.OK))
	base := func(extra ...string) []string {
		return append([]string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.test"}, extra...)
	}
	if got := frames(t, p, base("te", "trailers")...); got != "200" {
		t.Fatalf("a good request: %s", got)
	}
	_ = up.Next(t)
	for name, fields := range map[string][]string{
		"connection":           base("connection", "close"),
		"keep-alive":           base("keep-alive", "1"),
		"proxy-connection":     base("proxy-connection", "1"),
		"transfer-encoding":    base("transfer-encoding", "chunked"),
		"upgrade":              base("upgrade", "h2c"),
		"http2-settings":       base("http2-settings", "AAMAAABk"),
		"te":                   base("te", "gzip"),
		"another host":         base("host", "b.test"),
		"no authority":         {":method", "GET", ":scheme", "https", ":path", "/"},
		"an odd authority":     {":method", "GET", ":scheme", "https", ":path", "/", ":authority", "user@a.test"},
		"a list of hosts":      {":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.test,b.test"},
		"a space in the path":  {":method", "GET", ":scheme", "https", ":path", "/a b", ":authority", "a.test"},
		"a fragment":           {":method", "GET", ":scheme", "https", ":path", "/a#b", ":authority", "a.test"},
		"a path without /":     {":method", "GET", ":scheme", "https", ":path", "a", ":authority", "a.test"},
		"connect":              {":method", "CONNECT", ":authority", "a.test:443"},
		"a method of words":    {":method", "GET /x", ":scheme", "https", ":path", "/", ":authority", "a.test"},
		"a method with a tab":  {":method", "GET\t", ":scheme", "https", ":path", "/", ":authority", "a.test"},
		"a method in brackets": {":method", "(GET)", ":scheme", "https", ":path", "/", ":authority", "a.test"},
		"a protocol for GET":   {":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.test", ":protocol", "websocket"},
		"a bad length":         base("content-length", "+1"),
		"a length unfulfilled": base("content-length", "4"),
	} {
		if got := frames(t, p, fields...); got == "200" || strings.HasPrefix(got, "5") {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := frames(t, p, base(":path", "/last")...); got == "200" {
		t.Errorf("two paths: %s", got)
	}
	if got := frames(t, p, ":method", "GET", ":scheme", "https", ":path", "/last", ":authority", "a.test"); got != "200" {
		t.Fatal(got)
	}
	if line, _ := received(t, up.Next(t)); line != "GET /last HTTP/1.1" {
		t.Errorf("the upstream got %q, which should have been refused", line)
	}
}

func TestLimits_ASlowHeaderIsCut(t *testing.T) {
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {})
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, to, "a.test")), func(c *proxy.Config) {
		c.Limits.HeaderTimeout = 200 * time.Millisecond
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, first := range []string{"", "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"} { // as the first request, and as the second
			c := p.Dial(mode, "a.test")
			_, _ = io.WriteString(c, first+"GET / HTTP/1.1\r\n")
			closed := make(chan struct{})
			go func() { defer close(closed); _, _ = io.Copy(io.Discard, c) }()
			for slow := true; slow; {
				select {
				case <-closed:
					slow = false
				case <-time.After(20 * time.Millisecond):
					_, _ = io.WriteString(c, "X: y\r\n") // never enough silence for an idle timeout
				}
			}
		}
	}, proxytest.H1, proxytest.Plain)
}

func TestLimits_IdleConnectionsAreClosed(t *testing.T) {
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {})
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, to, "a.test")), func(c *proxy.Config) {
		c.Limits.IdleTimeout = 100 * time.Millisecond
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		_, _ = proxytest.Get(t, p.Client(mode), mode.URL("a.test", "/"))
		eventually(t, "the connection is closed", func() bool { return p.Metrics.Open() == 0 })
	})
}

func TestLimits_AStalledUploadIsA408(t *testing.T) {
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, to, "a.test")), func(c *proxy.Config) {
		c.Limits.StallTimeout = 200 * time.Millisecond
	})
	answer := p.Raw(proxytest.H1, "a.test", "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhalf")
	if !strings.HasPrefix(answer, "HTTP/1.1 408 ") {
		t.Errorf("answer = %q", answer)
	}
	if p.Metrics.UpstreamErrors("") != 0 {
		t.Error("the client's silence was counted against the upstream")
	}
}

func TestLimits_AClientThatTakesNothingLosesItsConnection(t *testing.T) {
	canceled := make(chan struct{})
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, zeros{})
		close(canceled)
	})
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, to, "a.test")), func(c *proxy.Config) {
		c.Limits.StallTimeout = 200 * time.Millisecond
	})
	c := p.Dial(proxytest.Plain, "")
	_ = c.(*net.TCPConn).SetReadBuffer(4096)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
	select {
	case <-canceled:
	case <-time.After(10 * time.Second):
		t.Error("the upstream still sends")
	}
}

func TestLimits_AnHTTP2ClientThatOpensNoWindowLosesItsStream(t *testing.T) {
	canceled := make(chan struct{})
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, zeros{})
		close(canceled)
	})
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, to, "a.test")), func(c *proxy.Config) {
		c.Limits.StallTimeout = 400 * time.Millisecond
	})
	c, err := tls.Dial("tcp", p.HTTPS, &tls.Config{ServerName: "a.test", RootCAs: p.CA.Pool, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":path", "/"}, {":authority", "a.test"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	_, _ = io.WriteString(c, http2.ClientPreface)
	fr := http2.NewFramer(c, c)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatalf("the connection ended before the stream: %v", err)
		}
		switch f := f.(type) {
		case *http2.PingFrame:
			_ = fr.WritePing(true, f.Data) // the client is alive, only the stream is not
		case *http2.RSTStreamFrame:
			<-canceled
			return
		}
	}
}
