package upstream

import (
	"fmt"
	"net"
	"net/url"
	"path"
)

// Target is the address of an upstream, in pieces.
type Target struct {
	Scheme string // "http", "https", "h2c" or "unix"
	Host   string // host or host:port as written; the absolute path of the socket for "unix"
}

// ParseTarget takes the address of a target apart and checks it.
func ParseTarget(to string) (Target, error) {
	u, err := url.Parse(to)
	if err != nil {
		return Target{}, fmt.Errorf("upstream %q: not a URL: write http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:///PATH", to)
	}
	switch {
	case u.User != nil:
		return Target{}, fmt.Errorf("upstream %s: user and password are not supported in the address", u.Redacted())
	case u.RawQuery != "" || u.Fragment != "":
		return Target{}, fmt.Errorf("upstream %q: neither query nor fragment is allowed", to)
	case u.Scheme == "unix":
		if u.Host != "" || u.Path == "/" || !path.IsAbs(u.Path) {
			return Target{}, fmt.Errorf("upstream %q: write the absolute path of a socket: unix:///run/app.sock", to)
		}
		return Target{Scheme: "unix", Host: u.Path}, nil
	case defaultPort(u.Scheme) == "":
		return Target{}, fmt.Errorf("upstream %q: scheme must be http, https, h2c or unix", to)
	case u.Hostname() == "":
		return Target{}, fmt.Errorf("upstream %q: host is missing", to)
	case u.Path != "" && u.Path != "/":
		return Target{}, fmt.Errorf("upstream %q: a path (%q) is not supported: requests keep their own", to, u.Path)
	}
	if port := u.Port(); port != "" {
		if n, err := net.LookupPort("tcp", port); err != nil || n == 0 {
			return Target{}, fmt.Errorf("upstream %q: port %q is not in 1-65535", to, port)
		}
	}
	return Target{Scheme: u.Scheme, Host: u.Host}, nil
}

func (t Target) String() string { return t.Scheme + "://" + t.Host }

// defaultPort is empty for a scheme that is none of ours, or has no ports.
func defaultPort(scheme string) string {
	switch scheme {
	case "http", "h2c":
		return "80"
	case "https":
		return "443"
	}
	return ""
}

// dialled is what to connect to: network and address.
func (t Target) dialled() (network, addr string) {
	if t.Scheme == "unix" {
		return "unix", t.Host
	}
	return "tcp", net.JoinHostPort(t.name(), t.port())
}

// name is the host without port; empty for a socket.
func (t Target) name() string {
	if t.Scheme == "unix" {
		return ""
	}
	u := url.URL{Host: t.Host}
	return u.Hostname()
}

func (t Target) port() string {
	u := url.URL{Host: t.Host}
	if p := u.Port(); p != "" {
		return p
	}
	return defaultPort(t.Scheme)
}
