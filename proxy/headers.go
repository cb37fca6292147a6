package proxy

import (
	"net/http"
	"net/textproto"
	"strings"

	"gatelodge/proxy/rule"
)

// removeHopByHop removes the fields that Connection names, and those that it should have named. RFC 9110 §7.6.1: "Intermediaries MUST parse a
// received Connection header field before a message is forwarded and, for each connection-option in this field, remove any header or trailer
// field(s) from the message with the same name as the connection-option".
func removeHopByHop(h http.Header) {
	for _, field := range h["Connection"] {
		for name := range strings.SplitSeq(field, ",") {
			if name = strings.Trim(name, " \t"); name != "" {
				delete(h, textproto.CanonicalMIMEHeaderKey(name))
			}
		}
	}
	for _, name := range rule.HopByHop {
		delete(h, name)
	}
}

// cleanRequestHeader leaves in h what may go to an upstream: nothing hop-by-hop, nothing meant for us, and nothing that an application would take for
// our own word. Whatever is set afterwards cannot be removed by the client's Connection field, nor doubled by an alias.
func cleanRequestHeader(h http.Header, trusted bool) {
	removeHopByHop(h)
	for _, name := range []string{"Host", "Content-Length", "Proxy-Authorization", "Forwarded"} {
		delete(h, name)
	}
	for name := range h {
		if isAlias(name) || !trusted && isProxyField(name) {
			delete(h, name)
		}
	}
}

// isAlias reports whether an application that turns names into variables (CGI, WSGI, PHP) could take the field for another one: most see X_Forwarded_For
// and X-Forwarded-For as the same, some turn whatever is neither letter nor digit into an underscore.
func isAlias(name string) bool {
	odd := false
	for i := range len(name) {
		switch c := name[i]; {
		case c == '_':
			return true
		case rule.FoldVariable(c) == '-' && c != '-':
			odd = true
		}
	}
	if !odd {
		return false
	}
	plain := []byte(name)
	for i, c := range plain {
		plain[i] = rule.FoldVariable(c)
	}
	usual := textproto.CanonicalMIMEHeaderKey(string(plain))
	return isProxyField(usual) || ownsRequestField(usual)
}

// isProxyField reports whether only a proxy has a reason to send the field.
func isProxyField(name string) bool {
	switch name {
	case "X-Real-Ip", "X-Request-Id", clientCertField, clientCertChainField:
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-")
}

// cleanResponseHeader leaves in h what may go to the client. Alt-Svc speaks of the upstream's own ports.
func cleanResponseHeader(h http.Header) {
	removeHopByHop(h)
	delete(h, "Alt-Svc")
}

// mayTrail reports whether a field may stand in a trailer. RFC 9110 §6.5.1 excludes what is needed for framing, routing, authentication, request
// modifiers, response control and payload processing; what this proxy owns must not come in by the back door either. The engines hand us names that are none, as they
// came: http.Transport refuses a request that announces one, and a stream of HTTP/2 whose trailers have nothing else would never end.
func mayTrail(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
		"Content-Length", "Content-Encoding", "Content-Type", "Content-Range", "Host", "Forwarded",
		"Authorization", "Proxy-Authorization", "Proxy-Authenticate", "Www-Authenticate", "Cookie", "Set-Cookie",
		"Cache-Control", "Expect", "Max-Forwards", "Pragma", "Range", "Age", "Expires", "Date", "Location", "Retry-After", "Vary", "Warning":
		return false
	}
	return isToken([]byte(name)) && !isAlias(name) && !isProxyField(name) && !strings.HasPrefix(name, "If-")
}

// hasToken reports whether a list field contains the token, in whatever case.
func hasToken(fields []string, token string) bool {
	for _, field := range fields {
		for item := range strings.SplitSeq(field, ",") {
			if strings.EqualFold(strings.Trim(item, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// noValue under User-Agent, Content-Type or Date keeps net/http from inventing one.
var noValue []string
