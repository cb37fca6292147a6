package proxy

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"time"

	"go.uber.org/zap"
)

// Config is what a Server is built with; it does not change while it lives.
type Config struct {
	// HTTPS are the listeners that speak TLS, HTTP those that speak plain HTTP/1.1. The Server closes them. At least one is required.
	HTTPS, HTTP []net.Listener

	// GetCertificate returns the certificate for a handshake. A nil certificate without an error ends the handshake with the alert
	// unrecognized_name (RFC 6066 §3); an error with internal_error. Required if there are HTTPS listeners.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// Challenges wraps a handler with the answers to a CA's http-01 requests (RFC 8555 §8.3). It answers only tokens that are pending for the
	// request's host; all else takes the normal way with its guards. Nil: none.
	Challenges func(next http.Handler) http.Handler

	// Limits are the timeouts and sizes of connections.
	Limits Limits

	// MinVersion is the lowest TLS version; zero means TLS 1.2.
	MinVersion uint16

	// Logger is required. AccessLog gets one record per request; nil turns it off.
	Logger, AccessLog *zap.Logger

	// Metrics may be nil.
	Metrics Metrics
}

// Limits bound what a client may take. Zero values mean the defaults of config.example.toml.
type Limits struct {
	HandshakeTimeout time.Duration // accept to Finished; zero means 10 s
	HeaderTimeout    time.Duration // first byte of a request to the end of its header; zero means 10 s
	IdleTimeout      time.Duration // between requests; zero means 2 m
	HeaderBytes      int           // whole request header; zero means 64 KiB
	BodyBytes        int64         // request body; zero means no limit
}

// Settings are what a reload may change. They are replaced whole and never modified; a request keeps those it started with.
type Settings struct {
	// Sites in the order of the configuration. The first that names a host exactly has it, then the longest wildcard, then "*".
	Sites []Site

	// RedirectHTTP sends plain HTTP requests for a site's host to https with 308, challenges excepted. Otherwise they are served.
	RedirectHTTP bool

	// HTTPSPort is the port that redirects name; zero or 443 leaves it out.
	HTTPSPort int

	// TrustedProxies may send X-Forwarded-For, -Proto and -Host that we believe.
	TrustedProxies []netip.Prefix

	// UnknownClose closes the connection of a client that names no site of ours, instead of the TLS alert.
	UnknownClose bool

	// DefaultName stands in for a missing SNI; empty refuses such clients.
	DefaultName string
}

// Site is what answers for some hosts.
type Site struct {
	// Name names the site in logs: its first host.
	Name string

	// Hosts are canonical (hostname.FromConfig): "example.com", "*.example.com" (exactly one label more), "*".
	Hosts []string

	// Upstream is where requests go. The RoundTripper is safe for concurrent use; its errors become 502 or 504 (see upstream.ErrTimeout).
	Upstream http.RoundTripper

	// AccessLog: requests of this site are logged.
	AccessLog bool

	// BodyBytes bounds a request body; zero means Limits.BodyBytes.
	BodyBytes int64
}

// Metrics receives counts, without names. Implementations return at once and allocate nothing.
type Metrics interface {
	Handshake(ok bool, took time.Duration)
	Request(protocol string, status int, took time.Duration) // protocol "h1" or "h2"
	UpstreamError(class string)                              // "connect", "timeout", "protocol", "aborted"
	Connections(delta int)
}
