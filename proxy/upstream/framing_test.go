package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// follow feeds an answer to the framing, in pieces, and returns how many of its bytes belong to it.
func follow(method, answer string, piece int) (n int, f *framing, err error) {
	f = &framing{}
	f.begin(method == "HEAD")
	for n < len(answer) && err == nil {
		k := 0
		k, err = f.take([]byte(answer[n:min(n+piece, len(answer))]))
		n += k
	}
	return n, f, err
}

func TestFraming_FindsTheEndOfAnAnswer(t *testing.T) {
	for _, c := range []struct {
		name, method, answer string
		state                state
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", atRest},
		{"length of nothing", "GET", "HTTP/1.1 200 OK\r\nContent-length:0\r\n\r\n", atRest},
		{"chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\nA \r\n0123456789\r\n000\r\n\r\n", atRest},
		{"trailers", "GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nSum: 1\r\nMore: 2\r\n\r\n", atRest},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", atRest},
		{"HEAD of chunks", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", atRest},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", atRest},
		{"304 with a length", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", atRest},
		{"after 1xx", "GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103\r\nLink: <x>\r\n\r\nHTTP/1.1 200 \r\nContent-Length: 1\r\n\r\nx", atRest},
		{"no reason", "GET", "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", atRest},
		{"bare LF", "GET", "HTTP/1.1 200 OK\nContent-Length: 1\n\nx", atRest},
		{"until the end", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", endless},
		{"until the end, HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\n\r\nhello", endless},
		{"another protocol", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nanything\x00", endless},
		{"not complete", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", inBody},
	} {
		for _, piece := range []int{1, 2, 7, 1000} {
			n, f, err := follow(c.method, c.answer, piece)
			if n != len(c.answer) || err != nil || f.state != c.state {
				t.Errorf("%s in pieces of %d: %d of %d bytes, state %d, %v", c.name, piece, n, len(c.answer), f.state, err)
			}
			if f.state != atRest {
				continue
			}
			if n, err := f.take([]byte("HTTP/1.1 200 OK")); n != 0 || !errors.Is(err, errUnsolicited) {
				t.Errorf("%s: %d bytes behind it, %v", c.name, n, err)
			}
			if n, _, err := follow(c.method, c.answer+"more", piece); n != len(c.answer) || !errors.Is(err, errUnsolicited) {
				t.Errorf("%s with more behind it: %d of %d, %v", c.name, n, len(c.answer), err)
			}
		}
	}
}

func TestFraming_RefusesWhatCouldEndElsewhereForOthers(t *testing.T) {
	for _, header := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
		"HTTP/1.1 200 OK\r\nContent-Length: 1, 1", "HTTP/1.1 200 OK\r\nContent-Length:", "HTTP/1.1 200 OK\r\nContent-Length: 1234567890123456789",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity", "HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
		"HTTP/1.1 200 OK\r\nA: b\r\n Content-Length: 1", "HTTP/1.1 200 OK\r\nContent-Length : 1", "HTTP/1.1 200 OK\r\nTransfer-Encoding\t: chunked",
		"HTTP/1.2 200 OK", "HTTP/2.0 200 OK", "HTTP/11 200 OK", "http/1.1 200 OK", "HTTP/1.1 099 OK", "HTTP/1.1 2 0 OK", "HTTP/1.1  200 OK", " HTTP/1.1 200 OK", "",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nx", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\nx", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxLines),
	} {
		for _, piece := range []int{1, 4096} {
			if n, f, err := follow("GET", header+"\r\n\r\n", piece); err == nil {
				t.Errorf("%.80q: %d bytes, state %d", header, n, f.state)
			}
		}
	}
}

// FuzzFraming compares with net/http: an answer that both read whole must end at the same byte, or what comes behind it would be somebody else's.
func FuzzFraming(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nSum: 1\r\n\r\nmore",
		"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.0 200 OK\nContent-Length: 1\n\nxy", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 1, 1\r\n\r\nxx",
		"HTTP/1.1 304 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		f.Add(s, "GET", 7)
		f.Add(s, "HEAD", 1)
	}
	f.Fuzz(func(t *testing.T, answer, method string, piece int) {
		if method != "HEAD" {
			method = "GET"
		}
		n, frame, err := follow(method, answer, max(1, piece&0xfff))
		if err != nil && !errors.Is(err, errUnsolicited) || frame.state != atRest {
			return
		}
		src := bytes.NewReader([]byte(answer))
		r := bufio.NewReaderSize(iotest.OneByteReader(src), 16)
		for {
			res, err := http.ReadResponse(r, &http.Request{Method: method})
			if err != nil {
				return
			}
			if res.StatusCode < 200 {
				continue
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				return
			}
			break
		}
		if consumed := len(answer) - src.Len() - r.Buffered(); consumed != n {
			t.Fatalf("%q ends at %d for us, at %d for net/http", answer, n, consumed)
		}
	})
}
