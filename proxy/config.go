package proxy

import (
	"context"
	"crypto/tls"
	"errors"
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

	// GetCertificate returns the certificate for a handshake. hello.ServerName is canonical (hostname.Normalize), and Settings.DefaultName where
	// the client sent none. A nil certificate without an error ends the handshake with the alert unrecognized_name (RFC 6066 §3); an error with
	// internal_error. It may take Limits.CertificateWait, for which the handshake's own clock stands still. Required if there are HTTPS listeners.
	GetCertificate func(hello *tls.ClientHelloInfo) (*tls.Certificate, error)

	// Challenges wraps a handler with the answers to a CA's http-01 requests (RFC 8555 §8.3). It answers only tokens that are pending for the
	// request's host; all else takes the normal way with its guards. Nil: none.
	Challenges func(next http.Handler) http.Handler

	// ListenQUIC opens the UDP sockets for HTTP/3, which the Server closes (see Sockets.ListenQUIC). It is called by New or Apply whenever Settings.HTTP3
	// turns it on. Nil: there is no HTTP/3.
	ListenQUIC func() ([]net.PacketConn, error)

	// AwaitQUIC returns when nobody else reads the UDP sockets any more, or when ctx ends; they are not read before. Nil: nobody does.
	AwaitQUIC func(ctx context.Context)

	// Limits are the timeouts and sizes of connections.
	Limits Limits

	// MinVersion is the lowest TLS version; zero means TLS 1.2.
	MinVersion uint16

	// Groups are the key exchanges to offer; empty means X25519MLKEM768, X25519 and P-256. crypto/tls prefers the post-quantum hybrid whatever the order.
	Groups []tls.CurveID

	// Logger is required. AccessLog gets one record per request; nil turns it off.
	Logger, AccessLog *zap.Logger

	// Metrics may be nil.
	Metrics Metrics
}

// Limits bound what a client may take. Zero values mean the defaults of config.example.toml.
type Limits struct {
	Connections        int           // that are open at one time, QUIC's apart; further ones wait until one of them ends. Zero means no limit
	ProxyHeaderTimeout time.Duration // accept to the end of a PROXY protocol header; zero means 5 s
	HandshakeTimeout   time.Duration // from there to Finished, without CertificateWait; zero means 10 s
	CertificateWait    time.Duration // what GetCertificate may take; zero means 30 s
	HeaderTimeout      time.Duration // first byte of a request to the end of its header; zero means 10 s
	IdleTimeout        time.Duration // between requests; zero means 2 m
	StallTimeout       time.Duration // a client takes or gives nothing while we wait for it; zero means 1 m
	BodyRate           float64       // bytes a second that a request body must come at in the long run; zero means 128, negative no limit. See pace
	HeaderBytes        int           // whole request header; zero means 64 KiB
	BodyBytes          int64         // request body; zero means no limit
}

// Settings are what a reload may change. They are replaced whole and never modified; a request keeps those it started with.
type Settings struct {
	// Sites have distinct hosts. The one that names a host exactly has it, then the wildcard one label above it, then "*".
	Sites []Site

	// RedirectHTTP sends plain HTTP requests for a site's host to https with 308, challenges excepted. Otherwise they are served.
	RedirectHTTP bool

	// HTTPSPort is the port at which clients find us, by TCP and UDP. Redirects and Alt-Svc name it; zero means 443.
	HTTPSPort int

	// HTTP3 serves HTTP/3 beside the others, and announces it to their clients by Alt-Svc (RFC 7838). It has no effect without Config.ListenQUIC, nor where
	// the PROXY protocol is on, which UDP does not have.
	HTTP3 bool

	// LongLived is how long upgraded connections and answers that began under earlier settings may go on once their site goes elsewhere, or is gone. WebSockets then
	// get a Close frame with the status 1001, others are cut. Those of sites that did not change go on for ever. Zero: all do.
	LongLived time.Duration

	// TrustedProxies may send X-Forwarded-For, -Proto and -Host, X-Real-IP and X-Request-Id that we believe.
	TrustedProxies []netip.Prefix

	// UnknownClose closes the connection of a client that names no site of ours, instead of the TLS alert.
	UnknownClose bool

	// UnknownDefault serves a client that names no site of ours as one that names DefaultName, which is then required. Its requests for other hosts
	// than those of that site are refused all the same. It excludes UnknownClose.
	UnknownDefault bool

	// DefaultName stands in for a missing SNI; empty refuses such clients. It is canonical.
	DefaultName string

	// NoTickets turns session tickets off, those that are out included: every handshake is a whole one.
	NoTickets bool

	// StandIn reports whether a certificate of Config.GetCertificate stands in for one that is still on its way: no session that begins with it is resumed, since a resumption shows no
	// certificate. Nil: none does.
	StandIn func(*tls.Certificate) bool

	// HandshakesPerClient is how many TLS handshakes a client may begin in a second, and at once; a /64 of IPv6 is one client. Whoever exceeds it is
	// disconnected. Zero means no limit. Peers on unix sockets have none.
	HandshakesPerClient float64

	// ProxyProtocol is how balancers in front of us say who their clients are. The address that they say counts everywhere.
	ProxyProtocol ProxyProtocol

	// Customers returns what is said about the names of sites that are OnDemand, once per request; the name is canonical. It answers from memory where it can, and is false when
	// nobody can say. Nil: nothing is ever said.
	Customers func(ctx context.Context, name string) (Customer, bool)

	// OpenUpstream makes the upstream of Customer.To, without connecting yet, or says why that is no upstream. What it made is used for every name with that address, across reloads,
	// and closed when it was not used for a while. Nil: To is ignored.
	OpenUpstream func(to string) (Upstream, error)

	// LogHeaders names fields of requests that the access log shows, as they were sent on to the upstream, and "*" all of them; the values of those in LogRedact
	// are left out. User-Agent is in the log in any case.
	LogHeaders, LogRedact []string

	// ClientAuth are the policies for client certificates that sites name. One that is incomplete is an error, used or not.
	ClientAuth []ClientAuth
}

// Site is what answers for some hosts.
type Site struct {
	// Name names the site in logs: its first host. No two sites have the same.
	Name string

	// Hosts are canonical (hostname.FromConfig): "example.com", "*.example.com" (exactly one label more), "*".
	Hosts []string

	// Routes are for some of the requests, the first that matches; all others go to Upstream. In a site with routes one canonical path decides and goes on, and a
	// path that servers read in different ways is refused with 400 (see Match); without routes paths go on byte by byte.
	Routes []Route

	// Wrap puts policies around everything that the site does with requests, those of its routes inside: nil for none. It is called once by every New and Apply; what the
	// handler has to remember longer is its maker's. The handler gets requests with the path that goes on, which is canonical where there are routes, and with a header from which hop-by-hop
	// fields and what only a proxy may say are gone; who asks it learns from ClientOf, RequestID and HostOf. It may change the header, the body and the context
	// (made from the request's own) of the request that it hands on, and wrap the ResponseWriter if that has Unwrap and FlushError. Tunnels go past it: a WebSocket's
	// bytes are not written to the ResponseWriter. It keeps nothing after it has returned (DESIGN 2).
	Wrap func(http.Handler) http.Handler

	// Upstream is where requests go; with Routes it may be nil, and requests that none takes are answered with 404; likewise if the
	// site is OnDemand and Customers say where each name's requests go, 503 for names of which nobody can say. The RoundTripper is safe for concurrent use and fills in scheme and host of the URL itself; its errors become
	// 502 or 504 (see upstream.ErrTimeout).
	Upstream http.RoundTripper

	// Passthrough sends the connections of these hosts on with their TLS. Nothing else of the site counts then but AccessLog, and there is no Upstream.
	Passthrough *Passthrough

	// Headers changes fields of requests and answers; nil for none. That of a route comes after it.
	Headers *Headers

	// AccessLog: requests of this site are logged.
	AccessLog bool

	// BodyBytes bounds a request body; zero means Limits.BodyBytes.
	BodyBytes int64

	// OnDemand: who may be served under the site's wildcards is decided name by name, when a certificate is asked for. Then one name's connection carries no
	// request for another one, unless the certificate covers both. It is always so for names that only "*" covers.
	OnDemand bool

	// HSTS tells browsers for how long to come by https only (RFC 6797), in place of what the upstream says about it; zero leaves that to the upstream. It is
	// rounded down to seconds.
	HSTS time.Duration

	// ClientAuth names the policy for client certificates; empty asks for none. Such a site is never served without TLS.
	ClientAuth string
}

// Metrics receives counts, without names. Implementations return at once and allocate nothing.
type Metrics interface {
	Handshake(ok bool, took time.Duration)
	Request(protocol string, status int, took time.Duration) // protocol "h1", "h2" or "h3"; status 499 where the client left before there was one
	UpstreamError(class string)                              // upstream.Classify, without "canceled"
	Connections(delta int)
}

// noMetrics stands in for a nil Metrics.
type noMetrics struct{}

func (noMetrics) Handshake(bool, time.Duration)      {}
func (noMetrics) Request(string, int, time.Duration) {}
func (noMetrics) UpstreamError(string)               {}
func (noMetrics) Connections(int)                    {}

func (l Limits) withDefaults() Limits {
	orDefault(&l.ProxyHeaderTimeout, 5*time.Second)
	orDefault(&l.HandshakeTimeout, 10*time.Second)
	orDefault(&l.CertificateWait, 30*time.Second)
	orDefault(&l.HeaderTimeout, 10*time.Second)
	orDefault(&l.IdleTimeout, 2*time.Minute)
	orDefault(&l.StallTimeout, time.Minute)
	orDefault(&l.BodyRate, 128)
	orDefault(&l.HeaderBytes, 64<<10)
	return l
}

func orDefault[T comparable](v *T, d T) {
	if *v == *new(T) {
		*v = d
	}
}

// withDefaults checks what is required and fills in what is not.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	if len(c.HTTPS)+len(c.HTTP) == 0 {
		errs = append(errs, errors.New("proxy: no listener"))
	}
	if len(c.HTTPS) > 0 && c.GetCertificate == nil {
		errs = append(errs, errors.New("proxy: HTTPS listeners without GetCertificate"))
	}
	if c.Logger == nil {
		errs = append(errs, errors.New("proxy: no Logger"))
	}
	c.Limits = c.Limits.withDefaults()
	if c.Limits.HeaderBytes < minHeaderBytes {
		errs = append(errs, errors.New("proxy: Limits.HeaderBytes is below 8 KiB, which refuses ordinary browsers"))
	}
	orDefault(&c.MinVersion, tls.VersionTLS12)
	if len(c.Groups) == 0 {
		c.Groups = []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256}
	}
	if c.Metrics == nil {
		c.Metrics = noMetrics{}
	}
	return c, errors.Join(errs...)
}

const minHeaderBytes = 8 << 10
