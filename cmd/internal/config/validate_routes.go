package config

import (
	"net/textproto"
	"path/filepath"
	"slices"
	"strings"

	"gatelodge/proxy/rule"
)

// routes checks the routes of a site.
func (v *validator) routes(s *Site, src *source) {
	for i := range s.Routes {
		r, at := &s.Routes[i], src.key("route").elem(i)
		m := v.match(r, at.key("match"))
		v.action(s, r, at)
		v.rewriting(r, m, at)
		v.headers(&r.Headers, at.key("headers"), s.OnDemand)
		p := r.policies()
		v.policies(&p, at)
		for k := range i {
			before := src.key("route").elem(k)
			if unread(at.key("match")) || unread(before.key("match")) {
				continue // what it would have said is not known
			}
			if s.Routes[k].Match.rule().Covers(r.Match.rule()) {
				v.fault(at.key("match"), "move it in front of that one, or leave it out", "no request gets to this route: the one at %s takes them all", before.place())
				break
			}
		}
	}
}

// unread reports whether a part of the match was written in a way that could not be read, which was reported.
func unread(match *source) bool {
	return match.slipped() || match.key("path").slipped() || match.key("methods").slipped()
}

func (m *Match) rule() rule.Match { return rule.Match{Paths: m.Path, Methods: m.Methods} }

// match returns nil if the rule has a fault, which it reports.
func (v *validator) match(r *Route, at *source) *rule.Matcher {
	good := true
	for i, p := range r.Match.Path {
		if err := rule.CheckPattern(p); err != nil {
			good = false
			v.fault(at.key("path").elem(i), `write "/api/*" for /api and all below, "/api" for it alone, "/*" for all`, "%v", err)
		}
	}
	for i, method := range r.Match.Methods {
		if err := rule.CheckMethod(method); err != nil {
			good = false
			v.fault(at.key("methods").elem(i), `write "GET" or "POST"`, "%v", err)
		} else if method != strings.ToUpper(method) {
			v.warn(at.key("methods").elem(i), `write "`+strings.ToUpper(method)+`"`, "methods differ by upper and lower case, and no usual one has lower case")
		}
	}
	if m, err := rule.NewMatcher(r.Match.rule()); err == nil && good {
		return &m
	}
	return nil
}

// action checks that a route does one thing.
func (v *validator) action(s *Site, r *Route, at *source) {
	var given []string
	for _, a := range []struct {
		key   string
		given bool
	}{{"to", r.To != Target{}}, {"redirect", r.Redirect != Redirect{}}, {"files", r.Files != ""}, {"respond", r.Respond != Respond{}}} {
		if a.given {
			given = append(given, a.key)
		}
	}
	switch {
	case len(given) > 1:
		v.fault(at.key(given[1]), "leave one of them out, or make two routes", "a route does one thing: `%s` and `%s` are two", given[0], given[1])
	case len(given) == 0 && (s.To == Target{}) && !s.OnDemand:
		v.fault(at, "add to, redirect, files or respond", "the route does nothing, and the [[site]] has no `to`")
	}
	for key, given := range map[string]bool{"redirect": r.Redirect != Redirect{}, "files": r.Files != "", "respond": r.Respond != Respond{}} {
		if empty := at.key(key); !given && at.has(empty.at) {
			v.fault(empty, "leave it out, or say what it does", "`%s` is empty", key)
		}
	}
	if r.Fallback != "" && (r.Files == "" || !filepath.IsLocal(r.Fallback)) {
		v.fault(at.key("fallback"), `write fallback = "index.html" beside files`, "a fallback is a file below the folder of `files`")
	}
	v.namedUpstream(r.To, at.key("to"))
	if slices.Contains(given, "redirect") {
		if _, _, err := rule.ParseRedirect(r.Redirect.To); err != nil {
			v.fault(at.key("redirect").key("to"), `write "https://example.com/new/{rest}"`, "%v", err)
		}
		if err := rule.CheckRedirectStatus(r.Redirect.Status); err != nil {
			v.fault(at.key("redirect").key("status"), "", "%v", err)
		}
	}
	if n := r.Respond.Status; slices.Contains(given, "respond") && (n < 200 || n > 599) {
		v.fault(at.key("respond").key("status"), "write status = 404", "an answer has a status from 200 to 599, not %d", n)
	}
}

// rewriting checks how the path changes on its way; m is nil if that cannot be known.
func (v *validator) rewriting(r *Route, m *rule.Matcher, at *source) {
	elsewhere := r.Redirect != Redirect{} || r.Files != "" || r.Respond != Respond{}
	if r.Strip != "" && m != nil {
		if _, err := rule.ParseStrip(r.Strip, m); err != nil {
			v.fault(at.key("strip"), `write strip = "/api" with match = { path = ["/api/*"] }`, "%v", err)
		}
	}
	if r.Rewrite != "" {
		if _, err := rule.ParseRewrite(r.Rewrite); err != nil {
			v.fault(at.key("rewrite"), `write "/new/{rest}"`, "%v", err)
		}
	}
	switch {
	case r.Strip != "" && r.Rewrite != "":
		v.fault(at.key("rewrite"), "leave one of them out", "both strip and rewrite change the path")
	case r.Strip != "" && elsewhere:
		v.fault(at.key("strip"), "leave it out", "only what goes to an upstream has a path to change")
	case r.Rewrite != "" && elsewhere:
		v.fault(at.key("rewrite"), "leave it out", "only what goes to an upstream has a path to change")
	}
}

// headers checks changes of headers, whose table src is.
func (v *validator) headers(h *Headers, src *source, onDemand bool) {
	v.setFields(h.Set, src.key("set"), rule.OwnsRequestField, onDemand)
	v.setFields(h.Response.Set, src.key("response").key("set"), rule.OwnsResponseField, onDemand)
	owned := func(name string) bool { return rule.OwnsRequestField(name) || rule.OwnsResponseField(name) }
	v.removeFields(h.Remove, src.key("remove"), owned)
	v.removeFields(h.Response.Remove, src.key("response").key("remove"), rule.OwnsResponseField)
}

func (v *validator) setFields(fields map[string]string, src *source, owned func(string) bool, onDemand bool) {
	seen := map[string]bool{}
	for _, name := range sortedKeys(fields) {
		at, canonical := src.key(name), textproto.CanonicalMIMEHeaderKey(name)
		if seen[canonical] {
			v.fault(at, "leave one of them out", "header %q is set twice: upper and lower case are the same in names", name)
		}
		seen[canonical] = true
		if _, err := rule.ParseField(name, fields[name], owned); err != nil {
			v.fault(at, "", "%v", err)
		} else if strings.Contains(fields[name], "{ask.tenant}") && !onDemand {
			v.warn(at, "write on_demand = true, or leave it out", "nobody says whose this site's names are: the field will not be there")
		}
	}
}

func (v *validator) removeFields(names []string, src *source, owned func(string) bool) {
	for i, name := range names {
		if err := rule.CheckFieldName(name, owned); err != nil {
			v.fault(src.elem(i), "", "%v", err)
		}
	}
}
