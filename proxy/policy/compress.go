package policy

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// CompressConfig compresses answers for clients that can read it.
type CompressConfig struct {
	// Codings are what may be used, best first: "zstd", "br", "gzip". Required.
	Codings []string

	// MinBytes is the least length of an answer that is worth it, where the length is known. Zero means 1024.
	MinBytes int64
}

// Compress compresses texts: an answer is left as it is if it is compressed already, a part of one, not text by its type, short, or forbidden to change
// (no-transform, or with a digest of its bytes). The request goes on unchanged: what the client accepts the upstream may use as well, and then has.
//
// Whoever can see how long encrypted answers are, and have a browser ask for chosen addresses, can find out a secret that stands in an answer beside
// something chosen by the one who asks: the better the guess, the shorter the answer (BREACH). Answers to which that applies are better not
// compressed, by leaving it off for their route or by Cache-Control: no-transform.
type Compress struct {
	codings []string
	pools   map[string]*encoders
	min     int64
}

// NewCompress returns an error for a coding that is none of ours.
func NewCompress(cfg CompressConfig) (*Compress, error) {
	c := &Compress{codings: cfg.Codings, pools: map[string]*encoders{}, min: cfg.MinBytes}
	if len(cfg.Codings) == 0 {
		return nil, errors.New("policy: there is no coding to compress with")
	}
	for _, coding := range cfg.Codings {
		if c.pools[coding] = newEncoders(coding); c.pools[coding] == nil {
			return nil, fmt.Errorf("policy: %q is none of zstd, br and gzip", coding)
		}
	}
	if c.min == 0 {
		c.min = 1024
	}
	return c, nil
}

// Wrap compresses what next answers. It leaves tunnels alone.
func (c *Compress) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect || hasDirective(r.Header["Cache-Control"], "no-transform") { // RFC 9111 §5.2.1.6
			next.ServeHTTP(w, r)
			return
		}
		cw := &compressed{ResponseWriter: w, c: c, r: r, coding: negotiate(r.Header["Accept-Encoding"], c.codings)}
		next.ServeHTTP(cw, r) // if it panics the answer is not complete, and must not end as if it were
		cw.end()
	})
}

// compressed is an answer that may become a compressed one, which the header decides. A handler that answers says so by WriteHeader or Write.
type compressed struct {
	http.ResponseWriter
	c      *Compress
	r      *http.Request
	coding string // that the client likes best; empty for none
	began  bool
	enc    encoder // nil where the answer stays as it is
}

// Unwrap is for http.ResponseController.
func (w *compressed) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader decides about the final header.
func (w *compressed) WriteHeader(status int) {
	if !w.began && status >= 200 {
		w.began = true
		w.decide(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

// decide looks at the header of the answer and changes it for what is going to follow. An answer to HEAD has the header that GET would have had (RFC 9110
// §9.3.2).
func (w *compressed) decide(status int) {
	h := w.Header()
	if status == http.StatusNotModified {
		w.matchNotModified(h)
		return
	}
	if !w.c.compressible(status, h) {
		return
	}
	addVary(h)
	if w.coding == "" {
		return
	}
	h["Content-Encoding"] = []string{w.coding}
	delete(h, "Content-Length")
	delete(h, "Accept-Ranges") // of the bytes before compression
	// RFC 9110 §8.8.3.3: what is compressed on the way has another strong validator than what it was made of. A weak one says that they mean the same.
	if etag := h["Etag"]; len(etag) == 1 && strings.HasPrefix(etag[0], `"`) {
		h["Etag"] = []string{"W/" + etag[0]}
	}
	if w.r.Method != http.MethodHead {
		w.enc = w.c.pools[w.coding].take(w.ResponseWriter)
	}
}

// matchNotModified gives a 304 the validator that the client has: without it, the client could not tell which of its answers is still good (RFC 9111 §4.3.4).
func (w *compressed) matchNotModified(h http.Header) {
	etag := h["Etag"]
	if len(etag) != 1 || !strings.HasPrefix(etag[0], `"`) {
		return
	}
	for _, field := range w.r.Header["If-None-Match"] {
		if strings.Contains(field, "W/"+etag[0]) {
			h["Etag"] = []string{"W/" + etag[0]}
			addVary(h)
		}
	}
}

// compressible reports whether an answer is worth compressing, and may be.
func (c *Compress) compressible(status int, h http.Header) bool {
	switch {
	case status < 200, status == http.StatusNoContent, status == http.StatusResetContent, status == http.StatusPartialContent:
		return false
	case h["Content-Range"] != nil, h["Content-Encoding"] != nil && !isIdentity(h["Content-Encoding"]):
		return false
	case h["Digest"] != nil, h["Content-Digest"] != nil, h["Repr-Digest"] != nil, h["Content-Md5"] != nil: // RFC 9530: they are of these very bytes
		return false
	case hasDirective(h["Cache-Control"], "no-transform"): // RFC 9111 §5.2.2.6
		return false
	}
	if l := h["Content-Length"]; len(l) > 0 {
		if n, err := strconv.ParseInt(l[0], 10, 64); err != nil || n < c.min {
			return false
		}
	}
	return len(h["Content-Type"]) == 1 && isText(h["Content-Type"][0])
}

func isIdentity(fields []string) bool {
	return len(fields) == 1 && strings.EqualFold(fields[0], "identity")
}

// isText reports whether content of the type gets much shorter by compression.
func isText(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.Trim(media, " \t"))
	if strings.HasPrefix(media, "text/") || strings.HasSuffix(media, "+json") || strings.HasSuffix(media, "+xml") {
		return true
	}
	switch media {
	case "application/json", "application/javascript", "application/x-javascript", "application/xml", "application/wasm", "application/x-ndjson", "application/yaml",
		"application/toml", "application/sql", "application/rtf", "application/vnd.ms-fontobject", "font/ttf", "font/otf", "image/bmp", "image/x-icon", "image/vnd.microsoft.icon":
		return true
	}
	return false
}

// addVary tells caches that the answer depends on what the client accepts.
func addVary(h http.Header) {
	for _, field := range h["Vary"] {
		for item := range strings.SplitSeq(field, ",") {
			if item = strings.Trim(item, " \t"); item == "*" || strings.EqualFold(item, "Accept-Encoding") {
				return
			}
		}
	}
	h["Vary"] = append(slices.Clip(h["Vary"]), "Accept-Encoding")
}

// hasDirective reports whether a Cache-Control field has the directive.
func hasDirective(fields []string, name string) bool {
	for _, field := range fields {
		for item := range strings.SplitSeq(field, ",") {
			if strings.EqualFold(strings.Trim(item, " \t"), name) {
				return true
			}
		}
	}
	return false
}

func (w *compressed) Write(p []byte) (int, error) {
	if !w.began {
		w.WriteHeader(http.StatusOK)
	}
	if w.enc == nil {
		return w.ResponseWriter.Write(p)
	}
	return w.enc.Write(p)
}

// FlushError sends what was written so far, such as one event of a stream of them.
func (w *compressed) FlushError() error {
	if w.enc != nil {
		if err := w.enc.Flush(); err != nil {
			return err
		}
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush is FlushError for those who do not look at errors.
func (w *compressed) Flush() { _ = w.FlushError() }

// end completes the compressed answer. An error means that the client has left, which the next to write finds out.
func (w *compressed) end() {
	if w.enc != nil {
		_ = w.enc.Close()
		w.c.pools[w.coding].give(w.enc)
		w.enc = nil
	}
}
