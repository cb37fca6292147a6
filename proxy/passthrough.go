package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/upstream"
)

// Passthrough sends connections on as they are: whoever is behind terminates their TLS. All that we see of them is the name in the ClientHello.
type Passthrough struct {
	// To is the host and port of whoever terminates TLS.
	To string

	// SendProxy is the version of the PROXY protocol header that goes first and says who the client is: 1 or 2; zero sends none.
	SendProxy int

	// ConnectTimeout bounds the time to a connection. Zero means 3 s.
	ConnectTimeout time.Duration

	// IdleTimeout ends a connection on which nothing has passed in either direction for so long. Zero means an hour.
	IdleTimeout time.Duration
}

// ParsePassthrough reads "tcp://10.0.0.20:8443", with "?proxy_protocol=v1" or "v2" behind it to send that.
func ParsePassthrough(s string) (*Passthrough, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "tcp" || u.User != nil || u.Path != "" || u.Fragment != "" || u.Opaque != "" {
		return nil, fmt.Errorf("passthrough %q: write tcp://HOST:PORT", s)
	}
	p := &Passthrough{To: u.Host}
	switch u.RawQuery {
	case "":
	case "proxy_protocol=v1":
		p.SendProxy = 1
	case "proxy_protocol=v2":
		p.SendProxy = 2
	default:
		return nil, fmt.Errorf("passthrough %q: behind ? may stand proxy_protocol=v1 or proxy_protocol=v2", s)
	}
	return p, p.check()
}

func (p *Passthrough) check() error {
	host, port, err := net.SplitHostPort(p.To)
	if err != nil || host == "" {
		return fmt.Errorf("passthrough to %q: a host and a port are needed", p.To)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("passthrough to %q: port %q is not in 1-65535", p.To, port)
	}
	if p.SendProxy < 0 || p.SendProxy > 2 {
		return fmt.Errorf("passthrough to %q: the PROXY protocol has no version %d", p.To, p.SendProxy)
	}
	return nil
}

// errPassThrough ends our part of a handshake that somebody else does.
var errPassThrough = errors.New("passes through")

// maxSeen bounds the ClientHello of a connection that may pass through, its records' headers included. crypto/tls takes no longer ones.
const maxSeen = 64 << 10

var errHelloTooLong = errors.New("ClientHello of more than 64 KiB")

// watch keeps what is read from now on. crypto/tls then reads the ClientHello in whatever records it comes, so the name that decides about passing through is
// found by the same code and the same lookup as all others (Traefik CVE-2026-32305).
func (c *conn) watch() { c.watching = true }

// unwatch forgets what was read: the handshake is ours.
func (c *conn) unwatch() { c.watching, c.seen = false, nil }

// passTo makes the connection one for site, and the answer of crypto/tls go nowhere: the client is not ours to talk to.
func (c *conn) passTo(site *Site) error {
	c.passing, c.hushed = site, true
	return errPassThrough
}

// passThrough connects the client with whoever terminates its TLS, which gets the ClientHello first, and copies both ways. It counts as a request.
func (s *Server) passThrough(c *conn) {
	s.requests.add()
	defer s.requests.done()
	t := &tunnel{client: c}
	defer s.recordPassage(c, t)
	defer func() { _ = c.Close() }()
	hello := c.seen
	c.unwatch()
	c.hushed = false

	back, err := c.passing.Passthrough.connect(s.ctx, c, hello)
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		t.err = err
		s.cfg.Metrics.UpstreamError("connect")
		s.log.Warn("upstream failed", zap.String("site", c.passing.Name), zap.Error(err))
		return
	}
	t.back = back
	defer func() { _ = t.Close() }()
	if !s.tunnels.add(t, carrier{c.passing.Name, c.passing.Passthrough.To}) {
		t.err = errDraining
		return
	}
	defer s.tunnels.remove(t)
	t.up.Store(int64(len(hello)))
	t.idle = c.passing.Passthrough.IdleTimeout
	orDefault(&t.idle, time.Hour)
	t.run(c)
}

// connect opens the connection and sends what goes first.
func (p *Passthrough) connect(ctx context.Context, c *conn, hello []byte) (net.Conn, error) {
	timeout := p.ConnectTimeout
	orDefault(&timeout, 3*time.Second)
	back, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, "tcp", p.To)
	if err != nil {
		return nil, &upstream.Error{Target: "tcp://" + p.To, Class: upstream.ErrConnect, Err: err}
	}
	first := hello
	if p.SendProxy != 0 {
		first = append(appendProxyHeader(nil, p.SendProxy, addrPortOf(c.RemoteAddr()), addrPortOf(c.LocalAddr())), hello...)
	}
	_ = back.SetWriteDeadline(time.Now().Add(timeout))
	_, err = back.Write(first)
	_ = back.SetWriteDeadline(time.Time{})
	if err != nil {
		_ = back.Close()
		return nil, &upstream.Error{Target: "tcp://" + p.To, Class: upstream.ErrConnect, Err: err}
	}
	return back, nil
}

// addrPortOf returns the address and port of TCP or UDP; it is not valid for anything else.
func addrPortOf(a net.Addr) netip.AddrPort {
	if ap, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		return ap.AddrPort()
	}
	return netip.AddrPort{}
}

// recordPassage writes a connection that passed through into the access log.
func (s *Server) recordPassage(c *conn, t *tunnel) {
	if s.cfg.AccessLog == nil || !c.passing.AccessLog {
		return
	}
	fields := []zap.Field{
		zap.Stringer("client", c.peer), zap.String("host", c.name), zap.String("site", c.passing.Name), zap.String("upstream", "tcp://"+c.passing.Passthrough.To),
		zap.Int64("bytes_out", t.down.Load()), zap.Int64("bytes_in", t.up.Load()), zap.Duration("duration", time.Since(c.accepted)),
	}
	if t.err != nil {
		fields = append(fields, zap.Error(t.err))
	}
	s.cfg.AccessLog.Info("passthrough", fields...)
}
