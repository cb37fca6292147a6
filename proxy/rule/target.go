package rule

import (
	"fmt"
	"net/url"
	"strings"
)

// ParseStrip takes a prefix that every path of the route has, and returns it in its canonical form.
func ParseStrip(strip string, m *Matcher) (string, error) {
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

// ParseRewrite takes a path with {path} and {rest}.
func ParseRewrite(rewrite string) (Template, error) {
	t, err := ParseTemplate(rewrite, "path", "rest")
	if err != nil {
		return nil, fmt.Errorf("rewrite: %w", err)
	}
	path := t.Expand(func(string) string { return "/x" })
	canonical, _, err := Canonical(path)
	switch {
	case !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#"):
		return nil, fmt.Errorf("rewrite: %q is no path; the query of the request stays as it is", rewrite)
	case err != nil:
		return nil, fmt.Errorf("rewrite: %q: %w", rewrite, err)
	case canonical != path:
		return nil, fmt.Errorf("rewrite: %q has characters that must be escaped", rewrite)
	}
	return t, nil
}

// ParseRedirect takes the target of a redirect, with {path}, {rest} and {host}, and reports whether it has a query or fragment of its own. No request can choose
// another host than the one that is written there: "https://example.com{rest}" would let it ("/old/.evil.example").
func ParseRedirect(to string) (t Template, query bool, err error) {
	if t, err = ParseTemplate(to, "path", "rest", "host"); err != nil {
		return nil, false, fmt.Errorf("redirect: %w", err)
	}
	for i := range len(to) {
		if c := to[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"<>\^|`+"`", c) >= 0 {
			return nil, false, fmt.Errorf("redirect: %q has characters that must be escaped", to)
		}
	}
	target, err := redirectSample(t, "r")
	other, err2 := redirectSample(t, ".other.test:1")
	switch {
	case err != nil || err2 != nil:
		return nil, false, fmt.Errorf("redirect: %q is neither a path nor a URL", to)
	case target.Scheme != other.Scheme || target.Host != other.Host:
		return nil, false, fmt.Errorf("redirect: %q lets requests choose the host; write / before {rest}", to)
	case target.Scheme == "" && target.Host == "" && strings.HasPrefix(target.Path, "/"):
	case target.Scheme != "http" && target.Scheme != "https", target.Host == "", target.User != nil:
		return nil, false, fmt.Errorf("redirect: %q is neither a path nor an http or https URL", to)
	}
	return t, target.RawQuery != "" || target.ForceQuery || strings.IndexByte(to, '#') >= 0, nil
}

func redirectSample(t Template, rest string) (*url.URL, error) {
	return url.Parse(t.Expand(func(name string) string {
		return map[string]string{"path": "/p", "rest": rest, "host": "host.test"}[name]
	}))
}

// CheckRedirectStatus reports what is wrong with the status of a redirect; zero is none.
func CheckRedirectStatus(status int) error {
	switch status {
	case 0, 301, 302, 303, 307, 308:
		return nil
	}
	return fmt.Errorf("redirect: status %d: use 301 or 308 for ever, 302, 303 or 307 for now", status)
}
