package proxy

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// pass gives s to a guard in pieces of n bytes and returns what got through.
func pass(s string, n int) (*guard, string, error) {
	g, through := &guard{}, ""
	for len(s) > 0 {
		piece := s[:min(n, len(s))]
		s = s[len(piece):]
		ok, err := g.check([]byte(piece))
		through += piece[:ok]
		if err != nil {
			return g, through, err
		}
	}
	return g, through, nil
}

const (
	get  = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
	post = "POST / HTTP/1.1\r\nHost: a.test\r\n"
)

var goodMessages = []string{
	get, get + get, "GET / HTTP/1.0\r\n\r\n", "GET /?a|b{} HTTP/1.1\r\nHost:\ta.test \r\nX:\r\nY: caf\xc3\xa9\ttab\r\n\r\n",
	post + "Content-Length: 4\r\n\r\nbody", post + "Content-Length: 0\r\n\r\n" + get, post + "content-length:4\r\n\r\n\r\n\r\n" + get,
	post + "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n" + get, post + "transfer-encoding: Chunked\r\n\r\n00a;ext=\"x\"\r\n0123456789\r\n0\r\nSum: 1\r\n\r\n" + get,
	post + "Content-Length: 4\r\n\r\nbody\r\n" + get, post + "\r\n\r\n" + get, // old clients end a POST with an empty line
}

var badMessages = map[string]string{
	"length and chunks":               post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"chunks and length":               post + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
	"two equal lengths":               post + "Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody",
	"a list of lengths":               post + "Content-Length: 4, 4\r\n\r\nbody",
	"a signed length":                 post + "Content-Length: +4\r\n\r\nbody",
	"a hexadecimal length":            post + "Content-Length: 0x4\r\n\r\nbody",
	"an empty length":                 post + "Content-Length: \r\n\r\nbody",
	"a length beyond 63 bits":         post + "Content-Length: 9999999999999999999\r\n\r\n",
	"chunked twice":                   post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"another coding":                  post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"chunked in quotes":               post + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
	"an obscured coding":              post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
	"chunks in HTTP/1.0":              "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"HTTP/0.9":                        "GET /\r\n",
	"HTTP/2.0":                        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"HTTP/1.2":                        "GET / HTTP/1.2\r\nHost: a.test\r\n\r\n",
	"a lower-case version":            "GET / http/1.1\r\nHost: a.test\r\n\r\n",
	"a method that is no token":       "HTTP/1.1 / HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"two spaces":                      "GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"a tab in the request line":       "GET\t/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"a space in the target":           "GET /a b HTTP/1.1\r\nHost: a.test\r\n\r\n",
	"an empty line first":             "\r\n" + get,
	"an empty line after a GET":       get + "\r\n" + get,
	"two empty lines after a POST":    post + "\r\n\r\n\r\n" + get,
	"no Host":                         "GET / HTTP/1.1\r\n\r\n",
	"two Hosts":                       "GET / HTTP/1.1\r\nHost: a.test\r\nhost: a.test\r\n\r\n",
	"a bare line feed":                "GET / HTTP/1.1\nHost: a.test\r\n\r\n",
	"a bare line feed at the end":     "GET / HTTP/1.1\r\nHost: a.test\r\n\n",
	"a bare carriage return":          "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\rb\r\n\r\n",
	"a NUL in a value":                "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\x00b\r\n\r\n",
	"a folded line":                   "GET / HTTP/1.1\r\nHost: a.test\r\nX: a\r\n b\r\n\r\n",
	"a folded first line":             "GET / HTTP/1.1\r\n Host: a.test\r\n\r\n",
	"a space before the colon":        post + "Content-Length : 4\r\n\r\nbody",
	"no colon":                        "GET / HTTP/1.1\r\nHost: a.test\r\nX\r\n\r\n",
	"an empty name":                   "GET / HTTP/1.1\r\nHost: a.test\r\n: x\r\n\r\n",
	"a name that is no token":         "GET / HTTP/1.1\r\nHost: a.test\r\nX(: x\r\n\r\n",
	"a chunk size with a sign":        post + "Transfer-Encoding: chunked\r\n\r\n+4\r\nbody\r\n0\r\n\r\n",
	"a chunk size with 0x":            post + "Transfer-Encoding: chunked\r\n\r\n0x4\r\nbody\r\n0\r\n\r\n",
	"a chunk size with a space":       post + "Transfer-Encoding: chunked\r\n\r\n4 \r\nbody\r\n0\r\n\r\n",
	"an empty chunk size":             post + "Transfer-Encoding: chunked\r\n\r\n\r\nbody\r\n0\r\n\r\n",
	"a chunk size of 64 bits":         post + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
	"a chunk that is longer":          post + "Transfer-Encoding: chunked\r\n\r\n3\r\nbody\r\n0\r\n\r\n",
	"a line feed after a chunk":       post + "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\n0\r\n\r\n",
	"a line feed after a chunk size":  post + "Transfer-Encoding: chunked\r\n\r\n4\nbody\r\n0\r\n\r\n",
	"a line feed in a chunk ext":      post + "Transfer-Encoding: chunked\r\n\r\n4;a\nb\r\nbody\r\n0\r\n\r\n",
	"a trailer that is no field":      post + "Transfer-Encoding: chunked\r\n\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
	"a second request that is folded": get + "GET / HTTP/1.1\r\nHost: a.test\r\n X: y\r\n\r\n",
}

func TestGuard_LetsMessagesThroughByteByByte(t *testing.T) {
	for _, m := range goodMessages {
		for _, n := range []int{1, 2, 7, len(m)} {
			g, through, err := pass(m, n)
			if err != nil || through != m || !g.between() {
				t.Errorf("%q in pieces of %d: %q, %v, between messages: %v", m, n, through, err, g.between())
			}
		}
	}
}

func TestGuard_RefusesWhatCouldBeReadInTwoWays(t *testing.T) {
	for name, m := range badMessages {
		for _, n := range []int{1, 3, len(m)} {
			_, through, err := pass(m, n)
			if !errors.Is(err, errFraming) {
				t.Errorf("%s in pieces of %d: %v", name, n, err)
			}
			// Whatever got through is no complete message beyond those before the bad one.
			if rest := strings.TrimPrefix(strings.TrimPrefix(through, get), post+"\r\n"); wholeMessages(t, rest) != 0 {
				t.Errorf("%s in pieces of %d: a message got through in %q", name, n, through)
			}
		}
	}
}

func TestGuard_StopsLookingWhenAnotherProtocolMayFollow(t *testing.T) {
	for _, m := range []string{
		"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x00\n\xff",
		"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n\x00\n",
	} {
		if g, through, err := pass(m, 5); err != nil || through != m || g.between() {
			t.Errorf("%q: %q, %v", m, through, err)
		}
	}
}

func TestGuard_AllocatesNothingForWholeMessages(t *testing.T) {
	g, m := &guard{}, []byte("POST /path HTTP/1.1\r\nHost: a.test\r\nUser-Agent: x\r\nAccept: */*\r\nContent-Length: 4\r\n\r\nbody")
	if n := testing.AllocsPerRun(100, func() { _, _ = g.check(m) }); n != 0 {
		t.Errorf("allocations = %v, want 0", n)
	}
}

// wholeMessages counts the messages that net/http finds in s and reads to their end.
func wholeMessages(t *testing.T, s string) int {
	t.Helper()
	br := bufio.NewReader(strings.NewReader(s))
	for n := 0; ; n++ {
		r, err := http.ReadRequest(br)
		if err != nil {
			return n
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return n
		}
		_ = r.Body.Close()
		if end, _ := br.Peek(2); r.Method == http.MethodPost && string(end) == "\r\n" {
			_, _ = br.Discard(2) // as its server does
		}
	}
}

// FuzzGuard holds the guard to net/http: what passes is read by both as the same number of messages, in whatever pieces it comes, and with one
// Content-Length or chunks but never both.
func FuzzGuard(f *testing.F) {
	for _, m := range goodMessages {
		f.Add(m, 3)
	}
	for _, m := range badMessages {
		f.Add(m, 5)
	}
	f.Fuzz(func(t *testing.T, m string, n int) {
		n = max(1, min(n, 4096))
		g, through, err := pass(m, n)
		whole, again, err2 := pass(m, len(m)+1)
		if (err == nil) != (err2 == nil) || g.messages != whole.messages {
			t.Fatalf("in pieces of %d: %d messages, %v; at once: %d messages, %v", n, g.messages, err, whole.messages, err2)
		}
		if !strings.HasPrefix(m, through) || !strings.HasPrefix(m, again) {
			t.Fatal("the guard changed something")
		}
		if err != nil || g.phase == inTunnel || !g.between() {
			return
		}
		// net/http may refuse more (a Host with a slash, a target that is no URL), but never find more.
		if got := wholeMessages(t, m); int64(got) > g.messages {
			t.Fatalf("%q: the guard counts %d messages, net/http %d", m, g.messages, got)
		}
	})
}
