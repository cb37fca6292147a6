package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"gatelodge/proxy/rule"
)

// Redirect answers with another address.
type Redirect struct {
	// To is a path or an http or https URL. {path} is the path of the request, {rest} what is of it behind the pattern that matched, without the slash
	// between, {host} the host of the request. The request's query is added unless To has one of its own. In a query the values are escaped.
	To string

	// Status is 301, 302, 303, 307 or 308; zero means 302.
	Status int
}

// Response is an answer that is always the same.
type Response struct {
	Status int    // 200 to 599
	Body   string // plain text; empty means that of our own answers, with the request id
}

// action is what a way does with a request instead of sending it to an upstream as it is. The zero action does nothing else.
type action struct {
	strip    string        // canonical prefix of the path that does not go on
	rewrite  rule.Template // the path that goes on instead; nil without
	redirect rule.Template // nil without
	query    bool          // redirect has a query of its own
	status   int           // of redirect
	files    string        // a folder
	fallback string        // a file in it; empty for none
	respond  *Response
}

// newAction checks what a route does.
func newAction(r *Route, m *rule.Matcher) (action, error) {
	var a action
	var errs []error
	given := 0
	for _, is := range []bool{r.Upstream != nil, r.Redirect != nil, r.Files != "", r.Respond != nil} {
		if is {
			given++
		}
	}
	if given > 1 {
		errs = append(errs, errors.New("more than one of upstream, redirect, files and respond"))
	}
	a.files, a.fallback, a.respond = r.Files, r.Fallback, r.Respond
	if r.Fallback != "" && (r.Files == "" || !filepath.IsLocal(r.Fallback)) {
		errs = append(errs, fmt.Errorf("fallback %q: it is a file below the folder of files", r.Fallback))
	}
	if (r.Strip != "" || r.Rewrite != "") && (r.Redirect != nil || r.Files != "" || r.Respond != nil) {
		errs = append(errs, errors.New("strip and rewrite are for what goes to an upstream"))
	}
	if r.Strip != "" && r.Rewrite != "" {
		errs = append(errs, errors.New("both strip and rewrite"))
	}
	var err error
	if r.Strip != "" {
		a.strip, err = rule.ParseStrip(r.Strip, m)
		errs = append(errs, err)
	}
	if r.Rewrite != "" {
		a.rewrite, err = rule.ParseRewrite(r.Rewrite)
		errs = append(errs, err)
	}
	if r.Redirect != nil {
		a.redirect, a.query, err = rule.ParseRedirect(r.Redirect.To)
		a.status = r.Redirect.Status
		orDefault(&a.status, http.StatusFound)
		errs = append(errs, err, rule.CheckRedirectStatus(r.Redirect.Status))
	}
	if r.Respond != nil && (r.Respond.Status < 200 || r.Respond.Status > 599) {
		errs = append(errs, fmt.Errorf("status %d: an answer has one from 200 to 599", r.Respond.Status))
	}
	return a, errors.Join(errs...)
}

// act does with the request what its route says.
func (x *exchange) act() {
	switch a := x.action(); {
	case a == nil:
		x.forward()
	case a.redirect != nil:
		x.redirect(a)
	case a.files != "":
		x.serveFiles(a)
	case a.respond != nil:
		x.fixed(a.respond)
	case x.nowhere():
		x.refuse(x.lost())
	default:
		x.forward()
	}
}

// lost is why there is no upstream.
func (x *exchange) lost() *fault {
	if x.site.OnDemand && x.state.Customers != nil {
		return &fault{http.StatusServiceUnavailable, "nobody says where the requests for this name go"}
	}
	return &fault{http.StatusNotFound, "no route takes the request"}
}

// nowhere reports whether there is no upstream for the request.
func (x *exchange) nowhere() bool { return x.upstreamTo() == nil }

// nothing is the action of requests that no route takes.
var nothing action

// action is what the request's route does; nil where there is nothing to do but to forward.
func (x *exchange) action() *action {
	switch {
	case x.way != nil:
		return &x.way.action
	case x.site.Upstream == nil:
		return &nothing
	}
	return nil
}

// redirect sends the client elsewhere.
func (x *exchange) redirect(a *action) {
	var b strings.Builder
	inQuery := false
	for _, p := range a.redirect {
		inQuery = inQuery || strings.ContainsAny(p.Text, "?#")
		switch value := x.placed(p.Name); {
		case p.Name == "":
			b.WriteString(p.Text)
		case inQuery:
			b.WriteString(url.QueryEscape(value))
		default:
			b.WriteString(value)
		}
	}
	location := localOnce(b.String())
	if !a.query && x.r.URL.RawQuery != "" {
		location += "?" + x.r.URL.RawQuery
	}
	x.out.Header()["Location"] = []string{location}
	x.answer(a.status)
}

// localOnce makes one of several slashes at the beginning: two begin a host, which would be the client's to choose.
func localOnce(location string) string {
	if strings.HasPrefix(location, "//") {
		return "/" + strings.TrimLeft(location, "/")
	}
	return location
}

// placed is the value of a placeholder.
func (x *exchange) placed(name string) string {
	switch name {
	case "path":
		return x.path
	case "rest":
		return x.rest()
	case "host":
		if strings.IndexByte(x.host, ':') >= 0 {
			return "[" + x.host + "]"
		}
		return x.host
	}
	return ""
}

// rest is the canonical path behind the pattern that matched, without the slash between.
func (x *exchange) rest() string {
	if x.matched != nil {
		return x.matched.Rest(x.path)
	}
	return strings.TrimPrefix(x.path, "/")
}

// fixed answers what is always the same.
func (x *exchange) fixed(r *Response) {
	if r.Body == "" {
		x.answer(r.Status)
		return
	}
	x.out.Header()["Content-Type"] = []string{"text/plain; charset=utf-8"}
	x.out.WriteHeader(r.Status)
	_, _ = io.WriteString(x.out, r.Body)
}

// outgoingPath is the path for the upstream: the one that was decided by, as the route changes it, else what the client wrote.
func (x *exchange) outgoingPath() string {
	switch {
	case x.path == "":
		return pathOf(x.r.RequestURI)
	case x.way == nil:
	case x.way.action.strip != "":
		if rest := x.path[len(x.way.action.strip):]; rest != "" {
			return rest
		}
		return "/"
	case x.way.action.rewrite != nil:
		return x.way.action.rewrite.Expand(x.placed)
	}
	return x.path
}
