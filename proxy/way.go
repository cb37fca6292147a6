package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
)

// Route is what a site does with some of its requests.
type Route struct {
	// Match says which; the first route that matches has the request.
	Match Match

	// Wrap puts policies around what is done with the requests: rate limits, authentication, compression. See Site.Wrap.
	Wrap func(http.Handler) http.Handler

	// BodyBytes bounds a request body; zero means that of the site.
	BodyBytes int64

	// Upstream is where requests go; nil means the site's own.
	Upstream http.RoundTripper
}

// plan is how requests go within a site. The zero plan is straight to its upstream.
type plan struct {
	ways []way
	wrap http.Handler // Site.Wrap around the ways; nil without
}

// way is a Route that is ready.
type way struct {
	route *Route
	match matcher
	wrap  http.Handler // Route.Wrap around the action; nil without
}

// newPlan makes the routes of a site ready, and asks for its policies.
func newPlan(s *Site) (plan, error) {
	var p plan
	var errs []error
	for i := range s.Routes {
		route := &s.Routes[i]
		m, err := newMatcher(route.Match)
		if err != nil {
			errs = append(errs, fmt.Errorf("site %q: route %d: %w", s.Name, i+1, err))
		}
		w := way{route: route, match: m}
		if route.Wrap != nil {
			w.wrap = route.Wrap(http.HandlerFunc(serveAction))
		}
		p.ways = append(p.ways, w)
	}
	if s.Wrap != nil {
		p.wrap = s.Wrap(http.HandlerFunc(serveWay))
	}
	return p, errors.Join(errs...)
}

// within brings a request to the action of its site or route, through the policies of both.
func (x *exchange) within(p *plan) {
	if len(p.ways) > 0 {
		if f := x.choose(p); f != nil {
			x.refuse(f)
			return
		}
	}
	if limit := x.bodyLimit(); limit > 0 && x.r.ContentLength > limit {
		x.refuse(bodyBeyond(x.r.ContentLength))
		return
	}
	switch {
	case p.wrap != nil:
		p.wrap.ServeHTTP(x, x.wrapped())
	case x.way != nil && x.way.wrap != nil:
		x.way.wrap.ServeHTTP(x, x.wrapped())
	default:
		x.act()
	}
}

// choose finds the first route that takes the request. It decides by the canonical path, which is then the request's path. Where another server would read that path
// as one that another route has, the request is refused: whoever wrote the routes meant to decide, and the upstream would read it its own way.
func (x *exchange) choose(p *plan) *fault {
	path := pathOf(x.r.RequestURI)
	if path == "*" {
		x.way, x.matched = p.find(reading{path: path}, x.r.Method)
		return nil
	}
	path, odd, f := canonicalPath(path)
	if f != nil {
		return f
	}
	x.path = path
	x.way, x.matched = p.find(reading{path: path}, x.r.Method)
	if odd {
		for _, r := range readings(path) {
			if w, _ := p.find(r, x.r.Method); w != x.way {
				return badPath("it may be that of another route")
			}
		}
	}
	return nil
}

// find returns the first way that takes the path, and the pattern by which it does; nil if there is none.
func (p *plan) find(r reading, method string) (*way, *pattern) {
	for i := range p.ways {
		if by, ok := p.ways[i].match.takes(r, method); ok {
			return &p.ways[i], by
		}
	}
	return nil, nil
}

// wrapped is the request as policies see it: with the path that was decided by, without what was hop-by-hop or only a proxy may say, and with the exchange in
// its context.
func (x *exchange) wrapped() *http.Request {
	x.clean()
	r := x.r.WithContext(context.WithValue(x.r.Context(), exchangeKey{}, x))
	if x.path != "" && x.path != pathOf(r.RequestURI) {
		u := *r.URL
		u.Path, _ = url.PathUnescape(x.path) // canonical
		u.RawPath = x.path
		r.URL = &u
		r.RequestURI = x.path
		if u.RawQuery != "" || u.ForceQuery {
			r.RequestURI += "?" + u.RawQuery
		}
	}
	return r
}

// serveWay is what a site's policies are around.
func serveWay(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	if x.way != nil && x.way.wrap != nil {
		x.way.wrap.ServeHTTP(w, r)
		return
	}
	serveAction(w, r)
}

// serveAction is what a route's policies are around. They may have changed the header and the body of the request, and who the answer is written to.
func serveAction(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	x.out = w
	x.r.Header, x.r.Body = r.Header, r.Body // r itself is a copy, which learns nothing of trailers that come later
	x.ctx = r.Context()
	x.act()
}

// act does with the request what its route says.
func (x *exchange) act() {
	if x.upstreamTo() == nil {
		x.refuse(&fault{http.StatusNotFound, "no route takes the request"})
		return
	}
	x.forward()
}

// upstreamTo is where the request goes; nil if nowhere.
func (x *exchange) upstreamTo() http.RoundTripper {
	if x.way != nil && x.way.route.Upstream != nil {
		return x.way.route.Upstream
	}
	return x.site.Upstream
}

// exchangeOf returns the exchange of a request that a policy got. It panics if the policy made up a request of its own.
func exchangeOf(r *http.Request) *exchange { return r.Context().Value(exchangeKey{}).(*exchange) }

// ClientOf returns the address of the client who asks, by the word of trusted proxies where there are any. r is a request that a Wrap got, or one made of it
// by WithContext or Clone. The zero Addr is a client on a unix socket.
func ClientOf(r *http.Request) netip.Addr { return exchangeOf(r).client }

// RequestID returns the id of the request, by which its upstream and the logs know it. See ClientOf about r.
func RequestID(r *http.Request) string { return exchangeOf(r).id }

// HostOf returns the canonical host that is asked for (hostname.Normalize), without port. See ClientOf about r.
func HostOf(r *http.Request) string { return exchangeOf(r).host }

// HeaderFor returns a new header for a question about the request: its own as an upstream gets it, and X-Forwarded-For, -Proto and -Host, X-Request-Id and the
// client's certificate in our own words. See ClientOf about r.
func HeaderFor(r *http.Request) http.Header {
	x := exchangeOf(r)
	h := r.Header.Clone()
	x.setForwarded(h)
	x.setClientCert(h)
	return h
}

// Refuse answers a request that a policy does not let through as this proxy answers all those: the status, its name and the request id. Fields that the policy
// has set in w.Header(), such as Retry-After, go with it. why is for the access log; it is never shown to the client. See ClientOf about r.
func Refuse(w http.ResponseWriter, r *http.Request, status int, why string) {
	x := exchangeOf(r)
	x.out = w
	x.refuse(&fault{status, why})
}

func bodyBeyond(length int64) *fault {
	return &fault{http.StatusRequestEntityTooLarge, "body of " + strconv.FormatInt(length, 10) + " bytes"}
}
