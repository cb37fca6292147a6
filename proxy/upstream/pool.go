package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// Pool brings requests to its target over connections that it keeps. It is safe for concurrent use.
type Pool struct {
	cfg    Config
	target *url.URL

	// main carries all requests, over HTTP/2 where an https target offers it; upgrade only those that ask for another protocol, which
	// HTTP/1.1 alone can do (RFC 9110 §7.8).
	main, upgrade *http.Transport

	closed atomic.Bool
}

var _ http.RoundTripper = (*Pool)(nil)

// New returns a pool that has no connections yet.
func New(cfg Config) (*Pool, error) {
	cfg = cfg.withDefaults()
	target, err := cfg.target()
	if err != nil {
		return nil, err
	}
	return &Pool{cfg: cfg, target: target, main: newTransport(cfg, target, true), upgrade: newTransport(cfg, target, false)}, nil
}

// newTransport is http.DefaultTransport without what a proxy must not do: no environment proxies, no Accept-Encoding of its own (RFC 9110
// §12.5.3: it is the client's to say), no limit of two idle connections.
func newTransport(cfg Config, target *url.URL, h2 bool) *http.Transport {
	dialer := &net.Dialer{Timeout: cfg.ConnectTimeout, KeepAlive: 15 * time.Second}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(h2 && target.Scheme == "https")
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, dialError{err}
			}
			return conn, nil
		},
		TLSClientConfig: &tls.Config{
			ServerName: cfg.TLS.ServerName, RootCAs: cfg.TLS.Roots, InsecureSkipVerify: cfg.TLS.SkipVerify,
			ClientSessionCache: tls.NewLRUClientSessionCache(64), MinVersion: tls.VersionTLS12,
		},
		Protocols:              protocols,
		TLSHandshakeTimeout:    cfg.ConnectTimeout,
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
}

// String returns the target, for logs.
func (p *Pool) String() string { return p.target.Scheme + "://" + p.target.Host }

// RoundTrip sends r to the target, whatever scheme and host r.URL names; r.Host goes to the upstream as it is. All its errors are of type
// *Error. Nothing is sent twice but requests without a body that are idempotent, or of which no byte was written (RFC 9110 §9.2.2).
func (p *Pool) RoundTrip(r *http.Request) (*http.Response, error) {
	u := *r.URL
	u.Scheme, u.Host = p.target.Scheme, p.target.Host
	out := r.WithContext(r.Context())
	out.URL = &u

	out.Close = p.closed.Load()
	transport := p.main
	if r.Header["Upgrade"] != nil {
		transport = p.upgrade
	}
	res, err := transport.RoundTrip(out)
	if err != nil {
		return nil, &Error{Target: p.String(), Class: classOf(r.Context(), err), Err: err}
	}
	if err := check(r, res); err != nil {
		_ = res.Body.Close()
		return nil, &Error{Target: p.String(), Class: ErrProtocol, Err: err}
	}
	res.Body = p.wrapBody(r, res)
	return res, nil
}

// check refuses answers that http.Transport lets through and that would confuse whoever reads them next.
func check(r *http.Request, res *http.Response) error {
	overH2 := res.TLS != nil && res.TLS.NegotiatedProtocol == "h2"
	if !overH2 && res.ProtoMajor != 1 {
		return fmt.Errorf("status line says %s on an HTTP/1.1 connection", res.Proto)
	}
	if res.StatusCode == http.StatusSwitchingProtocols && r.Header["Upgrade"] == nil {
		return errors.New("101 Switching Protocols without being asked")
	}
	if res.StatusCode < 101 || res.StatusCode > 599 {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return nil
}

// wrapBody makes errors while reading the body of the same kind as those before it. The body of a 101 answer stays as it is: it is a connection.
func (p *Pool) wrapBody(r *http.Request, res *http.Response) io.ReadCloser {
	if res.StatusCode == http.StatusSwitchingProtocols || res.Body == http.NoBody {
		return res.Body
	}
	return &body{ReadCloser: res.Body, ctx: r.Context(), pool: p}
}

type body struct {
	io.ReadCloser
	ctx  context.Context
	pool *Pool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = &Error{Target: b.pool.String(), Class: classOf(b.ctx, err), Err: err}
	}
	return n, err
}

// Close closes the connections that are not in use. Requests that began before a reload may still use the Pool; their connections close
// behind them.
func (p *Pool) Close() error {
	p.closed.Store(true)
	p.main.CloseIdleConnections()
	p.upgrade.CloseIdleConnections()
	return nil
}
