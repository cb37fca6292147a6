package proxy

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"time"

	"gatelodge/proxy/upstream"
)

// forward brings the request to its upstream and the answer to the client. It is written out instead of httputil.ReverseProxy, which
// rewrites queries, relays 1xx without bound, does not read and write at the same time over HTTP/1.1, and loses sight of upgraded connections.
func (x *exchange) forward() {
	if x.loops() {
		x.refuse(&fault{http.StatusLoopDetected, "the request came back to us: the upstream leads here"})
		return
	}
	if x.stopsHere() {
		x.answerHop()
		return
	}
	if err := x.settleBody(); err != nil {
		x.clientFailed(err)
		return
	}
	in := &informer{x: x}
	res, err := x.upstreamTo().RoundTrip(x.outgoing(in))
	in.stop()
	if err != nil {
		x.upstreamFailed(err)
		return
	}
	if x.upstream = x.call.Target; x.upstream == "" && res.Request != nil {
		x.upstream = res.Request.URL.Scheme + "://" + res.Request.URL.Host
	}
	if x.connecting != nil {
		x.endConnect(res)
		return
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		x.switchProtocols(res)
		return
	}
	x.respond(res)
}

// outgoing is the request as the upstream gets it. The header is the client's own map, cleaned: nobody else reads it any more.
func (x *exchange) outgoing(in *informer) *http.Request {
	r := x.r
	x.trace.Got1xxResponse = in.informational
	ctx := x.ctx
	if ctx == nil {
		ctx = r.Context()
	}
	out := r.WithContext(upstream.WithCall(ctx, &x.call, &x.trace))
	out.URL = outgoingURL(r, x.outgoingPath())
	out.RequestURI = ""
	out.Close = false
	out.TransferEncoding, out.Trailer = nil, nil

	x.clean()
	x.setForwarded(out.Header)
	x.call.Client, x.call.Secure = x.client, out.Header["X-Forwarded-Proto"][0] == "https"
	x.setClientCert(out.Header)
	if x.way != nil && x.way.action.strip != "" {
		out.Header["X-Forwarded-Prefix"] = []string{x.way.action.strip}
	}
	if x.wantsTrailers { // hop by hop, but we can do it on both sides
		out.Header["Te"] = []string{"trailers"}
	}
	if x.upgrade != "" {
		out.Header["Connection"] = []string{"Upgrade"}
		out.Header["Upgrade"] = []string{x.upgrade}
	}
	x.setVia(out.Header)
	x.editRequest(out.Header)
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = noValue
	}
	x.outgoingBody(out)
	return out
}

// clean makes the header of the request fit for others than us, once: policies see it clean, and what they set afterwards stays.
func (x *exchange) clean() {
	if x.cleaned {
		return
	}
	x.cleaned = true
	x.wantsTrailers = hasToken(x.r.Header["Te"], "trailers")
	if !x.r.ProtoAtLeast(1, 1) { // RFC 9110 §10.1.1: "MUST ignore that expectation"
		delete(x.r.Header, "Expect")
	}
	cleanRequestHeader(x.r.Header, x.trusted)
}

// outgoingURL is the target with the path, and the query as the client wrote it; scheme and host are the upstream's to fill in.
func outgoingURL(r *http.Request, path string) *url.URL {
	u := &url.URL{RawQuery: r.URL.RawQuery, ForceQuery: r.URL.ForceQuery}
	if strings.HasPrefix(path, "//") || path == "*" {
		u.Path, _ = url.PathUnescape(path) // net/http has parsed it
		u.RawPath = path                   // see checkTarget
	} else {
		u.Opaque = path
	}
	return u
}

// settleBody finds out whether a request over HTTP/3 has a body. HTTP/2 says so in the header's frame (RFC 9113 §8.1), here it takes the end of the stream, or
// the first byte of the body. Where no body is to be expected we wait for either; elsewhere the answer may have to come before the body. Where content-length says
// over either that there is none, we wait until it is so: with one the request is malformed (RFC 9113 §8.1.1, RFC 9114 §4.1.2), and the engines fail the read.
func (x *exchange) settleBody() error {
	length := x.r.ContentLength
	if x.r.ProtoMajor < 2 || x.r.Body == http.NoBody || length > 0 {
		return nil
	}
	if length < 0 && (x.conn.h3 == nil || !isSafe(x.r.Method) && x.r.Method != http.MethodDelete) {
		return nil
	}
	rc := http.NewResponseController(x.ResponseWriter)
	_ = rc.SetReadDeadline(time.Now().Add(x.srv.cfg.Limits.HeaderTimeout))
	first := make([]byte, 1)
	n, err := 0, error(nil)
	for n == 0 && err == nil {
		n, err = x.r.Body.Read(first)
	}
	_ = rc.SetReadDeadline(time.Time{})
	switch {
	case n > 0:
		x.r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(first), x.r.Body), x.r.Body}
	case err == io.EOF:
		x.r.ContentLength, x.r.Body = 0, http.NoBody
	default:
		return err
	}
	return nil
}

// outgoingBody gives out the body of the request, if there is one, and sees to it that nothing is sent twice.
func (x *exchange) outgoingBody(out *http.Request) {
	if x.r.ContentLength == 0 {
		out.Body = nil
		if !isSafe(out.Method) {
			// http.Transport repeats a request with one of these fields although bytes of it were sent. It looks for the usual spelling; upstreams
			// compare without case (RFC 9110 §5.1).
			renameToLower(out.Header, "Idempotency-Key")
			renameToLower(out.Header, "X-Idempotency-Key")
		}
		return
	}
	x.body = x.newRequestBody()
	out.Body, out.GetBody = x.body, x.body.again
	if x.r.Trailer != nil || x.r.ContentLength < 0 {
		out.Trailer = http.Header{}
		for name := range x.r.Trailer {
			if x.mayTrail(name) {
				out.Trailer[name] = nil
			}
		}
		x.body.out = out.Trailer
	}
	if x.r.ContentLength < 0 || len(out.Trailer) > 0 {
		out.ContentLength = -1
		out.TransferEncoding = []string{"chunked"}
	}
	if x.conn.h1 != nil {
		_ = http.NewResponseController(x.ResponseWriter).EnableFullDuplex() // answers may begin before the request has ended
	}
}

func isSafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

func renameToLower(h http.Header, name string) {
	if v, ok := h[name]; ok {
		delete(h, name)
		h[strings.ToLower(name)] = v
	}
}

// maxInformational bounds the 1xx answers to one request: each is written to the client, and an upstream could send them for ever.
const maxInformational = 16

// informer passes 1xx answers on while the upstream works. The transport calls it from its own goroutine, possibly after RoundTrip has returned.
type informer struct {
	x     *exchange
	mu    sync.Mutex
	count int
	done  bool
}

func (in *informer) stop() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.done = true
}

func (in *informer) informational(code int, header textproto.MIMEHeader) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.done {
		return nil
	}
	if in.count++; in.count > maxInformational {
		return &upstream.Error{Class: upstream.ErrProtocol, Err: errTooManyInformational}
	}
	x := in.x
	if code == http.StatusContinue {
		x.continueBody()
		return nil
	}
	if !x.r.ProtoAtLeast(1, 1) { // RFC 9110 §15.2: HTTP/1.0 has no 1xx
		return nil
	}
	h := x.Header()
	ours := maps.Clone(h) // what policies have set is for the final answer
	clear(h)
	cleanResponseHeader(http.Header(header))
	maps.Copy(h, header)
	x.WriteHeader(code)
	clear(h)
	maps.Copy(h, ours)
	return nil
}

// continueBody tells a client that waits for it to send its body. Over HTTP/2 net/http hides the expectation and says 100 itself, when the
// body is first read.
func (x *exchange) continueBody() {
	if x.body == nil || x.r.Header["Expect"] == nil {
		return
	}
	if h1 := x.conn.h1; h1 != nil {
		h1.dropContinue.Store(false)
		x.WriteHeader(http.StatusContinue)
		h1.dropContinue.Store(true)
	} else if x.conn.h3 != nil {
		x.WriteHeader(http.StatusContinue)
	}
}
