package policy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"gatelodge/proxy/rule"
)

// ForwardConfig asks another server about each request.
type ForwardConfig struct {
	// URL is where that server is asked, with GET. Required.
	URL string

	// Copy names the fields of its answer that the request gets. What the client sent under these names, or under one that an application could take for
	// them, is deleted whatever the answer says.
	Copy []string

	// Timeout is how long the answer's header may take. Zero means 5 s.
	Timeout time.Duration

	// Transport sends the question; it follows no redirects. Required.
	Transport http.RoundTripper

	// Header returns a new header for the question: the request's own, without what is hop-by-hop and what only a proxy may say, but with what this one
	// says, X-Forwarded-For, -Proto and -Host among it. Required.
	Header func(r *http.Request) http.Header

	// Own is told the names in Copy for each request that is let through: from now on no trailer of the client's may carry them. Nil: nobody is told.
	Own func(r *http.Request, names ...string)

	Refuse Refuse
}

// Forward sends a request on only if another server has nothing against it (2xx). Any other answer is given to the client, such as a redirect to a page on
// which to log in. Where there is no answer there is no permission: 503, or 502 where it is none that one can use.
type Forward struct {
	cfg    ForwardConfig
	url    *url.URL
	copied []string // canonical
}

// answerLimit bounds what is read of an answer that is not passed on.
const answerLimit = 64 << 10

// NewForward returns an error for an address or names that are none.
func NewForward(cfg ForwardConfig) (*Forward, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, errors.New("policy: the address to ask is no http:// or https:// URL, or has a user or fragment") // not shown: it may have a secret
	}
	if cfg.Transport == nil || cfg.Header == nil {
		return nil, errors.New("policy: asking another server needs a transport and a header")
	}
	f := &Forward{cfg: cfg, url: u}
	for _, name := range cfg.Copy {
		canonical := http.CanonicalHeaderKey(name)
		if !mayCopy(canonical) {
			return nil, fmt.Errorf("policy: the field %q cannot be copied", name)
		}
		f.copied = append(f.copied, canonical)
	}
	if cfg.Timeout == 0 {
		f.cfg.Timeout = 5 * time.Second
	}
	f.cfg.Refuse = cfg.Refuse.orPlain()
	return f, nil
}

// mayCopy reports whether the name is one, and decides about nothing but who asks.
func mayCopy(name string) bool {
	switch name {
	case "", "Host", "Connection", "Content-Length", "Transfer-Encoding", "Te", "Trailer", "Upgrade", "Keep-Alive", "Content-Encoding", "Content-Type", "Expect":
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-')
	})
}

// Wrap asks, and lets through what is permitted.
func (f *Forward) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res, err := f.ask(r)
		if err != nil {
			if r.Context().Err() == nil {
				w.Header()["Retry-After"] = []string{"5"}
			}
			f.cfg.Refuse(w, r, http.StatusServiceUnavailable, "the server that decides did not answer: "+err.Error())
			return
		}
		switch {
		case res.StatusCode >= 500 || res.StatusCode < 200:
			discardBody(res)
			f.cfg.Refuse(w, r, http.StatusBadGateway, "the server that decides answered "+res.Status)
		case res.StatusCode >= 300:
			pass(w, res)
		default:
			discardBody(res)
			f.introduce(r, res.Header)
			next.ServeHTTP(w, r)
		}
	})
}

// ask sends the question. The deadline is that of the whole answer, which is small.
func (f *Forward) ask(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(r.Context(), f.cfg.Timeout)
	h := f.cfg.Header(r)
	for name := range h {
		// There is no body, whatever the request says about its own, and what is for caches of the page is nothing to this answer.
		if strings.HasPrefix(name, "Content-") || strings.HasPrefix(name, "If-") || name == "Expect" || name == "Range" || name == "Accept-Encoding" || name == "Te" {
			delete(h, name)
		}
	}
	for name := range h {
		// The server must not be told who asks by the client itself, in the fields that it decides; credentials are what the question is about.
		if name != "Authorization" && name != "Cookie" && slices.ContainsFunc(f.copied, func(copied string) bool { return rule.SameVariable(name, copied) }) {
			delete(h, name)
		}
	}
	h["X-Forwarded-Method"] = []string{r.Method}
	h["X-Forwarded-Uri"] = []string{targetOf(r)}
	question := (&http.Request{Method: http.MethodGet, URL: f.url, Host: f.url.Host, Header: h, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
	res, err := f.cfg.Transport.RoundTrip(question)
	if err != nil {
		cancel()
		return nil, err
	}
	res.Body = &endingBody{ReadCloser: res.Body, end: cancel}
	return res, nil
}

// targetOf is path and query as the client wrote them.
func targetOf(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		return r.RequestURI
	}
	return r.URL.RequestURI()
}

// endingBody ends the context of the answer with the answer.
type endingBody struct {
	io.ReadCloser
	end context.CancelFunc
}

func (b *endingBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

// introduce gives the request the fields that the server decided on.
func (f *Forward) introduce(r *http.Request, answer http.Header) {
	if f.cfg.Own != nil && len(f.copied) > 0 {
		f.cfg.Own(r, f.copied...)
	}
	for name := range r.Header {
		for _, copied := range f.copied {
			if rule.SameVariable(name, copied) {
				delete(r.Header, name)
			}
		}
	}
	for _, name := range f.copied {
		if v := answer[name]; len(v) > 0 {
			r.Header[name] = slices.Clone(v)
		}
	}
}

// pass gives the answer to the client.
func pass(w http.ResponseWriter, res *http.Response) {
	defer func() { _ = res.Body.Close() }()
	drop := map[string]bool{
		"Connection": true, "Proxy-Connection": true, "Keep-Alive": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Alt-Svc": true,
	}
	for _, field := range res.Header["Connection"] {
		for name := range strings.SplitSeq(field, ",") {
			drop[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	h := w.Header()
	for name, v := range res.Header {
		if !drop[name] {
			h[name] = v
		}
	}
	w.WriteHeader(res.StatusCode)
	if _, err := io.Copy(w, res.Body); err != nil {
		panic(http.ErrAbortHandler) // so that the client sees that it is not complete
	}
}

// discardBody reads a small body to its end, so that the connection can be used again.
func discardBody(res *http.Response) {
	_, _ = io.CopyN(io.Discard, res.Body, answerLimit)
	_ = res.Body.Close()
}
