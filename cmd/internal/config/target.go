package config

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// Target is where requests go: a URL or the name of an upstream. The zero Target is none.
type Target struct {
	// Upstream is the name behind "@"; empty for a URL.
	Upstream string

	// Scheme is "http", "https", "h2c" (HTTP/2 without TLS) or "unix". Host is host:port, the port always there; for "unix" the path of the socket.
	Scheme, Host string
}

var schemePorts = map[string]string{"http": "80", "https": "443", "h2c": "80"}

// ParseTarget takes a URL that stands within another key, such as auth.forward.
func ParseTarget(s string) (Target, error) { return parseTarget(s) }

func parseTarget(s string) (Target, error) {
	if name, ok := strings.CutPrefix(s, "@"); ok {
		if name == "" {
			return Target{}, badValue(`write "@app" for [upstream.app]`, `"@" names no upstream`)
		}
		return Target{Upstream: name}, nil
	}
	if s == "" {
		return Target{}, nil
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return Target{}, badValue(`write "http://`+missingScheme(s)+`"`, "%q has no scheme", s)
	}
	if scheme == "unix" {
		return parseUnixTarget(s, rest)
	}
	if schemePorts[scheme] == "" {
		return Target{}, badValue(strings.TrimSuffix("use http://, https://, h2c:// or unix://; "+didYouMean(scheme, "http", "https", "h2c", "unix"), "; "),
			"%q has the unknown scheme %q", s, scheme)
	}
	u, err := url.Parse(s)
	if err != nil {
		return Target{}, badValue(`write "http://127.0.0.1:3000"`, "%q is no URL: %v", s, unwrapURLError(err))
	}
	return targetOfURL(s, u)
}

func targetOfURL(s string, u *url.URL) (Target, error) {
	const hint = `write only scheme, host and port: "http://127.0.0.1:3000"`
	switch {
	case u.User != nil:
		return Target{}, badValue(hint, "an upstream's URL cannot carry a user or password") // not shown: it is a secret
	case u.Hostname() == "":
		return Target{}, badValue(hint, "%q has no host", s)
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "", strings.Contains(s, "#"):
		return Target{}, badValue(hint, "%q has a path, query or fragment; requests keep their own", s)
	}
	host := u.Hostname()
	if _, err := netip.ParseAddr(host); err != nil {
		if _, err := canonicalHost(host); err != nil || strings.Contains(host, "*") {
			return Target{}, badValue(hint, "%q has no valid host", s)
		}
	}
	port := u.Port()
	if port == "" {
		port = schemePorts[u.Scheme]
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strings.HasSuffix(u.Host, ":") {
		return Target{}, badValue("a port is a number from 1 to 65535", "%q has no valid port", s)
	}
	return Target{Scheme: u.Scheme, Host: net.JoinHostPort(host, port)}, nil
}

func parseUnixTarget(s, path string) (Target, error) {
	if !filepath.IsAbs(path) {
		return Target{}, badValue(`write "unix:///run/app.sock"`, "%q has no absolute path", s)
	}
	return Target{Scheme: "unix", Host: path}, nil
}

// missingScheme guesses the host of a target that was written without a scheme: "3000" and ":3000" are ports of this host.
func missingScheme(s string) string {
	if _, err := strconv.ParseUint(s, 10, 16); err == nil {
		s = ":" + s
	}
	if strings.HasPrefix(s, ":") {
		return "127.0.0.1" + s
	}
	return strings.TrimLeft(s, "/")
}

// URL returns the target as URL; nil for a named upstream and for none.
func (t Target) URL() *url.URL {
	if t.Scheme == "" {
		return nil
	}
	return &url.URL{Scheme: t.Scheme, Host: t.Host}
}

func (t Target) String() string {
	switch {
	case t.Upstream != "":
		return "@" + t.Upstream
	case t.Scheme == "":
		return ""
	}
	return t.Scheme + "://" + t.Host
}

// unwrapURLError drops the URL from the error, since it is shown beside it.
func unwrapURLError(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
