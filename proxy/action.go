package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
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
	strip    string   // canonical prefix of the path that does not go on
	rewrite  template // the path that goes on instead; nil without
	redirect template // nil without
	query    bool     // redirect has a query of its own
	status   int      // of redirect
	files    string   // a folder
	respond  *Response
}

// newAction checks what a route does.
func newAction(r *Route, m *matcher) (action, error) {
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
	a.files, a.respond = r.Files, r.Respond
	if (r.Strip != "" || r.Rewrite != "") && (r.Redirect != nil || r.Files != "" || r.Respond != nil) {
		errs = append(errs, errors.New("strip and rewrite are for what goes to an upstream"))
	}
	if r.Strip != "" && r.Rewrite != "" {
		errs = append(errs, errors.New("both strip and rewrite"))
	}
	var err error
	if r.Strip != "" {
		a.strip, err = checkStrip(r.Strip, m)
		errs = append(errs, err)
	}
	if r.Rewrite != "" {
		a.rewrite, err = checkRewrite(r.Rewrite)
		errs = append(errs, err)
	}
	if r.Redirect != nil {
		a.redirect, a.query, err = checkRedirect(r.Redirect)
		a.status = r.Redirect.Status
		orDefault(&a.status, http.StatusFound)
		errs = append(errs, err)
	}
	if r.Respond != nil && (r.Respond.Status < 200 || r.Respond.Status > 599) {
		errs = append(errs, fmt.Errorf("status %d: an answer has one from 200 to 599", r.Respond.Status))
	}
	return a, errors.Join(errs...)
}

// checkStrip takes a prefix that every path of the route has.
func checkStrip(strip string, m *matcher) (string, error) {
	p, err := parsePattern(strings.TrimSuffix(strip, "/") + "/*")
	if err != nil {
		return "", fmt.Errorf("strip: %w", err)
	}
	for i := range m.patterns {
		if !p.covers(&m.patterns[i]) {
			return "", fmt.Errorf("strip: not all paths that match begin with %q", strip)
		}
	}
	if len(m.patterns) == 0 {
		return "", fmt.Errorf("strip: a route without paths takes such that do not begin with %q", strip)
	}
	return p.path, nil
}

func checkRewrite(rewrite string) (template, error) {
	t, err := parseTemplate(rewrite, "path", "rest")
	if err != nil {
		return nil, fmt.Errorf("rewrite: %w", err)
	}
	path := t.expand(func(string) string { return "/x" })
	canonical, _, f := canonicalPath(path)
	switch {
	case !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#"):
		return nil, fmt.Errorf("rewrite: %q is no path; the query of the request stays as it is", rewrite)
	case f != nil:
		return nil, fmt.Errorf("rewrite: %q: %w", rewrite, f)
	case canonical != path:
		return nil, fmt.Errorf("rewrite: %q has characters that must be escaped", rewrite)
	}
	return t, nil
}

// CheckRedirect reports what is wrong with a redirect.
func CheckRedirect(r Redirect) error {
	_, _, err := checkRedirect(&r)
	return err
}

// checkRedirect also reports whether the target has a query. No request can choose another host than the one that is written there: "https://example.com{rest}" would
// let it ("/old/.evil.example").
func checkRedirect(r *Redirect) (t template, query bool, err error) {
	switch r.Status {
	case 0, 301, 302, 303, 307, 308:
	default:
		return nil, false, fmt.Errorf("redirect: status %d: use 301 or 308 for ever, 302, 303 or 307 for now", r.Status)
	}
	if t, err = parseTemplate(r.To, "path", "rest", "host"); err != nil {
		return nil, false, fmt.Errorf("redirect: %w", err)
	}
	for i := range len(r.To) {
		if c := r.To[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"<>\^|`+"`", c) >= 0 {
			return nil, false, fmt.Errorf("redirect: %q has characters that must be escaped", r.To)
		}
	}
	target, err := redirectSample(t, "r")
	other, err2 := redirectSample(t, ".other.test:1")
	switch {
	case err != nil || err2 != nil:
		return nil, false, fmt.Errorf("redirect: %q is neither a path nor a URL", r.To)
	case target.Scheme != other.Scheme || target.Host != other.Host:
		return nil, false, fmt.Errorf("redirect: %q lets requests choose the host; write / before {rest}", r.To)
	case target.Scheme == "" && target.Host == "" && strings.HasPrefix(target.Path, "/"):
	case target.Scheme != "http" && target.Scheme != "https", target.Host == "", target.User != nil:
		return nil, false, fmt.Errorf("redirect: %q is neither a path nor an http or https URL", r.To)
	}
	return t, target.RawQuery != "" || target.ForceQuery || strings.IndexByte(r.To, '#') >= 0, nil
}

func redirectSample(t template, rest string) (*url.URL, error) {
	return url.Parse(t.expand(func(name string) string {
		return map[string]string{"path": "/p", "rest": rest, "host": "host.test"}[name]
	}))
}

// act does with the request what its route says.
func (x *exchange) act() {
	switch a := x.action(); {
	case a == nil:
		x.forward()
	case a.redirect != nil:
		x.redirect(a)
	case a.files != "":
		x.serveFiles(a.files)
	case a.respond != nil:
		x.fixed(a.respond)
	case x.nowhere():
		x.refuse(&fault{http.StatusNotFound, "no route takes the request"})
	default:
		x.forward()
	}
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
		inQuery = inQuery || strings.ContainsAny(p.text, "?#")
		switch value := x.placed(p.name); {
		case p.name == "":
			b.WriteString(p.text)
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
	rest := x.path
	if x.matched != nil {
		rest = rest[len(x.matched.path):]
	}
	return strings.TrimPrefix(rest, "/")
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
		return x.way.action.rewrite.expand(x.placed)
	}
	return x.path
}
