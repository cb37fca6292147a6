package policy

import (
	"io"
	"net/http"
	"net/netip"
	"strconv"
)

// Refuse answers a request that goes no further with the status. Why is for the log, and never for the client. Fields that the policy has set in
// w.Header() stay. Nil in a Config means an answer of one line.
type Refuse func(w http.ResponseWriter, r *http.Request, status int, why string)

// ClientAddr returns the address of whoever asks: the peer's, or what a trusted proxy says. It is never an IPv4 address within IPv6, and the zero Addr for
// peers that have none, such as those on unix sockets.
type ClientAddr func(r *http.Request) netip.Addr

func (f Refuse) orPlain() Refuse {
	if f != nil {
		return f
	}
	return func(w http.ResponseWriter, _ *http.Request, status int, _ string) {
		h := w.Header()
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, strconv.Itoa(status)+" "+http.StatusText(status)+"\n")
	}
}
