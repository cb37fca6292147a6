package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"go.uber.org/zap"
)

// introduce settles who has connected: where a balancer has to say it by the PROXY protocol, by reading that. It has a deadline of its own.
func (s *Server) introduce(c *conn) error {
	p := &s.state.Load().ProxyProtocol
	if !p.expectedOf(c) {
		return nil
	}
	stop := context.AfterFunc(s.handshaking, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.SetReadDeadline(time.Now().Add(s.cfg.Limits.ProxyHeaderTimeout)); err != nil {
		return err
	}
	if err := c.readProxyHeader(p); err != nil {
		return err
	}
	if !stop() {
		return context.Cause(s.handshaking)
	}
	return c.SetReadDeadline(time.Time{})
}

// expectedOf reports whether the connection must begin with the header.
func (p *ProxyProtocol) expectedOf(c *conn) bool {
	if !p.on() {
		return false
	}
	if c.local() {
		return true
	}
	for _, network := range p.From {
		if network.Contains(c.peer) {
			return true
		}
	}
	return false
}

// readProxyHeader reads the header and lets the connection have the addresses that it carries. What came behind it stays to be read.
func (c *conn) readProxyHeader(p *ProxyProtocol) error {
	buf := make([]byte, 0, 1<<10) // room for a ClientHello too, which often comes in the same packet
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, make([]byte, maxProxyV2)...)[:len(buf)]
		}
		n, err := c.Conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		h, size, perr := p.parse(buf)
		if perr == nil {
			c.ahead = buf[size:]
			if h.client.IsValid() {
				c.carried = &h
				c.peer = h.client.Addr()
			}
			return nil
		}
		if !errors.Is(perr, errProxyHeaderShort) {
			return perr
		}
		if err != nil {
			return err
		}
	}
}

// turnAway ends a connection that said nothing sensible about who it is from.
func (s *Server) turnAway(c *conn, err error) {
	if e := s.log.Check(zap.DebugLevel, "PROXY protocol"); e != nil {
		e.Write(zap.Error(err), zap.Stringer("peer", c.peer))
	}
	_ = c.Close()
}

// local reports whether the peer is a process of this host on a unix socket.
func (c *conn) local() bool {
	_, ok := c.Conn.LocalAddr().(*net.UnixAddr)
	return ok
}

// loopback stands for the peers of unix sockets wherever an address is needed.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// RemoteAddr is the client's address, by the word of the balancer where there is one.
func (c *conn) RemoteAddr() net.Addr {
	if c.carried != nil {
		return net.TCPAddrFromAddrPort(c.carried.client)
	}
	return c.Conn.RemoteAddr()
}

// LocalAddr is the address that the client connected to, by the word of the balancer where there is one.
func (c *conn) LocalAddr() net.Addr {
	if c.carried != nil {
		return net.TCPAddrFromAddrPort(c.carried.server)
	}
	return c.Conn.LocalAddr()
}
