package proxy

import (
	"crypto/x509"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"gatelodge/proxy/hostname"
)

// route finds the site of the request and sends it there.
func (x *exchange) route() {
	i, ok := x.state.table.hosts.Lookup(x.host)
	// RFC 9110 §7.4: a request for another site than the one that the handshake chose got past that site's TLS policy. RFC 9110 §15.5.20 makes the
	// client try again on a connection of its own.
	if !ok || x.conn.version != 0 && !x.belongs(i) {
		x.refuse(&fault{http.StatusMisdirectedRequest, "the connection is not for this host"})
		return
	}
	x.site, x.door = &x.state.Sites[i], &x.state.doors[i]
	x.within(&x.state.plans[i])
}

// belongs reports whether the connection may carry a request for x.host, which is site i's. The handshake chose the site, and it met what the site asks of its
// clients now. Within the site a name that was permitted for itself alone, because only "*" covers it or because it is served on demand, needs a
// connection of its own, or one whose certificate covers it as well: nobody asked whether it may be served when the handshake was for another.
func (x *exchange) belongs(i int) bool {
	c, site := x.conn, &x.state.Sites[i]
	if c.binding != x.state.doors[i].binding {
		if c.site == site.Name { // the site asks for more than when the client came in: let it come again
			x.lastRequest()
		}
		return false
	}
	return x.host == c.name || site.lists(x.host) || c.showed(x.host)
}

// lastRequest ends the connection when the requests under way are done.
func (x *exchange) lastRequest() {
	if h := x.conn.h3; h != nil {
		h.engine.own.Go(h.retire)
		return
	}
	x.Header()["Connection"] = closeValue // for HTTP/2 net/http makes it a GOAWAY
}

// lists reports whether the host is the site's by what the operator wrote down, and not by somebody's permission.
func (s *Site) lists(host string) bool {
	if slices.Contains(s.Hosts, host) {
		return true
	}
	w, ok := hostname.Wildcard(host)
	return ok && !s.OnDemand && slices.Contains(s.Hosts, w)
}

// showed reports whether the certificate of the handshake covers the host. After a resumption there is none, and the client has to open another
// connection.
func (c *conn) showed(host string) bool {
	if c.cert == nil || len(c.cert.Certificate) == 0 {
		return false
	}
	leaf := c.cert.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(c.cert.Certificate[0]); err != nil {
			return false
		}
	}
	return leaf.VerifyHostname(host) == nil
}

// servePlain serves a request that came without TLS and is no CA's challenge.
func (s *Server) servePlain(_ http.ResponseWriter, r *http.Request) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	site, ok := x.state.table.Site(x.host)
	if !x.state.RedirectHTTP && (!ok || !site.needsTLS()) {
		x.route()
		return
	}
	if !ok { // never send anybody to a host that is not ours
		x.refuse(&fault{http.StatusMisdirectedRequest, "no site has this host"})
		return
	}
	x.site = site
	x.Header()["Location"] = []string{x.secureURL()}
	x.answer(http.StatusPermanentRedirect)
}

// needsTLS reports whether the site cannot be served without TLS, whatever Settings.RedirectHTTP says.
func (s *Site) needsTLS() bool { return s.ClientAuth != "" || s.Passthrough != nil }

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
