package config

import (
	"fmt"
	"io"
	"strings"
)

// Explain writes what the configuration means: where it listens, and for each site its hosts, its upstream and who issues for each host.
func (c *Config) Explain(w io.Writer) error {
	var b strings.Builder
	c.explainProcess(&b)
	for _, s := range c.Resolve() {
		c.explainSite(&b, &s)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (c *Config) explainProcess(b *strings.Builder) {
	http := joined(c.Listen.HTTP)
	if len(c.Listen.HTTP) > 0 && c.Listen.Redirect {
		http += " (redirects to https)"
	}
	fmt.Fprintf(b, "http     %s\n", http)
	fmt.Fprintf(b, "https    %s\n", joined(c.Listen.HTTPS))
	fmt.Fprintf(b, "storage  %s\n", c.Storage.describe())
	fmt.Fprintf(b, "admin    %s\n", orOff(c.Admin.Listen))
	fmt.Fprintf(b, "metrics  %s\n", orOff(string(c.Admin.Metrics)))
	for i := range c.CAs {
		ca := &c.CAs[i]
		fmt.Fprintf(b, "ca       %s %s", ca.Name, withoutQuery(ca.Directory))
		if len(ca.Names) > 0 {
			fmt.Fprintf(b, " only for %s", strings.Join(ca.Names, ", "))
		}
		b.WriteByte('\n')
	}
}

func (c *Config) explainSite(b *strings.Builder, s *ResolvedSite) {
	if s.Passthrough != "" {
		fmt.Fprintf(b, "\nsite %s -> %s, TLS not terminated here\n  %s\n", s.Name, s.Passthrough, strings.Join(s.Hosts, "  "))
		return
	}
	to := explainUpstream(s.UpstreamName, &s.Upstream)
	switch {
	case to == "" && s.OnDemand && c.OnDemand.Ask != "":
		to = "where the answer of ask says"
	case to == "":
		to = "by its routes alone"
	}
	fmt.Fprintf(b, "\nsite %s -> %s\n", s.Name, to)
	width := 0
	for _, h := range s.Hosts {
		width = max(width, len(h))
	}
	for _, h := range s.Hosts {
		fmt.Fprintf(b, "  %-*s  %s\n", width, h, c.explainIssuer(s, h))
	}
	for i := range s.Routes {
		explainRoute(b, &s.Routes[i])
	}
}

// explainUpstream is empty for none.
func explainUpstream(name string, u *Upstream) string {
	if name == "" {
		return ""
	}
	to := u.describe()
	if name != to {
		return "@" + name + " (" + to + ")"
	}
	return to
}

func explainRoute(b *strings.Builder, r *ResolvedRoute) {
	what := strings.Join(r.Match.Path, " ")
	if what == "" {
		what = "every path"
	}
	if len(r.Match.Methods) > 0 {
		what = strings.Join(r.Match.Methods, ",") + " " + what
	}
	to := explainUpstream(r.UpstreamName, &r.Upstream)
	switch {
	case r.Redirect != Redirect{}:
		to = "redirect to " + r.Redirect.To
	case r.Files != "":
		to = "files in " + r.Files
	case r.Respond != Respond{}:
		to = fmt.Sprintf("status %d", r.Respond.Status)
	case to == "":
		to = "the site's own"
	}
	switch {
	case r.Strip != "":
		to += ", without " + r.Strip
	case r.Rewrite != "":
		to += ", as " + r.Rewrite
	}
	fmt.Fprintf(b, "    %s -> %s%s\n", what, to, explainPolicies(&r.Policies))
}

// explainPolicies names what a route asks of its requests.
func explainPolicies(p *Policies) string {
	var names []string
	for _, has := range []struct {
		name string
		has  bool
	}{{"limit", p.Limit != RouteLimit{}}, {"allow", len(p.Allow) > 0}, {"deny", len(p.Deny) > 0}, {"auth", p.Auth.Forward != "" || p.Auth.Basic()}} {
		if has.has {
			names = append(names, has.name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}

func (c *Config) explainIssuer(s *ResolvedSite, host string) string {
	if s.CertFile != "" {
		return "certificate " + s.CertFile
	}
	issuers := strings.Join(c.Issuers(host, s.CAs), ", then ")
	switch {
	case issuers == "":
		issuers = "the CA for the name"
	case host == "*":
		issuers = "the CA for the name, else " + issuers
	}
	if !s.OnDemand {
		return "issued by " + issuers
	}
	gate := "names in " + c.OnDemand.NamesFile
	if c.OnDemand.NamesFile == "" {
		gate = "permitted by " + withoutQuery(c.OnDemand.Ask)
	}
	return "on demand, " + gate + ", issued by " + issuers
}

func joined(list []Address) string {
	s := make([]string, len(list))
	for i, a := range list {
		s[i] = string(a)
	}
	return orOff(strings.Join(s, ", "))
}

func orOff(s string) string {
	if s == "" {
		return "off"
	}
	return s
}

// describe names the targets, and how they are chosen among if there are several.
func (u *Upstream) describe() string {
	if len(u.To) == 1 {
		return u.To[0].String()
	}
	all := make([]string, len(u.To))
	for i, t := range u.To {
		all[i] = t.String()
	}
	return strings.Join(all, ", ") + "; " + u.Balance
}

func (s *Storage) describe() string {
	text := "disk " + s.Path
	if s.Kind == "s3" {
		text = strings.TrimSpace(fmt.Sprintf("s3 %s/%s %s", s.S3.Bucket, s.S3.Prefix, s.S3.Endpoint))
	}
	if len(s.Encryption.Keys) > 0 {
		text += ", sealed with " + s.Encryption.Keys[0].ID
	}
	return text
}
