package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"

	"gatelodge/proxy/rule"
)

// Route is what a site does with some of its requests.
type Route struct {
	// Match says which; the first route that matches has the request.
	Match rule.Match

	// Wrap puts policies around what is done with the requests: rate limits, authentication, compression. See Site.Wrap.
	Wrap func(http.Handler) http.Handler

	// BodyBytes bounds a request body; zero means that of the site.
	BodyBytes int64

	// What is done with the requests is one of Upstream, Redirect, Files and Respond; the zero Route sends them to the site's own upstream.
	Upstream http.RoundTripper
	Redirect *Redirect
	Respond  *Response

	// Files is a folder. The file is what {rest} names (see Redirect.To) below it; for a path without "/*" its last segment. See serveFiles.
	Files string

	// Fallback is the file of the folder that stands in for those that are not there, as an application in the browser wants it; empty for none.
	Fallback string

	// Strip is what the path loses at its beginning on the way to the upstream, which learns it from X-Forwarded-Prefix. All paths of Match begin with it.
	Strip string

	// Headers changes fields of requests and answers, after those of the site; nil for none.
	Headers *Headers

	// Rewrite is the path for the upstream, with {path} and {rest} as in Redirect.To. The query stays.
	Rewrite string
}

// plan is how requests go within a site. The zero plan is straight to its upstream.
type plan struct {
	ways  []way
	wrap  http.Handler // Site.Wrap around the ways; nil without
	edits *edits
}

// way is a Route that is ready.
type way struct {
	route  *Route
	match  rule.Matcher
	action action
	edits  *edits
	wrap   http.Handler // Route.Wrap around the action; nil without
}

// newPlan makes the routes of a site ready, and asks for its policies.
func newPlan(s *Site) (plan, error) {
	var p plan
	var errs []error
	for i := range s.Routes {
		w, err := newWay(&s.Routes[i])
		if err != nil {
			errs = append(errs, fmt.Errorf("site %q: route %d: %w", s.Name, i+1, err))
		}
		p.ways = append(p.ways, w)
	}
	var err error
	if p.edits, err = newEdits(s.Headers); err != nil {
		errs = append(errs, fmt.Errorf("site %q: %w", s.Name, err))
	}
	if s.Wrap != nil {
		p.wrap = s.Wrap(http.HandlerFunc(serveWay))
	}
	return p, errors.Join(errs...)
}

func newWay(r *Route) (way, error) {
	w := way{route: r}
	var err1, err2, err3 error
	w.match, err1 = rule.NewMatcher(r.Match)
	w.action, err2 = newAction(r, &w.match)
	w.edits, err3 = newEdits(r.Headers)
	if r.Wrap != nil {
		w.wrap = r.Wrap(http.HandlerFunc(serveAction))
	}
	return w, errors.Join(err1, err2, err3)
}

// within brings a request to the action of its site or route, through the policies of both.
func (x *exchange) within(p *plan) {
	if len(p.ways) > 0 {
		if f := x.choose(p); f != nil {
			x.refuse(f)
			return
		}
	}
	x.edits[0] = p.edits
	if x.way != nil {
		x.edits[1] = x.way.edits
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
		x.way, x.matched = p.find(rule.Reading{Path: path}, x.r.Method)
		return nil
	}
	path, odd, err := rule.Canonical(path)
	if err != nil {
		return badPath(err.Error())
	}
	x.path = path
	x.way, x.matched = p.find(rule.Reading{Path: path}, x.r.Method)
	if odd {
		for _, r := range rule.Readings(path) {
			if w, _ := p.find(r, x.r.Method); w != x.way {
				return badPath("it may be that of another route")
			}
		}
	}
	return nil
}

// find returns the first way that takes the path, and the pattern by which it does; nil if there is none.
func (p *plan) find(r rule.Reading, method string) (*way, *rule.Pattern) {
	for i := range p.ways {
		if by, ok := p.ways[i].match.Takes(r, method); ok {
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

// upstreamTo is where the request goes: what its route says, else what was said about its host, else the site's own. Nil if nowhere.
func (x *exchange) upstreamTo() http.RoundTripper {
	if x.way != nil && x.way.route.Upstream != nil {
		return x.way.route.Upstream
	}
	if u := x.customerUpstream(); u != nil {
		return u
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

func badPath(why string) *fault {
	return &fault{http.StatusBadRequest, "path that servers read in different ways: " + why}
}

func bodyBeyond(length int64) *fault {
	return &fault{http.StatusRequestEntityTooLarge, "body of " + strconv.FormatInt(length, 10) + " bytes"}
}

// CheckRoute reports all that is wrong with a route. It does not call its Wrap.
func CheckRoute(r Route) error {
	r.Wrap = nil
	_, err := newWay(&r)
	return err
}
