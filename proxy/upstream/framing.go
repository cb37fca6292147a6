package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
)

// guardedConn is an HTTP/1.1 connection to a target that gives out no byte beyond the answer to the request which it carries. http.Transport would take
// what comes behind an answer for the answer to whatever request it sends next: another client's. What could be read in two ways is refused on the way.
type guardedConn struct {
	net.Conn
	mu sync.Mutex // guards framing, between the request that begins and the reader that waits
	framing
	spoiled error // nothing more is given out; of the reader alone
}

// expect says that a request goes out now.
func (c *guardedConn) expect(method string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == atRest {
		c.begin(method == "HEAD")
	}
}

func (c *guardedConn) Read(p []byte) (int, error) {
	if c.spoiled != nil {
		return 0, c.spoiled
	}
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	used, bad := c.take(p[:n])
	if bad == nil {
		return n, err
	}
	c.spoiled = protocolError{bad}
	if used == 0 {
		return 0, c.spoiled
	}
	return used, nil
}

// CloseWrite is for the tunnel that the connection may become.
func (c *guardedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// framing follows the answers on a connection, to know where each ends (RFC 9112 §6.3).
type framing struct {
	state state
	left  int64  // bytes of the body or chunk that are still to come
	line  []byte // the beginning of a line that is not complete
	lines int    // bytes of the header, or of the trailers, so far

	head    bool // the answer is to HEAD
	version byte // '0' or '1'
	status  int  // zero before the status line
	length  int64
	chunked bool
}

type state int

const (
	atRest    state = iota // no answer is due
	inHead                 // status line and fields
	inBody                 // left bytes
	inSize                 // the line before a chunk
	inChunk                // left bytes
	atEnd                  // the line behind a chunk
	inTrailer              // the fields behind the last chunk
	endless                // what comes is the body until the end of the connection, or no longer HTTP
)

var (
	errUnsolicited = errors.New("bytes that no request asked for")
	errFraming     = errors.New("chunks that are none")
)

// maxLines bounds the header, for the lines that are kept here; the transport has a bound of its own.
const maxLines = 1 << 20

func (f *framing) begin(head bool) {
	*f = framing{state: inHead, line: f.line[:0], head: head, length: -1}
}

// take follows the bytes. It returns how many of them belong to the answer, and an error if what comes then must not be read.
func (f *framing) take(p []byte) (n int, err error) {
	for n < len(p) {
		rest := p[n:]
		switch f.state {
		case atRest:
			return n, errUnsolicited
		case endless:
			return len(p), nil
		case inBody, inChunk:
			k := min(f.left, int64(len(rest)))
			f.left -= k
			n += int(k)
			if f.left == 0 {
				f.leaveBody()
			}
		default:
			k, err := f.takeLine(rest)
			if err != nil {
				return n, err
			}
			n += k
		}
	}
	return n, nil
}

func (f *framing) leaveBody() {
	if f.state == inChunk {
		f.state = atEnd
	} else {
		f.state = atRest
	}
}

// takeLine takes a line, or what there is of it, and returns how many bytes that are.
func (f *framing) takeLine(p []byte) (int, error) {
	end := bytes.IndexByte(p, '\n')
	n := end + 1
	if end < 0 {
		n = len(p)
	}
	if f.lines += n; f.lines > maxLines {
		return 0, errors.New("header, trailers or the size of a chunk without end")
	}
	if end < 0 {
		f.line = append(f.line, p...)
		return n, nil
	}
	line := p[:end]
	if len(f.line) > 0 {
		f.line = append(f.line, line...)
		line = f.line
	}
	err := f.endLine(line)
	f.line = f.line[:0]
	return n, err
}

// endLine takes one line, without its LF.
func (f *framing) endLine(line []byte) error {
	bare := bytes.TrimSuffix(line, []byte("\r"))
	switch f.state {
	case inSize:
		return f.size(line)
	case atEnd:
		if string(line) != "\r" {
			return errFraming
		}
		f.state, f.lines = inSize, 0
	case inTrailer:
		if len(bare) == 0 {
			f.state = atRest
		}
	case inHead:
		switch {
		case f.status == 0:
			return f.statusLine(bare)
		case len(bare) == 0:
			return f.endHeader()
		}
		return f.field(bare)
	}
	return nil
}

// statusLine: RFC 9112 §4, with the reason left out or not.
func (f *framing) statusLine(line []byte) error {
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return fmt.Errorf("status line %.40q", line)
	}
	f.version = line[7]
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return fmt.Errorf("status line %.40q", line)
		}
		f.status = f.status*10 + int(c-'0')
	}
	if f.version != '0' && f.version != '1' || f.status < 100 {
		return fmt.Errorf("status line %.40q", line)
	}
	return nil
}

// field: only what says where the answer ends matters here, but nothing may look like it to others alone.
func (f *framing) field(line []byte) error {
	colon := bytes.IndexByte(line, ':')
	switch {
	case line[0] == ' ' || line[0] == '\t':
		return errors.New("a folded field (RFC 9112 §5.2)")
	case colon <= 0:
		return fmt.Errorf("field %.40q", line)
	case line[colon-1] == ' ' || line[colon-1] == '\t':
		return fmt.Errorf("space between field name and colon in %.40q (RFC 9112 §5.1)", line)
	}
	switch name := line[:colon]; len(name) {
	case len("Content-Length"):
		if bytes.EqualFold(name, []byte("Content-Length")) {
			return f.contentLength(bytes.Trim(line[colon+1:], " \t"))
		}
	case len("Transfer-Encoding"):
		if bytes.EqualFold(name, []byte("Transfer-Encoding")) {
			if v := bytes.Trim(line[colon+1:], " \t"); f.chunked || !bytes.EqualFold(v, []byte("chunked")) {
				return fmt.Errorf("transfer coding %.40q, or more than one", v)
			}
			f.chunked = true
		}
	}
	return nil
}

func (f *framing) contentLength(v []byte) error {
	if f.length >= 0 || len(v) == 0 || len(v) > 18 {
		return fmt.Errorf("content-length %.40q, or more than one", v)
	}
	f.length = 0
	for _, c := range v {
		if c < '0' || c > '9' {
			return fmt.Errorf("content-length %.40q", v)
		}
		f.length = f.length*10 + int64(c-'0')
	}
	return nil
}

// endHeader finds out what comes behind the header.
func (f *framing) endHeader() error {
	switch {
	case f.chunked && (f.length >= 0 || f.version == '0'):
		return errors.New("transfer-encoding beside content-length, or in HTTP/1.0 (RFC 9112 §6.1)")
	case f.status == 101:
		f.state = endless
	case f.status < 200:
		f.begin(f.head)
	case f.head || f.status == 204 || f.status == 304 || f.length == 0:
		f.state = atRest
	case f.chunked:
		f.state, f.lines = inSize, 0
	case f.length > 0:
		f.state, f.left = inBody, f.length
	default:
		f.state = endless
	}
	return nil
}

// size is the line before a chunk: RFC 9112 §7.1.
func (f *framing) size(line []byte) error {
	digits, ok := bytes.CutSuffix(line, []byte("\r"))
	digits, _, _ = bytes.Cut(digits, []byte(";"))
	digits = bytes.TrimRight(digits, " \t")
	if !ok || len(digits) == 0 || len(digits) > 15 {
		return errFraming
	}
	f.left = 0
	for _, c := range digits {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return errFraming
		}
		f.left = f.left<<4 | int64(c)
	}
	f.lines = 0
	if f.state = inChunk; f.left == 0 {
		f.state = inTrailer
	}
	return nil
}
