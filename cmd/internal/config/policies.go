package config

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Policies are what a site or a route asks of its requests, and does to its answers.
type Policies struct {
	Limit       RouteLimit
	Allow, Deny []netip.Prefix
	Auth        Auth
	Compress    []string
}

func (s *Site) policies() Policies {
	return Policies{Limit: s.Limit, Allow: s.Allow, Deny: s.Deny, Auth: s.Auth, Compress: s.Compress}
}

func (r *Route) policies() Policies {
	return Policies{Limit: r.Limit, Allow: r.Allow, Deny: r.Deny, Auth: r.Auth}
}

// policies checks those of a site or a route, whose table src is.
func (v *validator) policies(p *Policies, src *source) {
	limit := src.key("limit")
	if p.Limit.Rate.Count == 0 && (p.Limit.Burst > 0 || p.Limit.Key != "") {
		v.fault(limit.key("rate"), `write rate = "100/s"`, "a limit without a rate limits nothing")
	}
	if header, ok := strings.CutPrefix(p.Limit.Key, "header:"); p.Limit.Key != "" && p.Limit.Key != "ip" && (!ok || !isFieldName(header)) {
		v.fault(limit.key("key"), `write "ip" or "header:X-Api-Key"`, "%q tells nobody apart", clip(p.Limit.Key))
	}
	v.auth(&p.Auth, src.key("auth"))
	for i, coding := range p.Compress {
		if slices.Contains(p.Compress[:i], coding) {
			v.fault(src.key("compress").elem(i), "leave it out", "%q is there twice", coding)
		}
	}
}

func (v *validator) auth(a *Auth, src *source) {
	if a.Forward == "" && !a.Basic() {
		for key, set := range map[string]bool{
			"copy": len(a.Copy) > 0, "timeout": a.Timeout != 0, "realm": a.Realm != "", "keep_credentials": a.KeepCredentials,
		} {
			if set {
				v.fault(src.key(key), "add forward, users or users_file", "nobody decides who may ask")
			}
		}
		return
	}
	if a.Forward != "" && a.Basic() {
		v.fault(src.key("forward"), "leave one of them out", "either another server decides or the users here")
	}
	if a.Forward != "" {
		u, err := url.Parse(a.Forward)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
			v.fault(src.key("forward"), `write "http://127.0.0.1:9091/verify"`, "%q is no http:// or https:// URL", withoutQuery(a.Forward))
		}
	}
	for i, name := range a.Copy {
		if !isFieldName(name) {
			v.fault(src.key("copy").elem(i), `write "Remote-User"`, "%q is no name of a header, of letters, digits and -", clip(name))
		}
	}
	if strings.ContainsFunc(a.Realm, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		v.fault(src.key("realm"), `write realm = "Staff"`, "a realm is ASCII without quotation marks")
	}
}

// isFieldName reports whether the name is one that this proxy lets through to applications: names with an underscore are taken for aliases.
func isFieldName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-')
	})
}

func (v *validator) trace() {
	t, src := &v.c.Trace, v.c.src.key("trace")
	if u, err := url.Parse(t.OTLP); t.OTLP != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil) {
		v.fault(src.key("otlp"), `write "http://127.0.0.1:4318"`, "%q is no http:// or https:// URL", withoutQuery(t.OTLP))
	}
	if !(t.Sample >= 0 && t.Sample <= 1) {
		v.fault(src.key("sample"), "write a number from 0 to 1", "%v is no part of the requests", t.Sample)
	}
}
