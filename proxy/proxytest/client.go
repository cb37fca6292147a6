package proxytest

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// Client returns a client that reaches the proxy in the mode, whatever host its URLs name, and does not follow redirects.
func (p *Proxy) Client(mode Mode) *http.Client { return p.ClientWith(mode, &tls.Config{}) }

// ClientWith is Client with more to its handshakes than the roots, which it adds.
func (p *Proxy) ClientWith(mode Mode, cfg *tls.Config) *http.Client {
	cfg.RootCAs = p.CA.Pool
	if mode.H3 {
		tr := &http3.Transport{TLSClientConfig: cfg, DisableCompression: true, Dial: p.connectQUIC, MaxResponseHeaderBytes: 1 << 20}
		p.t.Cleanup(func() { _ = tr.Close() })
		return &http.Client{Transport: tr, Timeout: 20 * time.Second, CheckRedirect: noRedirect}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!mode.H2)
	protocols.SetHTTP2(mode.H2)
	tr := &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return p.connect(ctx, mode) },
		TLSClientConfig:    cfg,
		Protocols:          protocols,
		DisableCompression: true,
	}
	p.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second, CheckRedirect: noRedirect}
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// connectQUIC opens a QUIC connection to the proxy.
func (p *Proxy) connectQUIC(ctx context.Context, _ string, cfg *tls.Config, qcfg *quic.Config) (*quic.Conn, error) {
	return quic.DialAddrEarly(ctx, p.HTTPS, cfg, qcfg)
}

// connect opens a connection for the mode and sends what comes before all else.
func (p *Proxy) connect(ctx context.Context, mode Mode) (net.Conn, error) {
	network, addr := "tcp", p.Addr(mode)
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil && len(p.First) > 0 {
		_, err = c.Write(p.First)
	}
	return c, err
}

// Addr is where the proxy listens for the mode.
func (p *Proxy) Addr(mode Mode) string {
	if mode.TLS {
		return p.HTTPS
	}
	return p.HTTP
}

// URL is the address of a path at a host in the mode.
func (m Mode) URL(host, path string) string {
	if m.TLS {
		return "https://" + host + path
	}
	return "http://" + host + path
}

// Dial opens a connection to the proxy: plain, or with TLS for the name, over which HTTP/1.1 is spoken.
func (p *Proxy) Dial(mode Mode, name string) net.Conn {
	p.t.Helper()
	c, err := p.connect(context.Background(), mode)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if !mode.TLS {
		return c
	}
	tc := tls.Client(c, &tls.Config{ServerName: name, RootCAs: p.CA.Pool, NextProtos: []string{"http/1.1"}})
	if err := tc.Handshake(); err != nil {
		p.t.Fatal(err)
	}
	return tc
}

// Raw sends the bytes as they are and returns all that comes back until the proxy closes or two seconds pass in silence.
func (p *Proxy) Raw(mode Mode, name, request string) string {
	p.t.Helper()
	c := p.Dial(mode, name)
	if _, err := io.WriteString(c, request); err != nil {
		p.t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	answer, _ := io.ReadAll(c)
	return string(answer)
}

// Do sends a request and returns the answer with its whole body.
func Do(t testing.TB, c *http.Client, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// Get is Do for a GET.
func Get(t testing.TB, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return Do(t, c, r)
}

// RawUpstream answers every connection by a script and hands out what it read, byte by byte as it came.
type RawUpstream struct {
	URL string

	requests chan string
}

// Next returns the header of the next request, as it came.
func (u *RawUpstream) Next(t testing.TB) string {
	t.Helper()
	select {
	case r := <-u.requests:
		return r
	case <-time.After(5 * time.Second):
		t.Fatal("no request reached the upstream")
		return ""
	}
}

// NewRawUpstream starts an upstream that reads the header of one request per connection, gives it to answer, and closes the connection when that returns.
func NewRawUpstream(t testing.TB, answer func(c net.Conn, header string, r *bufio.Reader)) *RawUpstream {
	t.Helper()
	l := Listen(t)
	u := &RawUpstream{URL: "http://" + l.Addr().String(), requests: make(chan string, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go u.serve(c, answer)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return u
}

func (u *RawUpstream) serve(c net.Conn, answer func(net.Conn, string, *bufio.Reader)) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	var header strings.Builder
	for {
		line, err := r.ReadString('\n')
		header.WriteString(line)
		if err != nil {
			return
		}
		if line == "\r\n" {
			break
		}
	}
	u.requests <- header.String()
	answer(c, header.String(), r)
}

// Reply is an answer for NewRawUpstream that writes the bytes and closes.
func Reply(text string) func(net.Conn, string, *bufio.Reader) {
	return func(c net.Conn, _ string, _ *bufio.Reader) { _, _ = io.WriteString(c, text) }
}

// OK is a short answer.
const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
