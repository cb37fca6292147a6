package proxy

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"gatelodge/proxy/hostname"
)

// fault is a request that we do not serve: the status for the client, and what a person reads in the log.
type fault struct {
	status int
	why    string
}

func (f *fault) Error() string { return f.why }

// check looks at the request before anything is decided by it: what passes has one meaning to us and to whoever reads it next. What net/http
// refuses or repairs before we see it is in guard.go and in doc.go.
func (x *exchange) check() *fault {
	r := x.r
	if r.ProtoMajor == 1 {
		x.upgrade = wantedUpgrade(r)
		x.tunnelled = r.Method == http.MethodConnect || r.Header["Upgrade"] != nil && r.ContentLength == 0 // as the guard has it
	}
	connect := wantedConnect(r)
	if r.Method == http.MethodConnect && connect == "" {
		return &fault{http.StatusMethodNotAllowed, "CONNECT: this is no forward proxy"}
	}
	if connect != "" && connect != "websocket" {
		return &fault{http.StatusNotImplemented, "CONNECT to another protocol than websocket"} // RFC 9220 §3
	}
	host, _, err := hostname.Split(r.Host)
	if err != nil {
		return &fault{http.StatusBadRequest, err.Error()}
	}
	x.host = host
	if r.ProtoMajor >= 2 {
		if f := checkFramed(r); f != nil {
			return f
		}
	}
	if f := checkTarget(r); f != nil {
		return f
	}
	if connect != "" {
		x.beginConnect()
	}
	return nil
}

// checkFramed refuses what RFC 9113 and RFC 9114 §4.2 to §4.3 call malformed and the engines let through.
func checkFramed(r *http.Request) *fault {
	// RFC 9110 §9.1. http.Transport would refuse it, and that would count against the upstream.
	if !isToken([]byte(r.Method)) {
		return &fault{http.StatusBadRequest, "method that is no token"}
	}
	// RFC 8441 §4: ":protocol" belongs to CONNECT alone.
	if _, ok := r.Header[":protocol"]; ok && r.Method != http.MethodConnect {
		return &fault{http.StatusBadRequest, "request with :protocol that is no CONNECT"}
	}
	// §8.2.2: "An endpoint MUST NOT generate an HTTP/2 message containing connection-specific header fields."
	for _, name := range [...]string{"Connection", "Proxy-Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Http2-Settings"} {
		if _, ok := r.Header[name]; ok {
			return &fault{http.StatusBadRequest, "request over HTTP/2 or HTTP/3 with the field " + name}
		}
	}
	if te, ok := r.Header["Te"]; ok && (len(te) != 1 || te[0] != "trailers") {
		return &fault{http.StatusBadRequest, "request over HTTP/2 or HTTP/3 with TE other than trailers"}
	}
	// §8.1.1: content-length that is no number, is there twice, or disagrees with a body that has ended already. net/http watches the rest of the body.
	if cl, ok := r.Header["Content-Length"]; ok && (len(cl) != 1 || cl[0] != strconv.FormatInt(r.ContentLength, 10)) {
		return &fault{http.StatusBadRequest, "Content-Length that does not describe the body"}
	}
	// §8.3.1: a server treats a request as malformed if its Host field identifies another entity than :authority.
	if h, ok := r.Header["Host"]; ok && (len(h) != 1 || h[0] != r.Host) {
		return &fault{http.StatusBadRequest, "Host differs from :authority"}
	}
	return nil
}

// checkTarget refuses request targets that are read differently from one server to the next (RFC 9112 §3.2).
func checkTarget(r *http.Request) *fault {
	target := r.RequestURI
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c == 0x7f || c == '#' {
			return &fault{http.StatusBadRequest, fmt.Sprintf("byte %q in the request target", c)}
		}
	}
	switch {
	case strings.HasPrefix(target, "//") && r.URL.EscapedPath() != pathOf(target):
		// Such a path cannot be forwarded byte by byte (see outgoingURL), and it would have to be changed after it was judged.
		return &fault{http.StatusBadRequest, "path with // at its beginning and bytes that must be escaped"}
	case strings.HasPrefix(target, "/"), target == "*" && r.Method == http.MethodOptions:
		return nil
	case r.URL.Host != "" && (r.URL.Scheme == "http" || r.URL.Scheme == "https") && r.URL.User == nil && r.ProtoMajor == 1:
		return nil // absolute-form, which servers MUST accept (§3.2.2); its host is in r.Host
	}
	return &fault{http.StatusBadRequest, "request target is no path"}
}

// pathOf returns the path of a request target as the client wrote it.
func pathOf(target string) string {
	if i := strings.IndexByte(target, '?'); i >= 0 {
		target = target[:i]
	}
	if !strings.HasPrefix(target, "/") && target != "*" { // absolute-form
		_, rest, _ := strings.Cut(target, "://")
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			return rest[i:]
		}
		return "/"
	}
	return target
}

// wantedUpgrade returns the protocol that an HTTP/1.1 client asks to switch to, if that is a request which we forward as one. h2c never is: it would carry
// requests past everything that is decided here. Nor are lists, nor requests with a body.
func wantedUpgrade(r *http.Request) string {
	u := r.Header["Upgrade"]
	if len(u) == 0 || !hasToken(r.Header["Connection"], "upgrade") || !r.ProtoAtLeast(1, 1) {
		return ""
	}
	if len(u) != 1 || u[0] == "" || strings.ContainsAny(u[0], ", \t") || strings.HasPrefix(strings.ToLower(u[0]), "h2") || r.ContentLength != 0 {
		return ""
	}
	return u[0]
}
