package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// errFraming is wrapped by the error of every message that the guard refuses.
var errFraming = errors.New("malformed HTTP/1.1 message")

// guard reads along with net/http and refuses HTTP/1.1 messages that two servers could read differently: that is how requests are smuggled past a proxy
// (RFC 9112 §11.2). net/http repairs many of them before a handler could judge them. The guard lets no line feed through that ends a line it has not
// checked, so net/http never sees a refused header as complete. The zero value waits for the first request.
type guard struct {
	phase    phase
	line     []byte // the begin of a line whose end was not read yet
	left     int64  // bytes of body or chunk to come
	messages int64  // read to their end
	posted   bool   // the last of them was a POST, which an empty line may follow

	// What the header said so far.
	http10, connect, post, upgrade bool
	hosts                          int
	length                         int64 // Content-Length; -1 without
	chunked                        bool
}

type phase uint8

const (
	inRequestLine phase = iota
	inFields
	inBody
	inChunkSize
	inChunk
	afterChunk
	inTrailer
	inTunnel // another protocol may follow: nothing is checked, and the connection carries no further request
)

// maxLine bounds a line; net/http gives up earlier, at Limits.HeaderBytes.
const maxLine = 1 << 20

// between reports whether the last message is complete and no further one has begun.
func (g *guard) between() bool { return g.phase == inRequestLine && len(g.line) == 0 }

// check returns how many bytes of p may pass, and an error if that is not all of them.
func (g *guard) check(p []byte) (int, error) {
	for i := 0; i < len(p); {
		switch g.phase {
		case inTunnel:
			return len(p), nil
		case inBody, inChunk:
			n := min(g.left, int64(len(p)-i))
			i += int(n)
			if g.left -= n; g.left > 0 {
				continue
			}
			if g.phase == inChunk {
				g.phase = afterChunk
			} else {
				g.complete()
			}
		default:
			end := bytes.IndexByte(p[i:], '\n') + 1
			if end == 0 {
				if len(g.line)+len(p)-i > maxLine {
					return i, g.refuse("line too long")
				}
				g.line = append(g.line, p[i:]...)
				return len(p), nil
			}
			line := p[i : i+end]
			if len(g.line) > 0 {
				g.line = append(g.line, line...)
				line = g.line
			}
			// RFC 9112 §2.2 lets a recipient take a bare LF for an end of line; those that do and those that do not disagree on where messages end.
			// A refused line goes on without its line feed: net/http answers with 400 only if something has come.
			if len(line) < 2 || line[len(line)-2] != '\r' {
				return i + end - 1, g.refuse("line feed without carriage return")
			}
			if err := g.take(line[:len(line)-2]); err != nil {
				return i + end - 1, err
			}
			g.line = g.line[:0]
			i += end
		}
	}
	return len(p), nil
}

func (g *guard) refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errFraming, fmt.Sprintf(format, args...))
}

// take judges one line, which comes without its end.
func (g *guard) take(line []byte) error {
	switch g.phase {
	case inRequestLine:
		return g.requestLine(line)
	case inFields:
		if len(line) == 0 {
			return g.endOfHeader()
		}
		return g.field(line)
	case inChunkSize:
		return g.chunkSize(line)
	case afterChunk:
		if len(line) != 0 {
			return g.refuse("chunk longer than its size")
		}
		g.phase = inChunkSize
	case inTrailer:
		if len(line) == 0 {
			g.complete()
			return nil
		}
		_, _, err := g.split(line)
		return err
	}
	return nil
}

// complete is the end of a message.
func (g *guard) complete() {
	*g = guard{line: g.line[:0], messages: g.messages + 1, posted: g.post}
}

// requestLine takes "METHOD SP target SP HTTP/1.x" (RFC 9112 §3) and nothing looser.
func (g *guard) requestLine(line []byte) error {
	if len(line) == 0 && g.posted { // RFC 9112 §2.2: old clients send one there, and a server ignores it; so does net/http
		g.posted = false
		return nil
	}
	method, rest, ok := bytes.Cut(line, []byte{' '})
	target, version, ok2 := bytes.Cut(rest, []byte{' '})
	if !ok || !ok2 || !isToken(method) || len(target) == 0 {
		return g.refuse("request line is not METHOD, target and version with one space between")
	}
	for _, c := range target {
		if c <= ' ' || c == 0x7f {
			return g.refuse("byte %q in the request target", c)
		}
	}
	switch string(version) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		g.http10 = true
	default:
		return g.refuse("neither HTTP/1.1 nor HTTP/1.0")
	}
	g.connect, g.post = string(method) == "CONNECT", string(method) == "POST"
	g.length = -1
	g.phase = inFields
	return nil
}

// split takes a field line apart. RFC 9112 §5.1: "No whitespace is allowed between the field name and colon", and a server "MUST reject" it; §5.2: line
// folding is obsolete, and a server "MUST either reject" it or replace it; RFC 9110 §5.5: CR, LF and NUL are dangerous, and other control
// characters are invalid.
func (g *guard) split(line []byte) (name, value []byte, err error) {
	name, value, ok := bytes.Cut(line, []byte{':'})
	if !ok || !isToken(name) {
		return nil, nil, g.refuse("field line without a proper name and colon")
	}
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, nil, g.refuse("byte %q in the field %s", c, name)
		}
	}
	return name, bytes.Trim(value, " \t"), nil
}

// field keeps what decides about framing and routing.
func (g *guard) field(line []byte) error {
	name, value, err := g.split(line)
	if err != nil {
		return err
	}
	switch len(name) {
	case len("Host"):
		if bytes.EqualFold(name, []byte("Host")) {
			if g.hosts++; g.hosts > 1 { // RFC 9112 §3.2: 400 is a MUST
				return g.refuse("more than one Host")
			}
		}
	case len("Upgrade"):
		g.upgrade = g.upgrade || bytes.EqualFold(name, []byte("Upgrade"))
	case len("Content-Length"):
		if bytes.EqualFold(name, []byte("Content-Length")) {
			return g.contentLength(value)
		}
	case len("Transfer-Encoding"):
		if bytes.EqualFold(name, []byte("Transfer-Encoding")) {
			if g.chunked || !bytes.EqualFold(value, []byte("chunked")) {
				return g.refuse("Transfer-Encoding other than one chunked")
			}
			g.chunked = true
		}
	}
	return nil
}

func (g *guard) contentLength(value []byte) error {
	if g.length >= 0 || len(value) == 0 || len(value) > 18 {
		return g.refuse("more than one Content-Length, or an impossible one")
	}
	g.length = 0
	for _, c := range value {
		if c < '0' || c > '9' {
			return g.refuse("Content-Length that is no number")
		}
		g.length = g.length*10 + int64(c-'0')
	}
	return nil
}

// endOfHeader decides how long the body is (RFC 9112 §6.3).
func (g *guard) endOfHeader() error {
	switch {
	case g.hosts == 0 && !g.http10:
		return g.refuse("no Host")
	case g.chunked && g.length >= 0: // §6.1: "ought to be handled as an error"
		return g.refuse("both Content-Length and Transfer-Encoding")
	case g.chunked && g.http10: // §6.1: "MUST treat the message as if the framing is faulty"
		return g.refuse("Transfer-Encoding in HTTP/1.0")
	case g.connect, g.upgrade && !g.chunked && g.length <= 0:
		g.phase = inTunnel
		g.messages++
	case g.chunked:
		g.phase = inChunkSize
	case g.length > 0:
		g.phase, g.left = inBody, g.length
	default:
		g.complete()
	}
	return nil
}

// chunkSize takes hexadecimal digits and perhaps an extension after a semicolon (RFC 9112 §7.1).
func (g *guard) chunkSize(line []byte) error {
	digits, extension, _ := bytes.Cut(line, []byte{';'})
	if len(digits) == 0 || len(digits) > 15 {
		return g.refuse("chunk size of %d digits", len(digits))
	}
	g.left = 0
	for _, c := range digits {
		v := strings.IndexByte("0123456789abcdef", c|0x20)
		if v < 0 || c < '0' {
			return g.refuse("byte %q in a chunk size", c)
		}
		g.left = g.left<<4 | int64(v)
	}
	for _, c := range extension {
		if c < ' ' && c != '\t' || c == 0x7f {
			return g.refuse("byte %q in a chunk extension", c)
		}
	}
	if g.phase = inChunk; g.left == 0 {
		g.phase = inTrailer
	}
	return nil
}

// isToken reports whether s is a token of RFC 9110 §5.6.2.
func isToken(s []byte) bool {
	for _, c := range s {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case strings.IndexByte("!#$%&'*+.^`|~", c) >= 0:
		default:
			return false
		}
	}
	return len(s) > 0
}
