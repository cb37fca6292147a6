package proxy

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// h3Conn is what a connection has more if it is QUIC. It has an http3.Server of its own, since that is the only one who can send GOAWAY, and it ends the connection
// after a time without requests: a client that keeps it alive by PINGs, or streams on which it sends half a header, do not count.
type h3Conn struct {
	conn    *conn
	engine  *http3Engine
	shaken  atomic.Bool // the handshake is done
	release func()      // ends what bounds the handshake
	quic    *quic.Conn  // nil during the handshake
	http    *http3.Server

	mu       sync.Mutex // guards what follows
	requests int
	retiring bool // no more requests
	ended    bool
	timer    *time.Timer // since the last request
}

// retireGrace is how long a connection without requests that got GOAWAY stays open, for the client to learn that what it sends now was not taken (RFC 9114
// §5.2).
const retireGrace = 250 * time.Millisecond

// maxStreams is how many requests a client may have under way on a connection. One that it has reset counts no more for QUIC, but goes on until its handler
// has returned; a client that has as many of these as well does it on purpose (rapid reset, CVE-2023-44487).
const maxStreams = 250

// begin starts to count requests.
func (h *h3Conn) begin(qc *quic.Conn) {
	s := h.engine.srv
	h.quic = qc
	h.http = &http3.Server{Handler: http.HandlerFunc(h.serveHTTP), MaxHeaderBytes: s.cfg.Limits.HeaderBytes, Logger: slog.New(slog.DiscardHandler)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(s.cfg.Limits.IdleTimeout, h.idle)
}

func (h *h3Conn) serveHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.timer.Stop()
	if h.requests++; h.requests > 2*maxStreams {
		h.closeLocked(http3.ErrCodeExcessiveLoad)
	}
	h.mu.Unlock()
	defer h.done()
	hw := &h3Writer{inner: w.(h3ResponseWriter), stall: h.engine.srv.cfg.Limits.StallTimeout}
	h.engine.srv.serveHTTP(hw, r)
	hw.arm() // quic-go sends what is left after us
}

func (h *h3Conn) done() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.requests--; h.requests > 0 {
		return
	}
	if h.retiring {
		h.timer.Reset(retireGrace)
	} else {
		h.timer.Reset(h.engine.srv.cfg.Limits.IdleTimeout)
	}
}

// idle ends the connection if there are no requests.
func (h *h3Conn) idle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.requests == 0 {
		h.closeLocked(http3.ErrCodeNoError)
	}
}

// retire sends GOAWAY, and ends the connection when its requests are done.
func (h *h3Conn) retire() {
	h.mu.Lock()
	if h.retiring || h.ended {
		h.mu.Unlock()
		return
	}
	h.retiring = true
	if h.requests == 0 {
		h.timer.Reset(retireGrace)
	}
	h.mu.Unlock()
	_ = h.http.Shutdown(h.engine.srv.ctx) // returns when the connection has ended
}

// close ends the connection, and with it its requests.
func (h *h3Conn) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closeLocked(http3.ErrCodeNoError)
}

func (h *h3Conn) closeLocked(code http3.ErrCode) {
	if !h.ended {
		h.ended = true
		_ = h.quic.CloseWithError(quic.ApplicationErrorCode(code), "")
	}
}

// stop returns when the timer's function is not running and will not.
func (h *h3Conn) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer.Stop()
	h.ended = true
}

// client is the address that the client has now: over QUIC it may change (RFC 9000 §9).
func (h *h3Conn) client() netip.Addr { return addrPortOf(h.quic.RemoteAddr()).Addr().Unmap() }

// datagrams are the addresses of a QUIC connection, for those who know connections by net.Conn. Nothing else of it works.
type datagrams struct {
	net.Conn
	remote net.Addr
}

func (d datagrams) RemoteAddr() net.Addr        { return d.remote }
func (d datagrams) LocalAddr() net.Addr         { return nil }
func (d datagrams) SetDeadline(time.Time) error { return nil }
func (d datagrams) Close() error                { return nil }

// h3ResponseWriter is what quic-go gives to handlers.
type h3ResponseWriter interface {
	http.ResponseWriter
	FlushError() error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// h3Writer gives every write a deadline. Over QUIC the header too waits for the client's window.
type h3Writer struct {
	inner h3ResponseWriter
	stall time.Duration
}

func (w *h3Writer) arm() { _ = w.inner.SetWriteDeadline(time.Now().Add(w.stall)) }

func (w *h3Writer) Header() http.Header { return w.inner.Header() }

func (w *h3Writer) WriteHeader(status int) {
	w.arm()
	w.inner.WriteHeader(status)
}

func (w *h3Writer) Write(p []byte) (int, error) {
	w.arm()
	return w.inner.Write(p)
}

func (w *h3Writer) FlushError() error {
	w.arm()
	return w.inner.FlushError()
}

func (w *h3Writer) SetReadDeadline(t time.Time) error { return w.inner.SetReadDeadline(t) }

func (w *h3Writer) SetWriteDeadline(t time.Time) error { return w.inner.SetWriteDeadline(t) }
