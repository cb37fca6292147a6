package proxy

import (
	"net/http"
	"strconv"
	"strings"
)

// route finds the site of the request and sends it there.
func (x *exchange) route() {
	site, ok := x.state.table.Site(x.host)
	// RFC 9110 §7.4: a request for another site than the one that the handshake chose got past that site's TLS policy. RFC 9110 §15.5.20 makes the
	// client try again on a connection of its own.
	if !ok || x.conn.version != 0 && site.Name != x.conn.site {
		x.refuse(&fault{http.StatusMisdirectedRequest, "the connection is not for this host"})
		return
	}
	x.site = site
	if limit := x.srv.bodyLimit(site); limit > 0 && x.r.ContentLength > limit {
		x.refuse(&fault{http.StatusRequestEntityTooLarge, "body of " + strconv.FormatInt(x.r.ContentLength, 10) + " bytes"})
		return
	}
	x.forward()
}

// servePlain serves a request that came without TLS and is no CA's challenge.
func (s *Server) servePlain(_ http.ResponseWriter, r *http.Request) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	if !x.state.RedirectHTTP {
		x.route()
		return
	}
	site, ok := x.state.table.Site(x.host)
	if !ok { // never send anybody to a host that is not ours
		x.refuse(&fault{http.StatusMisdirectedRequest, "no site has this host"})
		return
	}
	x.site = site
	x.Header()["Location"] = []string{x.secureURL()}
	x.answer(http.StatusPermanentRedirect)
}

// secureURL is where a plain request should have gone: the same host, which was checked, and the same path and query, byte by byte.
func (x *exchange) secureURL() string {
	var b strings.Builder
	b.WriteString("https://")
	if strings.IndexByte(x.host, ':') >= 0 {
		b.WriteString("[" + x.host + "]")
	} else {
		b.WriteString(x.host)
	}
	if p := x.state.HTTPSPort; p != 0 && p != 443 {
		b.WriteString(":" + strconv.Itoa(p))
	}
	if path := pathOf(x.r.RequestURI); path != "*" {
		b.WriteString(path)
	}
	if x.r.URL.RawQuery != "" || x.r.URL.ForceQuery {
		b.WriteString("?" + x.r.URL.RawQuery)
	}
	return b.String()
}
