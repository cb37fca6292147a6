package proxy

import (
	"crypto/rand"
	"net/http"
)

// identify decides who asks and under which id. What the client says counts only if the peer is a trusted proxy.
func (x *exchange) identify() {
	x.peer = x.conn.client()
	x.client = x.peer
	if len(x.state.TrustedProxies) > 0 {
		x.trusted = x.state.trusts(x.peer)
	}
	if x.trusted {
		x.client = x.state.clientOf(x.peer, x.r.Header["X-Forwarded-For"])
		x.id = givenID(x.r.Header)
	}
	if x.id == "" {
		x.id = rand.Text() // 128 bits in 26 letters
	}
}

// givenID returns the X-Request-Id of a trusted proxy if it is fit for logs and headers: one, of 1 to 128 visible ASCII characters.
func givenID(h http.Header) string {
	v := h["X-Request-Id"]
	if len(v) != 1 || len(v[0]) == 0 || len(v[0]) > 128 {
		return ""
	}
	for _, c := range []byte(v[0]) {
		if c <= ' ' || c > '~' {
			return ""
		}
	}
	return v[0]
}
