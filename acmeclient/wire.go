package acmeclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of one request and its answer.
const (
	dialTimeout    = 10 * time.Second
	headerTimeout  = 30 * time.Second
	requestTimeout = 60 * time.Second
	maxBody        = 1 << 20
	maxChainBody   = 8 << 20
	maxRedirects   = 3
)

// Rates below what Let's Encrypt allows per source address: 250/s with a burst of 125 for everything, 20/s with a burst of 10 for newNonce.
const (
	requestRate, requestBurst   = 200, 100
	newNonceRate, newNonceBurst = 18, 8
)

// wire is the way to one CA, for x/crypto/acme (as its http.RoundTripper) and for what we sign ourselves. It owns what belongs to the CA and not to one
// operation: connections, nonces, the directory, the request rate. It never waits out a Retry-After and repeats nothing.
type wire struct {
	ca        string
	plain     bool // http is allowed, on loopback: the directory itself is such
	userAgent string
	timeout   time.Duration   // of one request
	retries   []time.Duration // pauses before quick tries
	transport *http.Transport
	http      *http.Client // over this wire
	requests  *rate.Limiter
	newNonces *rate.Limiter
	metrics   Metrics
	nonces    noncePool // of v2
	noncesV1  noncePool // of v1: it may be another server's
	directory directoryCache
}

// newWire makes the way to the CA of a valid Config.
func newWire(cfg *Config) *wire {
	w := &wire{
		ca:        cfg.Name,
		plain:     strings.HasPrefix(cfg.Directory, "http:") || strings.HasPrefix(cfg.DirectoryV1, "http:"),
		userAgent: cfg.UserAgent,
		timeout:   requestTimeout,
		retries:   []time.Duration{250 * time.Millisecond, time.Second},
		requests:  rate.NewLimiter(requestRate, requestBurst),
		newNonces: rate.NewLimiter(newNonceRate, newNonceBurst),
		metrics:   cfg.Metrics,
		transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout:   dialTimeout,
			TLSClientConfig:       &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
			ResponseHeaderTimeout: headerTimeout,
			MaxIdleConnsPerHost:   16,
			IdleConnTimeout:       90 * time.Second,
			ForceAttemptHTTP2:     true,
		},
	}
	w.http = &http.Client{Transport: w, CheckRedirect: w.checkRedirect}
	w.directory.turn = make(chan struct{}, 1)
	return w
}

// RoundTrip sends a request of x/crypto/acme or of our own. Two of the former never leave the house: the directory, which every short-lived
// acme.Client asks for, and HEAD newNonce, which it sends before each POST because we keep the nonces from it.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	ex := exchangeOf(req.Context())
	switch {
	case ex.direct:
		return w.send(req, ex)
	case req.Method == http.MethodGet && ex.directory != nil && req.URL.String() == ex.directory.url:
		return answer(req, "application/json", ex.directory.canonical()), nil
	case req.Method == http.MethodHead:
		nonce, err := w.nonce(req.Context(), req.URL.String())
		if err != nil {
			return nil, err
		}
		resp := answer(req, "", nil)
		resp.Header.Set("Replay-Nonce", nonce)
		return resp, nil
	}
	return w.send(req, ex)
}

// answer makes a 200 response of our own.
func answer(req *http.Request, contentType string, body []byte) *http.Response {
	h := http.Header{}
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: req,
	}
}

// send puts one request on the network, reads the whole answer within bounds, keeps its nonce and records in ex what the operation may want to know.
func (w *wire) send(req *http.Request, ex *exchange) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(req.Context(), w.timeout)
	defer cancel()
	ex.status, ex.url, ex.header, ex.isProblem = 0, req.URL, nil, false
	if err := w.admit(ctx, req.URL, ex); err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	out := req.Clone(ctx)
	if out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", w.userAgent)
	}
	out.Header.Set("Accept-Language", "en") // RFC 8555 §6.1; our texts match English ones
	if ex.endpoint == endpointCertificate && ex.nonces == nil {
		out.Header.Set("Accept", "application/pem-certificate-chain")
	}
	start := time.Now()
	resp, err := w.transport.RoundTrip(out)
	var body []byte
	if err == nil {
		body, err = readBody(resp, ex)
	}
	if err != nil {
		w.metrics.Request(w.ca, ex.endpoint, 0, time.Since(start))
		return nil, err
	}
	w.metrics.Request(w.ca, ex.endpoint, resp.StatusCode, time.Since(start))
	w.record(ex, resp, body)
	resp.Body, resp.Request = io.NopCloser(bytes.NewReader(body)), req
	return resp, nil
}

// admit checks the URL, since most come from the CA, and waits for the request rate.
func (w *wire) admit(ctx context.Context, u *url.URL, ex *exchange) error {
	if _, err := parseURL(u.String(), w.plain); err != nil {
		return err
	}
	limiters := []*rate.Limiter{w.requests}
	if ex.endpoint == endpointNewNonce {
		limiters = append(limiters, w.newNonces)
	}
	for _, l := range limiters {
		if err := l.Wait(ctx); err != nil {
			return fmt.Errorf("wait for the request rate: %w", context.DeadlineExceeded) // it would be over before our turn; Wait has no error for that
		}
	}
	return nil
}

// readBody reads and closes the answer's body. A body cut short is an error, as is one beyond the bound.
func readBody(resp *http.Response, ex *exchange) ([]byte, error) {
	defer resp.Body.Close()
	limit := int64(maxBody)
	if ex.endpoint == endpointCertificate && ex.nonces == nil { // v1 sends one certificate at a time
		limit = maxChainBody
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if int64(len(body)) > limit {
		return nil, &answerError{fmt.Errorf("the answer is larger than %d bytes", limit)}
	}
	return body, nil
}

// record keeps the nonce and tells the exchange what was answered.
func (w *wire) record(ex *exchange, resp *http.Response, body []byte) {
	ex.status, ex.header, ex.nonce = resp.StatusCode, resp.Header, ""
	if nonce := resp.Header.Get("Replay-Nonce"); nonce != "" {
		resp.Header.Del("Replay-Nonce")
		switch {
		case ex.direct && ex.endpoint == endpointNewNonce && (resp.StatusCode < 300 || ex.nonces != nil):
			ex.nonce = nonce
		case ex.nonces != nil:
			ex.nonces.put(nonce, time.Now())
		default:
			w.nonces.put(nonce, time.Now())
		}
	}
	if resp.StatusCode < 400 {
		return
	}
	ex.problem, ex.isProblem = parseDocument(body) // whatever its Content-Type: CAs differ
	if ex.isProblem && kind(ex.problem.typ) == "badNonce" {
		w.metrics.BadNonce(w.ca)
	}
}

// opNonce is the operation without whose success no signed request is sent.
const opNonce = "get a nonce"

// nonce returns a nonce nobody else has: from the pool, or from the CA's newNonce (RFC 8555 §7.2).
func (w *wire) nonce(ctx context.Context, newNonce string) (string, error) {
	if n, ok := w.nonces.take(time.Now()); ok {
		return n, nil
	}
	var nonce string
	err := w.retryQuickly(ctx, func() error {
		ex := &exchange{endpoint: endpointNewNonce, direct: true}
		err := w.do(ctx, ex, http.MethodHead, newNonce, nil)
		if err == nil && (ex.status >= 400 || !isBase64URL(ex.nonce)) {
			err = &answerError{errors.New("it has no usable Replay-Nonce")}
		}
		if err != nil {
			return requestProblem(w.ca, opNonce, ex, err, time.Now())
		}
		nonce = ex.nonce
		return nil
	})
	return nonce, err
}

// do sends one request of our own; body may be nil. What was answered is in ex; read receives the answer's body.
func (w *wire) do(ctx context.Context, ex *exchange, method, target string, body []byte, read ...*[]byte) error {
	req, err := http.NewRequestWithContext(withExchange(ctx, ex), method, target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/jose+json") // RFC 8555 §6.2
	}
	resp, err := w.http.Do(req)
	if err != nil {
		return strip(err)
	}
	defer resp.Body.Close()
	for _, into := range read {
		if *into, err = io.ReadAll(io.LimitReader(resp.Body, maxChainBody)); err != nil {
			return err
		}
	}
	return nil
}

// checkRedirect allows what keeps the promise of the configured address: same host, no way down to plain http, and no signed request, whose
// signature covers its URL (RFC 8555 §6.4).
func (w *wire) checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case len(via) > maxRedirects:
		return &urlError{req.URL.String(), "too many redirects"}
	case first.Method == http.MethodPost:
		return &urlError{req.URL.String(), "signed requests are not redirected"}
	case !strings.EqualFold(req.URL.Host, first.URL.Host):
		return &urlError{req.URL.String(), "redirect to another host"}
	case first.URL.Scheme == "https" && req.URL.Scheme != "https":
		return &urlError{req.URL.String(), "redirect from https to plain http"}
	}
	return nil
}

// close drops idle connections.
func (w *wire) close() { w.transport.CloseIdleConnections() }

// answerError is an answer with a good status that says nothing we understand: HTML, half a JSON document, a missing field.
type answerError struct{ err error }

func (e *answerError) Error() string { return "understand the answer: " + e.err.Error() }
func (e *answerError) Unwrap() error { return e.err }

// isTLS reports whether the CA's own certificate, or the handshake with it, is what failed.
func isTLS(err error) bool {
	var verify *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	return errors.As(err, &verify) || errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &record)
}

// quickTotal bounds quick tries all in all, so that a CA that is down is known to be down while somebody still waits for the handshake.
const quickTotal = 4 * time.Second

// retryQuickly calls op once more after each pause of w.retries, as long as its error is transient. It is for requests that may be repeated, so not for
// newOrder: a repetition of an order that was made, but whose answer was lost, makes a second order.
func (w *wire) retryQuickly(ctx context.Context, op func() error) error {
	start := time.Now()
	err := op()
	for _, pause := range w.retries {
		if !transient(err) || time.Since(start)+pause > quickTotal || sleep(ctx, pause) != nil {
			break
		}
		err = op()
	}
	var p *Problem
	if errors.As(err, &p) && !p.retried { // what others share already is only read
		p.retried = true // so that operations above this one do not try again
	}
	return err
}

// sleep waits for d or the end of ctx, whose error it returns.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
