package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"

	"go.uber.org/zap"

	"gatelodge/proxy/upstream"
)

// statusClientClosed is logged and counted where the client left before it had an answer. It is nginx's; nobody gets to see it.
const statusClientClosed = 499

// refuse answers a request that goes no further. Why is in the log; the client gets the class.
func (x *exchange) refuse(f *fault) {
	x.err = f
	if f.status == http.StatusBadRequest && x.conn.h1 != nil {
		x.Header()["Connection"] = closeValue // what cannot be understood leaves nothing to go on from
	}
	x.answer(f.status)
}

// answer writes an answer of our own (see errorPage).
func (x *exchange) answer(status int) {
	h := x.out.Header()
	asHTML := status >= 400 && wantsHTML(x.r.Header["Accept"])
	contentType, text := errorPage(status, x.id, asHTML)
	h["Content-Type"] = []string{contentType}
	if asHTML {
		h["Content-Security-Policy"] = []string{"default-src 'none'; style-src 'unsafe-inline'"}
	}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	h["Cache-Control"] = []string{"no-store"}
	h["X-Request-Id"] = []string{x.id}
	x.out.WriteHeader(status)
	_, _ = io.WriteString(x.out, text) // a client that does not read has left
}

// upstreamFailed answers a request whose upstream gave none. Whose fault it was decides the status: the client's own broken body must not count against
// the upstream.
func (x *exchange) upstreamFailed(err error) {
	if x.body != nil {
		if bad := x.body.err(); bad != nil {
			x.clientFailed(bad)
			return
		}
	}
	if errors.Is(err, upstream.ErrCanceled) {
		x.abort(err)
		return
	}
	x.reportUpstream(err)
	status := http.StatusBadGateway
	switch {
	case errors.Is(err, upstream.ErrTimeout):
		status = http.StatusGatewayTimeout
	case errors.Is(err, upstream.ErrUnavailable):
		status = http.StatusServiceUnavailable
	}
	x.err = err
	x.answer(status)
}

// reportUpstream logs and counts a fault of the upstream.
func (x *exchange) reportUpstream(err error) {
	x.srv.cfg.Metrics.UpstreamError(upstream.Classify(err))
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		x.upstream = e.Target
	}
	x.srv.log.Warn("upstream failed", zap.String("request_id", x.id), zap.String("site", x.site.Name), zap.Error(err))
}

// clientFailed answers a request whose body could not be read.
func (x *exchange) clientFailed(err error) {
	var timeout net.Error
	switch {
	case errors.Is(err, errBodyTooLarge):
		x.refuse(&fault{http.StatusRequestEntityTooLarge, "body beyond the limit"})
	case errors.As(err, &timeout) && timeout.Timeout():
		x.refuse(&fault{http.StatusRequestTimeout, "the client stopped in the middle of its body"})
	case x.conn.h1 != nil && isFraming(err):
		x.refuse(&fault{http.StatusBadRequest, err.Error()})
	default:
		x.abort(err)
	}
}

// isFraming reports whether the body of an HTTP/1.1 request ended because of what the client wrote, and not because the connection was lost.
func isFraming(err error) bool {
	if errors.Is(err, errFraming) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	_, network := errors.AsType[*net.OpError](err)
	return !network && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, net.ErrClosed) && err != io.EOF
}
