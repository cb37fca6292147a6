package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/rule"
	"gatelodge/proxy/upstream"
)

// exchange is one request on its way through: what the steps find out about it, and the http.ResponseWriter through which they answer.
// It lives as long as the handler.
type exchange struct {
	http.ResponseWriter
	srv   *Server
	conn  *conn
	state *state
	site  *Site // nil until the request is routed
	door  *door // the site's; nil also for a redirect
	r     *http.Request

	// Within a site that has routes or policies:
	way     *way            // the route; nil for none
	matched *rule.Pattern   // by which it was found; nil without
	path    string          // canonical; empty where nothing was decided by it
	ctx     context.Context // as the policies left it; nil without

	// out is who the answer is written to: the exchange itself, or what a policy put before it.
	out http.ResponseWriter

	whose *Customer // of a name served on demand; nil until somebody asked
	edits [2]*edits // what the site and the route change in headers

	start    time.Time
	id       string     // X-Request-Id
	peer     netip.Addr // who sent it
	client   netip.Addr // who asks, by the word of a trusted proxy if there is one
	trusted  bool       // the peer is a trusted proxy
	host     string     // canonical host
	upgrade  string     // the protocol that the client wants to switch to; empty almost always
	upstream string     // who answered, for the log

	call  upstream.Call         // what the upstream's pool is told, and tells
	trace httptrace.ClientTrace // what happens on the way there

	owned      []string    // see OwnFields
	connecting *connecting // for an extended CONNECT; nil almost always
	err        error       // why it went wrong, for the log

	body      *requestBody // nil without one
	status    int          // final status; zero until it is written
	bytesOut  int64        // of the response body
	tunnelIn  int64        // from the client after an upgrade
	tunnelled bool         // the guard stopped looking after this request
	hijacked  bool
	streaming bool // the stream is a tunnel: nobody else writes into it

	cleaned       bool // see clean
	wantsTrailers bool // the client takes trailers (RFC 9110 §10.1.4)
	abandoned     bool // the answer was cut, or never begun

	judged  *state    // the settings under which outlived last looked
	expires time.Time // when the answer must have ended; zero: whenever it likes
}

// serveHTTP is the way of every request.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.add()
	defer s.requests.done()
	x := &exchange{ResponseWriter: w, srv: s, conn: connOf(r.Context()), state: s.state.Load(), r: r, start: time.Now()}
	x.out = x
	defer x.end()
	x.conn.earn(h2RequestWorth)
	x.identify()
	if x.conn.h1 != nil {
		x.conn.h1.dropContinue.Store(true)
		x.conn.h1.serving.Store(true)
	}
	if f := x.check(); f != nil {
		x.refuse(f)
		return
	}
	if x.conn.version == 0 {
		s.plain.ServeHTTP(x, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)))
		return
	}
	x.route()
}

type exchangeKey struct{}

// WriteHeader writes the status. Where the request's body is not at its end the connection cannot be used again, since nobody knows where the next
// request begins (RFC 9112 §9.3); the same after a refused upgrade, since the client may have gone on in the other protocol already.
func (x *exchange) WriteHeader(status int) {
	if x.status != 0 {
		return
	}
	h1 := x.conn.h1
	if final := status >= 200; final {
		x.status = status
		if x.body != nil {
			x.body.pace.answered()
		}
		x.announce()
		if h1 != nil && (x.unread() || x.tunnelled) {
			x.Header()["Connection"] = closeValue
			h1.linger.Store(true)
		}
	}
	x.ResponseWriter.WriteHeader(status)
	if x.status != 0 && h1 != nil {
		h1.dropContinue.Store(false) // from here on net/http writes none, and the body may contain anything
	}
}

// unread reports whether the client may have body left to send.
func (x *exchange) unread() bool {
	return x.r.ContentLength != 0 && (x.body == nil || !x.body.complete.Load())
}

var closeValue = []string{"close"}

func (x *exchange) Write(p []byte) (int, error) {
	if x.hijacked || x.streaming {
		return 0, http.ErrHijacked
	}
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	n, err := x.ResponseWriter.Write(p)
	x.bytesOut += int64(n)
	x.conn.earn(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// Flush sends what was written so far.
func (x *exchange) Flush() { _ = x.FlushError() }

// FlushError is Flush for http.ResponseController.
func (x *exchange) FlushError() error {
	return x.ResponseWriter.(interface{ FlushError() error }).FlushError()
}

// drainTimeout is how long we read what a client still sends after its answer.
const drainTimeout = time.Second

// end is deferred: it contains a panic, lets go of the request body, and logs.
func (x *exchange) end() {
	p := recover()
	x.out = x
	if p != nil && p != http.ErrAbortHandler {
		x.srv.log.Error("panic in a request", zap.String("request_id", x.id), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		if x.status == 0 && !x.hijacked {
			x.answer(http.StatusInternalServerError)
		} else {
			x.abandoned = true
		}
	} else if p != nil {
		x.abandoned = true
	}
	if x.body != nil {
		x.body.finish()
	}
	if h1 := x.conn.h1; h1 != nil && !x.hijacked {
		if x.unread() {
			_ = h1.SetReadDeadline(time.Now().Add(drainTimeout)) // net/http reads on after the handler, with no limit of its own
		}
		h1.serving.Store(false)
		h1.answered.Add(1)
	}
	x.record()
	if x.abandoned && !x.hijacked {
		if h1 := x.conn.h1; h1 != nil && !x.r.ProtoAtLeast(1, 1) {
			h1.sever()
		}
		panic(http.ErrAbortHandler) // net/http closes the connection, or resets the stream, so that the client sees the cut
	}
}

// abort cuts the answer where it is, visibly.
func (x *exchange) abort(err error) {
	if x.srv.cutting.Load() && errors.Is(err, upstream.ErrCanceled) {
		err = errDraining // the client did not leave: we closed its connection
	}
	x.err, x.abandoned = err, true
}
