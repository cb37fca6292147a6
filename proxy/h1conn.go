package proxy

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// halfCloseGrace is how long a request goes on for a client that has closed its side and takes nothing. A client that only said "no more
// requests" (RFC 9112 §9.6) cannot be told from one that left, until a write to it fails; a second is enough for most answers to begin.
const halfCloseGrace = time.Second

// autoContinue is what net/http writes when a body is first read. Whether the client gets a 100 is the upstream's decision (RFC 9110 §10.1.1), so
// it is dropped; see exchange.continueBody.
const autoContinue = "HTTP/1.1 100 Continue\r\n\r\n"

// h1Conn stands between net/http and an HTTP/1.1 connection, with or without TLS. It refuses what net/http would let through (see guard), gives
// every write a deadline, and does not take a half-closed connection for a lost one.
type h1Conn struct {
	net.Conn // the *conn, or the *tls.Conn over it
	conn     *conn

	guard    guard // used by Read alone, which net/http never calls twice at a time
	guardErr error
	read     atomic.Int64 // requests that were read whole
	answered atomic.Int64 // requests whose handler has returned

	dropContinue atomic.Bool           // drop autoContinue
	linger       atomic.Bool           // the client may still be sending: see Close
	serving      atomic.Bool           // a handler has the connection's request
	reason       atomic.Pointer[error] // guardErr for Write, which others call
	lastWrite    atomic.Int64          // Unix nanoseconds

	mu       sync.Mutex // guards deadline and wake
	deadline time.Time  // of reads
	wake     chan struct{}
}

func (s *Server) newH1Conn(c *conn, nc net.Conn) *h1Conn {
	h := &h1Conn{Conn: nc, conn: c}
	c.h1 = h
	return h
}

// Read passes on what the guard lets through. The error of a refused message comes after all that was good.
func (c *h1Conn) Read(p []byte) (int, error) {
	if c.guardErr != nil {
		return 0, c.ending(c.guardErr)
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		if n, c.guardErr = c.guard.check(p[:n]); c.guardErr != nil {
			c.refused()
		}
		c.read.Store(c.guard.messages)
		if n == 0 {
			return 0, c.ending(c.guardErr)
		}
		return n, nil // an error of the connection comes again
	}
	if err == io.EOF && c.guard.between() {
		return 0, c.ending(err)
	}
	return n, err
}

// ending returns err, after which nothing more can be read. While a request that was read whole has no answer yet it waits first: net/http would take the error for
// the loss of the client. One that has sent nonsense has not left.
func (c *h1Conn) ending(err error) error {
	switch {
	case c.read.Load() <= c.answered.Load():
		return err
	case err == io.EOF:
		return c.waitHalfClosed(halfCloseGrace)
	}
	return c.waitHalfClosed(c.conn.srv.cfg.Limits.StallTimeout)
}

// refused notes a message that the guard stopped. The answer is 400: by the handler if it has the header already, else by net/http.
func (c *h1Conn) refused() {
	c.linger.Store(true)
	reason := c.guardErr
	c.reason.Store(&reason)
	if e := c.conn.srv.log.Check(zap.DebugLevel, "request refused"); e != nil {
		e.Write(zap.Error(c.guardErr), zap.Stringer("client", c.conn.peer))
	}
}

// waitHalfClosed keeps the end of the client's side, or of what could be understood of it, from net/http, which would cancel the request. It returns io.EOF once the client has taken nothing
// for so long, and a timeout as soon as net/http wants its Read back.
func (c *h1Conn) waitHalfClosed(grace time.Duration) error {
	idleSince := time.Now()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	for {
		c.mu.Lock()
		if !c.deadline.IsZero() && !c.deadline.After(time.Now()) {
			c.mu.Unlock()
			return os.ErrDeadlineExceeded
		}
		if c.wake == nil {
			c.wake = make(chan struct{})
		}
		wake := c.wake
		c.mu.Unlock()

		select {
		case <-wake:
		case <-timer.C:
			if last := time.Unix(0, c.lastWrite.Load()); last.After(idleSince) {
				idleSince = last
			}
			left := time.Until(idleSince.Add(grace))
			if left <= 0 {
				return io.EOF
			}
			timer.Reset(left)
		}
	}
}

// SetReadDeadline wakes a waiting Read, as net/http expects of it.
func (c *h1Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.wake != nil {
		close(c.wake)
		c.wake = nil
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *h1Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.Conn.SetWriteDeadline(t)
}

// Write fails when the client takes nothing for Limits.StallTimeout.
func (c *h1Conn) Write(p []byte) (int, error) {
	if len(p) == len(autoContinue) && c.dropContinue.Load() && string(p) == autoContinue {
		return len(p), nil
	}
	if !c.serving.Load() && isEngineRefusal(p) {
		return c.refusal(p)
	}
	now := time.Now()
	c.lastWrite.Store(now.UnixNano())
	if err := c.SetWriteDeadline(now.Add(c.conn.srv.cfg.Limits.StallTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// CloseWrite sends close_notify, or FIN without TLS.
func (c *h1Conn) CloseWrite() error { return c.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// Close lets a client that is still sending read our answer first: closing a socket with unread data makes the kernel send RST, which discards what the
// client has not read yet (RFC 9112 §9.6). There is no time for that when everything is closed: net/http closes its connections one after the other.
func (c *h1Conn) Close() error {
	if c.linger.Swap(false) && !c.conn.srv.cutting.Load() && c.CloseWrite() == nil {
		_ = c.Conn.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.CopyN(io.Discard, c.Conn, 1<<20)
	}
	return c.Conn.Close()
}

// sever ends the connection in a way that nobody can take for the end of an answer: by RST, and without close_notify. To clients of HTTP/1.0 an answer without a length
// ends with the connection.
func (c *h1Conn) sever() {
	if tcp, ok := c.conn.Conn.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.conn.Close()
}

// engineRefusal is what stands in the answers that net/http gives to requests which it, or the guard, does not let come to the handler. The handler's have a Date.
const engineRefusal = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"

func isEngineRefusal(p []byte) bool {
	return len(p) < 1024 && (bytes.HasPrefix(p, []byte("HTTP/1.1 4")) || bytes.HasPrefix(p, []byte("HTTP/1.1 5"))) && bytes.Contains(p, []byte(engineRefusal))
}

// refusal writes an answer of net/http as one of ours, with a request id, and counts and logs it: a request too malformed or too large for a handler is a request all
// the same.
func (c *h1Conn) refusal(p []byte) (int, error) {
	x := &exchange{srv: c.conn.srv, conn: c.conn, r: &http.Request{Proto: "HTTP/1.1"}, start: time.Now(), id: rand.Text(), peer: c.conn.client()}
	x.client, x.out = x.peer, x
	line, text, _ := strings.Cut(string(p), engineRefusal)
	x.status, _ = strconv.Atoi(line[len("HTTP/1.1 "):len("HTTP/1.1 400")])
	x.err = errors.New(text)
	if reason := c.reason.Load(); reason != nil {
		x.err = *reason
	}
	defer x.record()
	if err := c.SetWriteDeadline(time.Now().Add(c.conn.srv.cfg.Limits.StallTimeout)); err != nil {
		return 0, err
	}
	class := strconv.Itoa(x.status) + " " + http.StatusText(x.status)
	_, err := io.WriteString(c.Conn, "HTTP/1.1 "+class+"\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nX-Request-Id: "+x.id+engineRefusal+
		class+"\nrequest id: "+x.id+"\n")
	return len(p), err
}
