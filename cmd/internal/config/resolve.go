package config

import (
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"gatelodge/proxy/hostname"
)

// InternalCAName is the internal CA among the names of CAs; no [[ca]] can have it.
const InternalCAName = "internal"

// ResolvedSite is a site with everything looked up.
type ResolvedSite struct {
	// Name names the site in logs: its first host.
	Name string

	// Hosts in canonical spelling.
	Hosts []string

	// UpstreamName is the name behind "@"; for a site with a URL of its own, the URL. Sites with the same name share the upstream. It is empty where all
	// requests go by routes, or where `ask` says.
	UpstreamName string

	// Upstream has at least one target.
	Upstream Upstream

	CAs               []string // restricts who issues; empty means the rule of Issuers
	CertFile, KeyFile string   // PEM files of one's own; both or none
	OnDemand          bool
	AccessLog         bool
	BodyBytes         int64 // zero means no limit
	HSTS              time.Duration
	ClientAuth        string
	Passthrough       string // "tcp://host:port": TLS is not terminated here, and there is no Upstream
	Policies          Policies
	Headers           Headers
	Routes            []ResolvedRoute
}

// ResolvedRoute is a route with everything looked up.
type ResolvedRoute struct {
	Route

	// UpstreamName and Upstream are as in ResolvedSite; empty for a route that has another action, or its site's upstream.
	UpstreamName string
	Upstream     Upstream
	Policies     Policies
}

// Resolve returns the sites in the order of the configuration.
func (c *Config) Resolve() []ResolvedSite {
	sites := make([]ResolvedSite, 0, len(c.Sites))
	for i := range c.Sites {
		s := &c.Sites[i]
		r := ResolvedSite{
			Name: s.Hosts[0], Hosts: s.Hosts, CAs: s.CA,
			CertFile: s.Certificate, KeyFile: s.Key, OnDemand: s.OnDemand && s.Certificate == "", AccessLog: s.AccessLog,
			BodyBytes: int64(s.BodyBytes), HSTS: s.HSTS, ClientAuth: s.ClientAuth, Passthrough: s.Passthrough,
			Policies: s.policies(), Headers: s.Headers,
		}
		if r.BodyBytes == 0 {
			r.BodyBytes = int64(c.Listen.Limits.BodyBytes)
		}
		if r.Passthrough != "" {
			sites = append(sites, r)
			continue
		}
		r.UpstreamName, r.Upstream = c.resolveTarget(s.To)
		for k := range s.Routes {
			route := ResolvedRoute{Route: s.Routes[k], Policies: s.Routes[k].policies()}
			route.UpstreamName, route.Upstream = c.resolveTarget(route.To)
			r.Routes = append(r.Routes, route)
		}
		sites = append(sites, r)
	}
	return sites
}

// resolveTarget returns the upstream of a target by its name; nothing for none.
func (c *Config) resolveTarget(to Target) (string, Upstream) {
	switch {
	case to == Target{}:
		return "", Upstream{}
	case to.Upstream != "":
		return to.Upstream, c.Upstreams[to.Upstream]
	}
	u := DefaultUpstream()
	u.To = []Target{to}
	return to.String(), u
}

// Listed are the names and wildcards that get a certificate without waiting for a visitor: hosts of sites that are neither on demand nor have a
// certificate of their own. "*" alone is not among them.
func (c *Config) Listed() []string {
	var names []string
	for _, s := range c.Resolve() {
		if s.OnDemand || s.CertFile != "" || s.Passthrough != "" {
			continue
		}
		for _, h := range s.Hosts {
			if h != "*" {
				names = append(names, h)
			}
		}
	}
	return names
}

// InternalNames are the patterns (hostname.Match) of the names that the internal CA serves; it also serves private and loopback addresses.
func (c *Config) InternalNames() []string {
	return slices.Concat([]string{"localhost", "*.localhost", "*.internal", "*.local", "*.home.arpa"}, c.InternalCA.Names)
}

// IsInternal reports whether the internal CA may serve the canonical host or pattern.
func (c *Config) IsInternal(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip = ip.Unmap(); ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
			return true
		}
	}
	return matchAny(c.InternalNames(), host)
}

// Idle reports whether the CA is the one of those who name none, and nothing here could come from it: then nobody should hear of us.
func (c *Config) Idle(ca CA) bool {
	if !reflect.DeepEqual([]CA{ca}, Default().CAs) {
		return false
	}
	for _, site := range c.Resolve() {
		if site.Passthrough != "" || site.CertFile != "" {
			continue
		}
		for _, host := range site.Hosts {
			if site.OnDemand || slices.Contains(c.Issuers(host, site.CAs), ca.Name) {
				return false
			}
		}
	}
	return true
}

// Unbudgeted reports whether the CA is our own by its address (internal, private, loopback, or without a dot), and nobody wrote budgets for it: the defaults of
// [issue.budget] are below the limits of the CAs that everybody shares, and would stop a private one that has none.
func (c *Config) Unbudgeted(ca CA) bool {
	written := Default().Issue.Budget
	if written.InFlight = c.Issue.Budget.InFlight; written != c.Issue.Budget {
		return false
	}
	for _, directory := range []string{ca.Directory, ca.DirectoryV1} {
		u, err := url.Parse(directory)
		if err != nil || directory != "" && !c.isOurs(u.Hostname()) {
			return false
		}
	}
	return true
}

// isOurs reports whether the host of a CA is one that nobody outside can reach.
func (c *Config) isOurs(host string) bool {
	_, err := netip.ParseAddr(host)
	return c.IsInternal(host) || err != nil && !strings.Contains(host, ".")
}

// Issuers returns the names of the CAs for a canonical host, in the order in which they are tried: the [[ca]] whose names match; else the
// internal CA for its names; else the [[ca]] without names; all in the order of the file (DESIGN 3.12). A site's own list replaces the choice and gives the
// order, but what is on it serves only the names that it is for. The same rule is certs.ChooseCAs, which works on issuers.
func (c *Config) Issuers(host string, own []string) []string {
	if len(own) > 0 {
		return slices.DeleteFunc(slices.Clone(own), func(name string) bool { return !c.mayIssue(name, host) })
	}
	var named, general []string
	for i := range c.CAs {
		switch ca := &c.CAs[i]; {
		case len(ca.Names) == 0:
			general = append(general, ca.Name)
		case matchAny(ca.Names, host):
			named = append(named, ca.Name)
		}
	}
	switch {
	case len(named) > 0:
		return named
	case c.IsInternal(host):
		return []string{InternalCAName}
	}
	return general
}

// mayIssue reports whether the CA of the name is for the host at all.
func (c *Config) mayIssue(name, host string) bool {
	if name == InternalCAName {
		return c.IsInternal(host)
	}
	i := slices.IndexFunc(c.CAs, func(ca CA) bool { return ca.Name == name })
	return i >= 0 && (len(c.CAs[i].Names) == 0 || matchAny(c.CAs[i].Names, host))
}

func matchAny(patterns []string, host string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return hostname.Match(p, host) })
}

// Warnings are things that are legal but odd. They are found when the configuration is read.
func (c *Config) Warnings() []Fault { return slices.Clone(c.warnings) }
