package proxy

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"gatelodge/proxy/upstream"
)

var errTooManyInformational = errors.New("more than 16 informational (1xx) answers")

// respond passes the answer on: header, body as it comes, trailers.
func (x *exchange) respond(res *http.Response) {
	defer func() { _ = res.Body.Close() }()
	cleanResponseHeader(res.Header)
	h := x.out.Header()
	for name, v := range res.Header {
		h[name] = v
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = noValue
	}
	if res.StatusCode == http.StatusNoContent { // RFC 9110 §8.6: it MUST NOT be there, and over HTTP/2 and HTTP/3 the answer would be malformed
		delete(h, "Content-Length")
	}
	announced := announceTrailers(h, res.Trailer)
	x.out.WriteHeader(res.StatusCode)
	if x.conn.h3 != nil && x.r.Method == http.MethodHead && h["Content-Length"] == nil {
		_ = x.flush() // or quic-go would say that GET has 0 bytes (RFC 9110 §8.6)
	}
	if err := x.copyBody(res); err != nil {
		x.cut(err)
		return
	}
	x.copyTrailers(res.Trailer, announced)
}

// cut ends an answer that cannot be completed, so that the client sees that it is not complete (RFC 9112 §8, RFC 9113 §8.1).
func (x *exchange) cut(err error) {
	if _, ok := errors.AsType[*upstream.Error](err); ok && !errors.Is(err, upstream.ErrCanceled) {
		if x.body != nil && x.body.err() != nil {
			err = x.body.err() // the client broke off its request, and the upstream its answer because of that
		} else {
			x.reportUpstream(err)
		}
	}
	x.abort(err)
}

// buffers are for bodies on their way through.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// copyBody copies the body and sends each piece as soon as it is there, the header too if the body takes its time. The last piece of a body with
// a length is left to net/http, which sends it together with the header where it can.
func (x *exchange) copyBody(res *http.Response) error {
	if x.r.Method == http.MethodHead || res.Body == http.NoBody || res.ContentLength == 0 {
		return nil
	}
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	header := x.flushSoon()
	defer header.stop()
	watch := x.watchWrites()
	defer watch.stop()
	sent := int64(0)
	for {
		n, err := res.Body.Read(buf[:])
		header.stop()
		if n > 0 {
			watch.begin()
			_, werr := x.out.Write(buf[:n])
			if sent += int64(n); werr == nil && sent != res.ContentLength {
				werr = x.flush()
			}
			watch.stop()
			if werr != nil {
				return werr
			}
			if err == nil && x.outlived() {
				return errReplaced
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// flush sends what was written so far, through whatever a policy put before us.
func (x *exchange) flush() error {
	if x.out == x {
		return x.FlushError()
	}
	return http.NewResponseController(x.out).Flush()
}

// headerDelay is how long the header waits for the first bytes of the body, to go out with them.
const headerDelay = time.Millisecond

// lateFlush sends the header if nobody stops it before headerDelay.
type lateFlush struct {
	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

func (x *exchange) flushSoon() *lateFlush {
	f := &lateFlush{}
	f.timer = time.AfterFunc(headerDelay, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !f.stopped {
			_ = x.flush() // the next write finds out
		}
	})
	return f
}

// stop returns when no flush is under way and none will be.
func (f *lateFlush) stop() {
	if f.stopped {
		return
	}
	if f.timer.Stop() {
		f.stopped = true // which nobody else reads any more
		return
	}
	f.mu.Lock()
	f.stopped = true
	f.mu.Unlock()
}

// watchdog resets an HTTP/2 stream whose client opens no window for Limits.StallTimeout. Over HTTP/1.1 and HTTP/3 every write has a deadline of its own
// (h1Conn, h3Writer); that of an HTTP/2 stream would also end streams in which the upstream is silent.
type watchdog struct {
	x     *exchange
	timer *time.Timer
	mu    sync.Mutex // held while the timer's function runs, which must not outlive the handler
	armed bool
}

func (x *exchange) watchWrites() *watchdog { return &watchdog{x: x} }

func (w *watchdog) begin() {
	if w.x.conn.h1 != nil || w.x.conn.h3 != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = true
	if stall := w.x.srv.cfg.Limits.StallTimeout; w.timer == nil {
		w.timer = time.AfterFunc(stall, w.reset)
	} else {
		w.timer.Reset(stall)
	}
}

func (w *watchdog) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.armed {
		_ = http.NewResponseController(w.x.ResponseWriter).SetWriteDeadline(time.Unix(1, 0))
	}
}

// stop returns when no reset is under way and none will be.
func (w *watchdog) stop() {
	if w.timer == nil {
		return
	}
	w.timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = false
}

// announceTrailers writes the Trailer field for the trailers that the upstream announced, and returns how many those are.
func announceTrailers(h, trailer http.Header) int {
	if len(trailer) == 0 {
		return 0
	}
	names := make([]string, 0, len(trailer))
	for name := range trailer {
		if mayTrail(name) {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		h["Trailer"] = []string{strings.Join(names, ", ")}
	}
	return len(names)
}

// copyTrailers passes the trailers on, announced or not.
func (x *exchange) copyTrailers(trailer http.Header, announced int) {
	if len(trailer) == 0 {
		return
	}
	_ = x.flush() // or net/http would send a short body with a length, which leaves no place for trailers
	h := x.out.Header()
	for name, v := range trailer {
		if !mayTrail(name) || len(v) == 0 {
			continue
		}
		if announced == 0 {
			name = http.TrailerPrefix + name
		}
		h[name] = v
	}
}
