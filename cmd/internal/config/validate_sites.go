package config

import (
	"fmt"
	"slices"
	"strings"

	"gatelodge/proxy/hostname"
)

func (v *validator) upstreams() {
	used := map[string]bool{}
	for i := range v.c.Sites {
		used[v.c.Sites[i].To.Upstream] = true
		for k := range v.c.Sites[i].Routes {
			used[v.c.Sites[i].Routes[k].To.Upstream] = true
		}
	}
	for _, name := range sortedKeys(v.c.Upstreams) {
		u, src := v.c.Upstreams[name], v.c.upstreamSrc(name)
		if len(u.To) == 0 {
			v.fault(src.key("to"), `write to = ["http://127.0.0.1:3000"]`, "[upstream.%s] has no target", clip(name))
		}
		https := false
		for i, t := range u.To {
			https = https || t.Scheme == "https"
			if t.Upstream != "" || t.Scheme == "" {
				v.fault(src.key("to").elem(i), `write "http://127.0.0.1:3000"`, "a target is a URL")
			}
		}
		v.upstream(&u, src)
		v.positive(src.key("timeouts").key("connect"), u.Timeouts.Connect)
		v.positive(src.key("timeouts").key("response_header"), u.Timeouts.ResponseHeader)
		v.positive(src.key("timeouts").key("idle"), u.Timeouts.Idle)
		if !u.TLS.Verify {
			v.warn(src.key("tls").key("verify"), "set roots instead", "certificates of [upstream.%s] are not checked: anybody on the way can answer in its place", name)
		}
		if !https && len(u.To) > 0 && (u.TLS.ServerName != "" || len(u.TLS.Roots) > 0 || u.TLS.Certificate != "") {
			v.warn(src.key("tls"), "use https:// in to", "[upstream.%s.tls] has no effect on targets without https://", name)
		}
		if !used[name] {
			v.warn(src, fmt.Sprintf(`use it by to = "@%s"`, name), "no [[site]] uses [upstream.%s]", clip(name))
		}
	}
}

func (v *validator) sites() {
	if len(v.c.Sites) == 0 {
		v.warn(v.c.src, `add [[site]] with hosts = ["example.com"] and to = "http://127.0.0.1:3000"`, "there is no [[site]]: nothing is served")
	}
	first := map[string]*source{}
	for i := range v.c.Sites {
		s, src := &v.c.Sites[i], v.c.siteSource(i)
		v.hosts(s, src, first)
		if s.Passthrough != "" {
			v.passthrough(s, src)
			continue
		}
		v.siteTarget(s, src.key("to"))
		p := s.policies()
		v.policies(&p, src)
		v.headers(&s.Headers, src.key("headers"), s.OnDemand)
		v.routes(s, src)
		v.siteCertificate(s, src)
		if _, ok := v.c.ClientAuth[s.ClientAuth]; s.ClientAuth != "" && !ok {
			v.fault(src.key("client_auth"), didYouMean(s.ClientAuth, sortedKeys(v.c.ClientAuth)...), "there is no [client_auth.%s]", clip(s.ClientAuth))
		}
		if s.OnDemand && !v.c.OnDemand.Enabled && !v.unread[v.c.src.key("on_demand").key("enabled").place()] {
			v.fault(src.key("on_demand"), "write [on_demand] with enabled = true and ask or names_file", "on-demand certificates are off")
		}
		v.siteCAs(s, src)
	}
}

// hosts finds duplicates over all sites and files; hosts are in canonical spelling already.
func (v *validator) hosts(s *Site, src *source, first map[string]*source) {
	if len(s.Hosts) == 0 {
		v.fault(src.key("hosts"), `write hosts = ["example.com"]`, "the [[site]] has no hosts")
	}
	for i, h := range s.Hosts {
		at := src.key("hosts").elem(i)
		switch {
		case h == "":
			v.fault(at, "leave it out", "the host is empty")
		case first[h] != nil:
			v.fault(at, "a host belongs to one [[site]]", "the host %q is listed twice, first at %s", h, first[h].place())
		default:
			first[h] = at
		}
	}
}

// passthrough sites leave TLS, and all that depends on it, to whoever is behind them.
func (v *validator) passthrough(s *Site, src *source) {
	if host, ok := strings.CutPrefix(s.Passthrough, "tcp://"); !ok || host == "" || strings.ContainsAny(host, "/@") {
		v.fault(src.key("passthrough"), `write "tcp://10.0.0.20:8443"`, "%q is no tcp:// address", s.Passthrough)
	}
	for key, set := range map[string]bool{
		"to": s.To != Target{}, "certificate": s.Certificate != "", "client_auth": s.ClientAuth != "", "on_demand": s.OnDemand, "ca": len(s.CA) > 0,
		"limit": s.Limit != RouteLimit{}, "allow": len(s.Allow) > 0, "deny": len(s.Deny) > 0, "auth": s.Auth.Forward != "" || s.Auth.Basic(), "compress": len(s.Compress) > 0, "route": len(s.Routes) > 0,
		"headers": len(s.Headers.Set)+len(s.Headers.Remove)+len(s.Headers.Response.Set)+len(s.Headers.Response.Remove) > 0,
	} {
		if set {
			v.fault(src.key(key), "leave one of them out", "`%s` needs TLS to be terminated here, which `passthrough` does not do", key)
		}
	}
}

func (v *validator) siteTarget(s *Site, at *source) {
	asked := s.OnDemand && v.c.OnDemand.Ask != "" // then the answer may say where
	if (s.To == Target{}) && len(s.Routes) == 0 && !asked {
		v.fault(at, `write to = "http://127.0.0.1:3000", or a [[site.route]]`, "the [[site]] has no `to`")
	}
	v.namedUpstream(s.To, at)
}

// namedUpstream checks that the upstream of a target is there.
func (v *validator) namedUpstream(to Target, at *source) {
	if _, ok := v.c.Upstreams[to.Upstream]; ok || to.Upstream == "" {
		return
	}
	hint := didYouMean("@"+to.Upstream, prefixed("@", sortedKeys(v.c.Upstreams))...)
	if hint == "" {
		hint = fmt.Sprintf("add [upstream.%s]", clip(to.Upstream))
	}
	v.fault(at, hint, "there is no [upstream.%s]", clip(to.Upstream))
}

func (v *validator) siteCertificate(s *Site, src *source) {
	switch {
	case s.Certificate != "" && s.Key == "":
		v.fault(src.key("certificate"), `add key = "..."`, "a certificate needs its key")
	case s.Key != "" && s.Certificate == "":
		v.fault(src.key("key"), `add certificate = "..."`, "a key needs its certificate")
	case s.Certificate != "" && s.OnDemand:
		v.warn(src.key("on_demand"), "leave one of them out", "a site with a certificate of its own orders none")
	case s.Certificate != "" && len(s.CA) > 0:
		v.warn(src.key("ca"), "leave one of them out", "a site with a certificate of its own orders none")
	}
}

// siteCAs checks that somebody may issue for each host, in a way that this build can.
func (v *validator) siteCAs(s *Site, src *source) {
	names := []string{InternalCAName}
	for _, ca := range v.c.CAs {
		if !slices.Contains(names, ca.Name) {
			names = append(names, ca.Name)
		}
	}
	for i, ca := range s.CA {
		if !slices.Contains(names, ca) {
			v.fault(src.key("ca").elem(i), oneOf(ca, names), "there is no [[ca]] named %q", ca)
			return
		}
	}
	if s.Certificate != "" || s.Key != "" {
		return
	}
	for i, h := range s.Hosts {
		if h != "" {
			v.issuable(s, src.key("hosts").elem(i), h)
		}
	}
}

func (v *validator) issuable(s *Site, at *source, host string) {
	issuers := v.c.Issuers(host, s.CA)
	internal := len(issuers) == 1 && issuers[0] == InternalCAName
	switch {
	case len(issuers) == 0 && !(s.OnDemand && strings.Contains(host, "*")): // names below the pattern may have a CA
		v.fault(at, "add a [[ca]] for it, or certificate and key", "no CA may issue for %q", host)
	case s.OnDemand || internal:
	case host == "*":
		v.fault(at, "write on_demand = true with [on_demand], or give certificate and key", `which names "*" has is not known, so no certificate can be ordered for it`)
	case strings.HasPrefix(host, "*.") && len(v.c.DNS) == 0:
		v.fault(at, "add a [dns.NAME] for its zone, or write on_demand = true with [on_demand], or give certificate and key",
			"a wildcard certificate needs validation by DNS, and no provider is configured")
	case hostname.IsIP(host) && v.isLetsEncrypt(issuers):
		v.warn(at, "give certificate and key", "Let's Encrypt has certificates for addresses only in a profile that cannot be chosen yet")
	case !strings.Contains(host, ".") && v.isLetsEncrypt(issuers):
		v.warn(at, "add it to internal_ca.names", "a public CA issues nothing for the single label %q", host)
	}
}

func (v *validator) isLetsEncrypt(issuers []string) bool {
	return slices.ContainsFunc(v.c.CAs, func(ca CA) bool {
		return len(issuers) > 0 && ca.Name == issuers[0] && ca.Directory == letsEncrypt
	})
}

func sortedKeys[V any](m map[string]V) []string {
	keys := keysOf(m)
	slices.Sort(keys)
	return keys
}

func prefixed(prefix string, list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = prefix + s
	}
	return out
}
