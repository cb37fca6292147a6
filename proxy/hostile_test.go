package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"gatelodge/proxy/proxytest"
)

// hostileAnswers are what no upstream should say. The client gets a 502 (cut is false), or an answer that is visibly cut.
func hostileAnswers() []struct {
	name, answer string
	cut          bool
} {
	const ok = "HTTP/1.1 200 OK\r\n"
	return []struct {
		name, answer string
		cut          bool
	}{
		{"two lengths", ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", false},
		{"a list of lengths", ok + "Content-Length: 1, 2\r\n\r\nab", false},
		{"a negative length", ok + "Content-Length: -1\r\n\r\n", false},
		{"a signed length", ok + "Content-Length: +2\r\n\r\nab", false},
		{"a hexadecimal length", ok + "Content-Length: 0x2\r\n\r\nab", false},
		{"a length beyond all numbers", ok + "Content-Length: 99999999999999999999\r\n\r\nab", false},
		{"an unknown transfer coding", ok + "Transfer-Encoding: gzip\r\n\r\nab", false},
		{"chunked twice", ok + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", false},
		{"chunked, but not last", ok + "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", false},
		{"two transfer codings", ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
		{"a field without a colon", ok + "Nonsense\r\n\r\n", false},
		{"a field name with a space", ok + "X-Field : x\r\n\r\n", false},
		{"a field name of nothing", ok + ": x\r\n\r\n", false},
		{"NUL in a field", ok + "X-Field: a\x00b\r\nContent-Length: 0\r\n\r\n", false},
		{"a bare CR in a field", ok + "X-Field: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", false},
		{"a control byte in a field", ok + "X-Field: a\x1b[31m\r\nContent-Length: 0\r\n\r\n", false},
		{"no status", "HTTP/1.1 OK\r\n\r\n", false},
		{"a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", false},
		{"a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", false},
		{"a status without a meaning", "HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n", false},
		{"a status below all", "HTTP/1.1 099 What\r\nContent-Length: 0\r\n\r\n", false},
		{"HTTP/2.0 without a body", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", false},
		{"HTTP/2.0 with a body", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
		{"HTTP/3.0", "HTTP/3.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
		{"HTTP/0.9", "<html>hello</html>\r\n\r\n", false},
		{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false},
		{"101 unasked", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", false},
		{"1xx without end", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100), false},
		{"a header without end", ok + strings.Repeat("X-Field: "+strings.Repeat("x", 1000)+"\r\n", 300), false},
		{"a chunk of nonsense", ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nxyz\r\n\r\n", true},
		{"a chunk longer than it says", ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nshort\r\n0\r\n\r\n", true},
		{"a chunk of a negative size", ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n-1\r\n\r\n", true},
		{"a chunk beyond all numbers", ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nfffffffffffffffff\r\n\r\n", true},
	}
}

func TestHostile_ABadAnswerIsABadGatewayAndCostsItsConnection(t *testing.T) {
	for _, c := range hostileAnswers() {
		t.Run(c.name, func(t *testing.T) {
			var again atomic.Int32 // requests on a connection that was bad already
			p, _ := startRaw(t, func(conn net.Conn, _ string, r *bufio.Reader) {
				_, _ = io.WriteString(conn, c.answer)
				if _, err := r.ReadByte(); err == nil { // it would go on
					again.Add(1)
				}
			})
			proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
				client := p.Client(mode)
				for range 2 {
					res, err := client.Get(mode.URL("a.test", "/"))
					if err != nil {
						if c.cut { // before the header: visible too
							continue
						}
						t.Fatal(err)
					}
					body, err := io.ReadAll(res.Body)
					_ = res.Body.Close()
					switch {
					case c.cut && err == nil:
						t.Errorf("the client took %q for the whole answer, with status %d", body, res.StatusCode)
					case !c.cut && (err != nil || res.StatusCode != http.StatusBadGateway):
						t.Errorf("status %d, %v, header %v", res.StatusCode, err, res.Header)
					}
				}
			})
			if again.Load() != 0 {
				t.Errorf("%d requests went over a connection that had been bad", again.Load())
			}
		})
	}
}

func TestHostile_AnAnswerThatEndsEarlyIsVisible(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		cut          bool
	}{
		{"at once", "", false},
		{"in the status line", "HTTP/1.1 2", false},
		{"in the header", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", false},
		{"after a 1xx", "HTTP/1.1 100 Continue\r\n\r\n", false},
		{"before the body", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true},
		{"in the body", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", true},
		{"in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", true},
		{"between chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", true},
		{"in the trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 1", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _ := startRaw(t, proxytest.Reply(c.answer))
			proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
				res, err := p.Client(mode).Get(mode.URL("a.test", "/"))
				if err != nil {
					if !c.cut {
						t.Error(err)
					}
					return
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				if whole := err == nil && res.StatusCode == http.StatusOK; whole || !c.cut && res.StatusCode != http.StatusBadGateway {
					t.Errorf("status %d, %q, %v", res.StatusCode, body, err)
				}
			})
		})
	}
}

// What comes behind an answer must not become the answer to somebody else's request.
func TestHostile_WhatComesBehindAnAnswerIsNobodys(t *testing.T) {
	const more = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	for name, c := range map[string]struct{ method, answer string }{
		"a second answer":      {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + more},
		"behind chunks":        {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + more},
		"a body of 204":        {"GET", "HTTP/1.1 204 No Content\r\n\r\n" + more},
		"a body of 304":        {"GET", "HTTP/1.1 304 Not Modified\r\n\r\n" + more},
		"a body after HEAD":    {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n" + more},
		"behind a length of 0": {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + more},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := startRaw(t, func(conn net.Conn, _ string, r *bufio.Reader) {
				_, _ = io.WriteString(conn, c.answer)
				_, _ = io.Copy(io.Discard, r) // until the proxy closes
			})
			proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
				client := p.Client(mode)
				for range 10 {
					r, _ := http.NewRequest(c.method, mode.URL("a.test", "/"), nil)
					if _, body := proxytest.Do(t, client, r); strings.Contains(body, "poison") {
						t.Fatalf("a client got %q", body)
					}
				}
			})
		})
	}
}

// A trailer whose name is none is left out, and the answer ends: net/http never ends a stream of HTTP/2 with trailers of which it may write none.
func TestHostile_TrailersThatAreNoFieldsAreLeftOut(t *testing.T) {
	p, _ := startRaw(t, proxytest.Reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: a b\r\n\r\n4\r\nbody\r\n0\r\nX T: v\r\n\r\n"))
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		res, body := proxytest.Get(t, p.Client(mode), mode.URL("a.test", "/"))
		if body != "body" || len(res.Trailer) > 0 || res.Header["Trailer"] != nil {
			t.Errorf("%q, header %v, trailers %v", body, res.Header, res.Trailer)
		}
	})
}

// RFC 9110 §8.6: an answer 204 has no Content-Length. Clients of HTTP/2 and HTTP/3 take one that has for malformed.
func TestHostile_ALengthWhereThereIsNoContentIsLeftOut(t *testing.T) {
	p, _ := startRaw(t, proxytest.Reply("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"))
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		res, body := proxytest.Get(t, p.Client(mode), mode.URL("a.test", "/"))
		if res.StatusCode != http.StatusNoContent || body != "" || res.Header["Content-Length"] != nil {
			t.Errorf("status %d, %q, header %v", res.StatusCode, body, res.Header)
		}
	})
}
