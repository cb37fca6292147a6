package upstream

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"
)

// Config is what a Pool is built with; it does not change while it lives.
type Config struct {
	// To are the targets: "http://127.0.0.1:3000" or "https://10.0.0.1". A port may be left out. One is required, and for now no more than one.
	To []string

	// TLS is for https targets.
	TLS TLS

	// ConnectTimeout bounds the time to a connection, name resolution and, for its own part, the TLS handshake included. Zero means 3 s.
	ConnectTimeout time.Duration

	// ResponseHeaderTimeout bounds the time from the end of the request to the header of the answer. Zero means 60 s.
	ResponseHeaderTimeout time.Duration

	// IdleTimeout is how long an unused connection is kept. Zero means 5 m.
	IdleTimeout time.Duration

	// ResponseHeaderBytes bounds the header of an answer. Zero means 256 KiB.
	ResponseHeaderBytes int64
}

// TLS says how an https upstream proves who it is.
type TLS struct {
	// ServerName is sent as SNI and verified; empty means the host of the target.
	ServerName string

	// Roots to verify with; nil means those of the system.
	Roots *x509.CertPool

	// SkipVerify accepts any certificate. The connection is then encrypted but with whom is unknown.
	SkipVerify bool
}

func (c Config) withDefaults() Config {
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 3 * time.Second
	}
	if c.ResponseHeaderTimeout == 0 {
		c.ResponseHeaderTimeout = 60 * time.Second
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 5 * time.Minute
	}
	if c.ResponseHeaderBytes == 0 {
		c.ResponseHeaderBytes = 256 << 10
	}
	return c
}

// ParseTarget checks the address of a target and returns it in pieces. It is exported for the configuration, which wants to point at a mistake
// before anything starts.
func ParseTarget(to string) (*url.URL, error) {
	u, err := url.Parse(to)
	if err != nil {
		return nil, fmt.Errorf("upstream %q: not a URL: write http://HOST:PORT or https://HOST:PORT", to)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("upstream %q: scheme must be http or https", to)
	case u.Hostname() == "":
		return nil, fmt.Errorf("upstream %q: host is missing", to)
	case u.User != nil:
		return nil, fmt.Errorf("upstream %s: user and password are not supported in the address", u.Redacted())
	case u.Path != "" && u.Path != "/":
		return nil, fmt.Errorf("upstream %q: a path (%q) is not supported: requests keep their own", to, u.Path)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("upstream %q: neither query nor fragment is allowed", to)
	}
	if port := u.Port(); port != "" {
		if n, err := net.LookupPort("tcp", port); err != nil || n == 0 {
			return nil, fmt.Errorf("upstream %q: port %q is not in 1-65535", to, port)
		}
	}
	u.Path = ""
	return u, nil
}

func (c Config) target() (*url.URL, error) {
	switch len(c.To) {
	case 0:
		return nil, errors.New("upstream: no target")
	case 1:
		return ParseTarget(c.To[0])
	}
	return nil, fmt.Errorf("upstream: %d targets: balancing over several is not supported yet", len(c.To))
}
