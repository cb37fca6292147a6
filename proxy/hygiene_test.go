package proxy_test

import (
	"bufio"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

// hop is a proxy in front of an upstream that writes down every byte of every request, and answers 200.
type hop struct {
	*proxytest.Proxy
	t        *testing.T
	requests chan string // header, body and trailers as they came
}

func newHop(t *testing.T, wrap func(http.Handler) http.Handler) *hop {
	t.Helper()
	h := &hop{t: t, requests: make(chan string, 100)}
	up := proxytest.NewRawUpstream(t, func(c net.Conn, header string, r *bufio.Reader) {
		h.requests <- header + rawBody(header, r)
		_, _ = io.WriteString(c, proxytest.OK)
	})
	site := proxytest.Site(t, up.URL, "a.test")
	site.Wrap = wrap
	h.Proxy = proxytest.Start(t, proxytest.Sites(site), nil)
	return h
}

// rawBody reads a chunked body with its trailers, as it came.
func rawBody(header string, r *bufio.Reader) string {
	if !strings.Contains(header, "\r\nTransfer-Encoding: chunked\r\n") {
		return ""
	}
	var b strings.Builder
	for last := false; ; {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil || last && line == "\r\n" {
			return b.String()
		}
		last = last || line == "0\r\n"
	}
}

// next is what the upstream got, empty if nothing comes.
func (h *hop) next() string {
	select {
	case r := <-h.requests:
		return r
	case <-time.After(10 * time.Second):
		h.t.Error("no request reached the upstream")
		return ""
	}
}

// nothing checks that what was sent before did not reach the upstream: the next request to do so is one of ours.
func (h *hop) nothing(what string) {
	h.t.Helper()
	_ = h.Raw(proxytest.Plain, "", "GET /marker HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
	if got := h.next(); !strings.HasPrefix(got, "GET /marker ") {
		h.t.Errorf("%s: the upstream got %q", what, got)
		_ = h.next()
	}
}

// send sends a GET with exactly these fields more, names and values by turns, as bytes of the protocol.
func (h *hop) send(mode proxytest.Mode, more ...string) {
	h.t.Helper()
	switch {
	case mode.H2:
		_ = frames(h.t, h.Proxy, append([]string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.test"}, more...)...)
	case mode.H3:
		s := dialH3(h.t, h.Proxy, "a.test", nil).send(true, request("GET", more...))
		_, _ = io.ReadAll(s)
	default:
		var b strings.Builder
		for i := 0; i < len(more); i += 2 {
			b.WriteString(more[i] + ": " + more[i+1] + "\r\n")
		}
		_ = h.Raw(mode, "a.test", "GET / HTTP/1.1\r\nHost: a.test\r\n"+b.String()+"Connection: close\r\n\r\n")
	}
}

// ours are the fields that this proxy writes itself.
var ours = []string{"Host", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Request-Id"}

// The whole hop adds its own fields and no other, in every protocol: above all no Accept-Encoding, which would have the upstream compress for clients that
// cannot read it.
func TestHygiene_NothingIsAddedInAnyProtocol(t *testing.T) {
	h := newHop(t, nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		h.send(mode)
		line, got := received(t, h.next())
		if line != "GET / HTTP/1.1" || !slices.Equal(slices.Sorted(maps.Keys(got)), ours) {
			t.Errorf("the upstream got %s with %v", line, got)
		}
	})
}

// What the proxy owns cannot be said by anybody else: not under its name, not under one that an application takes for it, not twice.
func TestHygiene_NobodySpeaksInOurName(t *testing.T) {
	h := newHop(t, nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, name := range []string{
			"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-server", "x-forwarded-user", "x-forwarded-ssl",
			"x-real-ip", "x-request-id", "forwarded", "client-cert", "client-cert-chain", "proxy-authorization",
			"x_forwarded_for", "x_forwarded-for", "x-forwarded_for", "x_real_ip", "x_request_id", "client_cert", "remote_user", "http_x_forwarded_for", "content_length", "transfer_encoding", "_", "x-_",
			"x.forwarded.for", "x-forwarded.for", "x!forwarded!for", "x+real+ip", "client~cert", "x|request|id", "x'forwarded'host",
		} {
			h.send(mode, name, "spoof", "x-keep", "kept", name, "spoof")
			raw := h.next()
			if strings.Contains(raw, "spoof") || !strings.Contains(raw, "X-Keep: kept\r\n") {
				t.Errorf("%s: the upstream got %q", name, raw)
			}
		}
		// Names that look alike but can be taken for nothing of ours go on.
		for _, name := range []string{"X-Forwarded", "X-Real-Ips", "X.custom", "X-Client-Cert-Info"} {
			h.send(mode, strings.ToLower(name), "mine")
			if raw := h.next(); !strings.Contains(raw, name+": mine\r\n") {
				t.Errorf("%s: the upstream got %q", name, raw)
			}
		}
	})
}

func TestHygiene_NothingHopByHopPasses(t *testing.T) {
	h := newHop(t, nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, fields := range [][]string{
			{"Connection", "close, X-Gone, x-also-gone", "X-Gone", "secret", "X-Also-Gone", "secret"},
			{"Connection", "X-Forwarded-For, Host, Via, X-Request-Id, Content-Length"},
			{"Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "AAMAAABkAAQAAP__"},
			{"Connection", "Upgrade", "Upgrade", "websocket, h2c"},
			{"Connection", "Upgrade", "Upgrade", "websocket", "Upgrade", "h2c"},
			{"Connection", "Upgrade", "Upgrade", "TLS/1.0, h2"},
			{"Upgrade", "websocket"}, // which Connection does not name
			{"Keep-Alive", "timeout=5", "Proxy-Connection", "keep-alive", "TE", "gzip, deflate;q=0.5", "Trailer", "X-Sum"},
			{"Proxy-Authenticate", "Basic", "Proxy-Authorization", "Basic eDp5"},
		} {
			h.send(mode, fields...)
			raw := h.next()
			for _, gone := range []string{"Gone", "Upgrade", "h2c", "HTTP2", "Http2", "Keep-Alive", "Proxy-Connection", "Te:", "Trailer", "Proxy-Authorization", "Connection"} {
				if strings.Contains(raw, gone) {
					t.Errorf("%q: the upstream got %q", fields, raw)
				}
			}
			if _, got := received(t, raw); got.Get("X-Forwarded-For") != "127.0.0.1" || got.Get("Host") != "a.test" || got.Get("X-Request-Id") == "" {
				t.Errorf("%q: the upstream got %q", fields, raw)
			}
		}
	}, proxytest.H1, proxytest.Plain) // HTTP/2 and HTTP/3 have no such fields, and refuse them: TestCheck_RefusesMalformedHTTP2Requests, TestHygiene_WhatIsNoField...
}

// RFC 9113 §8.2.1 and RFC 9114 §4.2: a request with such a field is malformed. One that got through would be two requests to an HTTP/1.1 upstream.
func TestHygiene_WhatIsNoFieldReachesNobody(t *testing.T) {
	h := newHop(t, nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for what, fields := range map[string][]string{
			"CRLF in a value":              {"x-a", "b\r\nX-Smuggled: 1"},
			"LF in a value":                {"x-a", "b\nX-Smuggled: 1"},
			"CR in a value":                {"x-a", "b\rX-Smuggled: 1"},
			"NUL in a value":               {"x-a", "b\x00c"},
			"CRLF in a name":               {"x-a\r\nx-smuggled", "1"},
			"a colon in a name":            {"x-a: b", "1"},
			"a space in a name":            {"x-a b", "1"},
			"an empty name":                {"", "1"},
			"an upper-case name":           {"X-A", "1"},
			"a name beyond ASCII":          {"x-\xe9", "1"},
			"an unknown pseudo-field":      {":protocol-x", "1"},
			"a pseudo-field of an answer":  {":status", "200"},
			"a pseudo-field after a field": {"x-a", "1", ":path", "/smuggled"},
			"two authorities":              {":authority", "b.test"},
			"connection":                   {"connection", "close"},
			"transfer-encoding":            {"transfer-encoding", "chunked"},
			"upgrade to h2c":               {"upgrade", "h2c"},
			"te other than trailers":       {"te", "trailers, gzip"},
			"a length that is a list":      {"content-length", "0, 0"},
			"a host that differs":          {"host", "b.test"},
		} {
			h.send(mode, fields...)
			h.nothing(mode.Name + ": " + what)
		}
	}, proxytest.H2, proxytest.H3)
}

// RFC 9113 §8.2.3, RFC 9114 §4.2.1: cookies in several fields are one field to an HTTP/1.1 upstream, joined by semicolons.
func TestHygiene_CookiesBecomeOneField(t *testing.T) {
	h := newHop(t, nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		h.send(mode, "cookie", "a=1", "cookie", "b=2; c=3", "cookie", "d=4")
		if raw := h.next(); !strings.Contains(raw, "\r\nCookie: a=1; b=2; c=3; d=4\r\n") {
			t.Errorf("the upstream got %q", raw)
		}
	}, proxytest.H2, proxytest.H3)
}

// A trailer that an application puts beside the header must say nothing that the header could not.
func TestHygiene_TrailersSayNothingThatIsOursOrThePolicies(t *testing.T) {
	h := newHop(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			proxy.OwnFields(r, "Remote-User")
			r.Header.Set("Remote-User", "alice")
			next.ServeHTTP(w, r)
		})
	})
	spoofs := []string{
		"X-Forwarded-For", "X-Real-Ip", "X-Request-Id", "Forwarded", "Client-Cert", "Remote-User", "Via", "X_Forwarded_For", "Remote_User", "Remote.User", "X.Forwarded.For",
		"Cookie", "Expect", "If-None-Match", "Range", "Max-Forwards", "Content-Type", "Content-Range",
	}
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for i, name := range spoofs {
			path := "/" + strings.ReplaceAll(mode.Name, " ", "-") + "/" + strconv.Itoa(i)
			r, _ := http.NewRequest(http.MethodPost, mode.URL("a.test", path), io.LimitReader(zeros{}, 10))
			r.Trailer = http.Header{name: {"spoof"}, "Sum": {"42"}}
			res, err := h.Client(mode).Do(r)
			if err != nil {
				continue // the client itself refuses to send some of these
			}
			_ = res.Body.Close()
			raw := h.next()
			for raw != "" && !strings.HasPrefix(raw, "POST "+path+" ") { // what a client began to send before it refused
				raw = h.next()
			}
			if strings.Contains(raw, "spoof") || !strings.Contains(raw, "\r\nSum: 42\r\n") || regexp.MustCompile(`(?m)^Trailer:.*`+regexp.QuoteMeta(name)).MatchString(raw) {
				t.Errorf("%s: the upstream got %q", name, raw)
			}
		}
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) { // unannounced, and those that clients refuse to send
		for _, name := range append(spoofs, "Authorization", "Host", "Content-Length", "Transfer-Encoding", "Connection", "Trailer", "Te", "Set-Cookie", "Content-Encoding") {
			answer := h.Raw(mode, "a.test", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nok\r\n0\r\n"+name+": spoof\r\nSum: 42\r\n\r\n")
			if !strings.HasPrefix(answer, "HTTP/1.1 200") {
				h.nothing(name)
				continue
			}
			if raw := h.next(); strings.Contains(raw, "spoof") {
				t.Errorf("%s, unannounced: the upstream got %q", name, raw)
			}
		}
	}, proxytest.H1, proxytest.Plain)
}

// RFC 9110 §5.6.1.2: empty elements of a list mean nothing. Neither they nor names that are none cost the request, or count against the upstream.
func TestHygiene_OddNamesInTrailerAreLeftOut(t *testing.T) {
	h := newHop(t, nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, names := range []string{"", ", ,", "a b", ":path", "x(", "Sum,, x y"} {
			switch {
			case mode.H2:
				if got := frames(t, h.Proxy, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.test", "trailer", names); got != "200" {
					t.Errorf("%q: %s", names, got)
				}
			case mode.H3:
				s := dialH3(t, h.Proxy, "a.test", nil).send(true, request("POST", "trailer", names), frame(h3Data, []byte("ok")))
				_, _ = io.ReadAll(s)
			default:
				answer := h.Raw(mode, "a.test", "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTrailer: "+names+"\r\nConnection: close\r\n\r\n2\r\nok\r\n0\r\n\r\n")
				if !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
					t.Errorf("%q: %q", names, answer)
				}
			}
			raw := h.next()
			if _, announced, _ := strings.Cut(raw, "\r\nTrailer: "); announced != "" && !strings.HasPrefix(announced, "Sum\r\n") {
				t.Errorf("%q: the upstream got %q", names, raw)
			}
		}
	})
	if n := h.Metrics.UpstreamErrors(""); n != 0 {
		t.Errorf("%d errors were counted against the upstream", n)
	}
}

// RFC 9113 §8.1.1, RFC 9114 §4.1.2: a request with content-length 0 and a body is malformed. An upstream would take it for complete.
func TestHygiene_ABodyThatContentLengthDeniesReachesNobody(t *testing.T) {
	h := newHop(t, nil)
	s := dialH3(t, h.Proxy, "a.test", nil).send(true, request("POST", "content-length", "0"), frame(h3Data, []byte("GET /smuggled")))
	if _, err := io.ReadAll(s); err == nil {
		t.Error("the request was answered")
	}
	h.nothing("a body beyond content-length 0 over h3")
	post := []string{":method", "POST", ":scheme", "https", ":path", "/", ":authority", "a.test", "content-length", "0"}
	if got := framesWithBody(t, h.Proxy, "GET /smuggled", post...); got != "RST_STREAM" {
		t.Errorf("over h2: %s", got)
	}
	h.nothing("a body beyond content-length 0 over h2")
	if got := frames(t, h.Proxy, post...); got != "200" {
		t.Errorf("a request without a body over h2: %s", got)
	}
	_ = h.next()
	s = dialH3(t, h.Proxy, "a.test", nil).send(true, request("POST", "content-length", "0"))
	if _, err := io.ReadAll(s); err != nil {
		t.Errorf("a request without a body: %v", err)
	}
	if raw := h.next(); !strings.Contains(raw, "\r\nContent-Length: 0\r\n") {
		t.Errorf("the upstream got %q", raw)
	}
}

// RFC 9112 §6.1 and §7.1: whatever is wrong with the framing is the client's fault: 400, the connection closed, nothing counted against the upstream, and
// nothing that the upstream could take for whole.
func TestHygiene_BadFramingIsTheClientsFault(t *testing.T) {
	h := newHop(t, nil)
	const post = "POST / HTTP/1.1\r\nHost: a.test\r\n"
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for what, m := range map[string]string{
			"length and chunks":        post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"chunks and length":        post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
			"two lengths":              post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
			"chunked is not the last":  post + "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
			"a chunk size of letters":  post + "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
			"a chunk beyond its size":  post + "Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
			"a bare LF after the size": post + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
			"a trailer without colon":  post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\n\r\n",
			"CONNECT":                  "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
		} {
			answer := h.Raw(mode, "a.test", m+"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n")
			want := "HTTP/1.1 400 "
			if what == "CONNECT" {
				want = "HTTP/1.1 405 "
			}
			if !strings.HasPrefix(answer, want) || !strings.Contains(answer, "Connection: close\r\n") || strings.Count(answer, "HTTP/1.1 ") != 1 {
				t.Errorf("%s: %q", what, answer)
			}
			for len(h.requests) > 0 {
				if raw := <-h.requests; strings.Contains(raw, "smuggled") || strings.HasSuffix(raw, "\r\n0\r\n\r\n") {
					t.Errorf("%s: the upstream took it for whole: %q", what, raw)
				}
			}
		}
		if n := h.Metrics.UpstreamErrors(""); n != 0 {
			t.Errorf("%d errors were counted against the upstream", n)
		}
	}, proxytest.H1, proxytest.Plain)
}
