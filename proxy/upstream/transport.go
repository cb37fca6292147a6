package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

// newTransports returns what carries the requests to one endpoint: main all but those that ask for another protocol, which HTTP/1.1 alone can do
// (RFC 9110 §7.8). Both are the same where main speaks nothing else.
func newTransports(cfg *Config, t Target, network, addr string) (main, upgrade *http.Transport) {
	d := &dialer{cfg: cfg, network: network, addr: addr}
	h1, h2 := new(http.Protocols), new(http.Protocols)
	h1.SetHTTP1(true)
	switch t.Scheme {
	case "https":
		h2.SetHTTP1(true)
		h2.SetHTTP2(true)
		d.tls = cfg.TLS.config(t.name())
	case "h2c":
		h2.SetUnencryptedHTTP2(true) // by prior knowledge (RFC 9113 §3.3)
	default:
		main = newTransport(cfg, d, h1)
		return main, main
	}
	return newTransport(cfg, d, h2), newTransport(cfg, d, h1)
}

// newTransport is http.DefaultTransport without what a proxy must not do: no environment proxies, no Accept-Encoding of its own (RFC 9110
// §12.5.3: it is the client's to say), no limit of two idle connections. It connects to the endpoint, whatever host a request names.
func newTransport(cfg *Config, d *dialer, protocols *http.Protocols) *http.Transport {
	t := &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return d.http1(ctx) },
		DialTLSContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return d.shakeHands(ctx, protocols.HTTP2()) },
		Protocols:              protocols,
		ResponseHeaderTimeout:  cfg.ResponseHeaderTimeout,
		IdleConnTimeout:        cfg.IdleTimeout,
		MaxResponseHeaderBytes: cfg.ResponseHeaderBytes,
		MaxIdleConnsPerHost:    512, // one host is all there is; bursts should not end in handshakes
		DisableCompression:     true,
		WriteBufferSize:        16 << 10,
		ReadBufferSize:         16 << 10,
		// With ExpectContinueTimeout zero the transport asks for the body at once; the proxy's body waits for the upstream's word itself.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	if protocols.UnencryptedHTTP2() {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return d.connect(ctx) }
	}
	return t
}

// config is the same for all connections to the host, so that they resume each other's sessions.
func (t TLS) config(host string) *tls.Config {
	if t.ServerName != "" {
		host = t.ServerName
	}
	return &tls.Config{
		ServerName: host, RootCAs: t.Roots, Certificates: t.Certificates, InsecureSkipVerify: t.SkipVerify,
		ClientSessionCache: tls.NewLRUClientSessionCache(64), MinVersion: tls.VersionTLS12,
	}
}

// dialer opens connections to one endpoint.
type dialer struct {
	cfg           *Config
	network, addr string
	tls           *tls.Config // of an https target
}

func (d *dialer) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.ConnectTimeout)
	defer cancel()
	conn, err := d.cfg.Dial(ctx, d.network, d.addr)
	if err != nil {
		return nil, dialError{err}
	}
	return conn, nil
}

func (d *dialer) http1(ctx context.Context) (net.Conn, error) {
	conn, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	return &guardedConn{Conn: conn}, nil
}

// shakeHands opens a connection with TLS, over which HTTP/2 is spoken if both want to.
func (d *dialer) shakeHands(ctx context.Context, h2 bool) (net.Conn, error) {
	conn, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	cfg := d.tls.Clone()
	cfg.NextProtos = []string{"http/1.1"}
	if h2 {
		cfg.NextProtos = []string{"h2", "http/1.1"}
	}
	secure := tls.Client(conn, cfg)
	ctx, cancel := context.WithTimeout(ctx, d.cfg.ConnectTimeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, dialError{err}
	}
	if secure.ConnectionState().NegotiatedProtocol == "h2" {
		return secure, nil // http.Transport knows it by its type
	}
	return &guardedConn{Conn: secure}, nil
}
