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
	h1, h2 := new(http.Protocols), new(http.Protocols)
	h1.SetHTTP1(true)
	switch t.Scheme {
	case "https":
		h2.SetHTTP1(true)
		h2.SetHTTP2(true)
	case "h2c":
		h2.SetUnencryptedHTTP2(true) // by prior knowledge (RFC 9113 §3.3)
	default:
		main = newTransport(cfg, network, addr, h1)
		return main, main
	}
	return newTransport(cfg, network, addr, h2), newTransport(cfg, network, addr, h1)
}

// newTransport is http.DefaultTransport without what a proxy must not do: no environment proxies, no Accept-Encoding of its own (RFC 9110
// §12.5.3: it is the client's to say), no limit of two idle connections. It connects to addr, whatever host a request names.
func newTransport(cfg *Config, network, addr string, protocols *http.Protocols) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
			defer cancel()
			conn, err := cfg.Dial(ctx, network, addr)
			if err != nil {
				return nil, dialError{err}
			}
			return conn, nil
		},
		TLSClientConfig: &tls.Config{
			ServerName: cfg.TLS.ServerName, RootCAs: cfg.TLS.Roots, Certificates: cfg.TLS.Certificates, InsecureSkipVerify: cfg.TLS.SkipVerify,
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
