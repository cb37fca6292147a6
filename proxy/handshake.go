package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/hostname"
)

// acmeALPN is the protocol of a CA's tls-alpn-01 validation (RFC 8737 §6.2). The handshake is all there is to it.
const acmeALPN = "acme-tls/1"

// handshake starts the TLS handshake of an accepted connection and gives the result to the engine of its protocol.
func (s *Server) handshake(c *conn) {
	s.handshakes.add()
	go func() {
		defer s.handshakes.done()
		if err := s.introduce(c); err != nil {
			s.turnAway(c, err)
			return
		}
		tc, err := s.shakeHands(c)
		if c.passing != nil {
			s.passThrough(c)
			return
		}
		s.cfg.Metrics.Handshake(err == nil, time.Since(c.accepted))
		if err != nil {
			s.refuse(c, err)
			return
		}
		cs := tc.ConnectionState()
		c.shaken(&cs)
		switch cs.NegotiatedProtocol {
		case acmeALPN:
			_ = tc.Close() // RFC 8737 §3: the connection carries nothing else
		case "h2":
			c.h2 = newH2Budget(time.Now())
			s.h2Queue.put(tc)
		default:
			s.h1Queue.put(s.newH1Conn(c, tc))
		}
	}()
}

var errTooManyHandshakes = errors.New("too many handshakes of this client")

// shakeHands bounds the client's part of the handshake by a deadline on the connection, which stands still while GetCertificate works, and the whole
// by the context.
func (s *Server) shakeHands(c *conn) (*tls.Conn, error) {
	if rate := s.state.Load().HandshakesPerClient; !c.local() && !s.handshakeRate.take(c.peer, rate) {
		return nil, errTooManyHandshakes
	}
	l := s.cfg.Limits
	ctx, cancel := context.WithTimeout(s.handshaking, l.HandshakeTimeout+l.CertificateWait)
	defer cancel()
	if err := c.SetDeadline(time.Now().Add(l.HandshakeTimeout)); err != nil {
		return nil, err
	}
	if c.state = s.state.Load(); c.state.passes {
		c.watch()
	}
	tc := tls.Server(c, s.tls)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return tc, c.SetDeadline(time.Time{})
}

// refuse ends a connection whose handshake failed. Scanners do this all day, so it is Debug and a counter.
func (s *Server) refuse(c *conn, err error) {
	if e := s.log.Check(zap.DebugLevel, "handshake"); e != nil {
		e.Write(zap.Error(err), zap.Stringer("client", c.peer), zap.String("name", c.name))
	}
	if re, ok := errors.AsType[tls.RecordHeaderError](err); ok && re.Conn != nil && looksLikeHTTP(re.RecordHeader) {
		_, _ = io.WriteString(re.Conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThis port speaks HTTPS.\n")
	}
	_ = c.Close()
}

func looksLikeHTTP(record [5]byte) bool {
	return slices.Contains([]string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO"}, string(record[:]))
}

// baseConfig is where every handshake begins: it chooses the site, once, and goes on with the configuration of that site (see newDoor).
func (s *Server) baseConfig() *tls.Config {
	base := &tls.Config{
		MinVersion:       s.cfg.MinVersion,
		CurvePreferences: s.cfg.Groups,
		NextProtos:       []string{"h2", "http/1.1"},
	}
	refuse := base.Clone()
	refuse.SessionTicketsDisabled = true // or a ticket from another site would get in without a certificate being asked for
	// With neither a certificate nor an error crypto/tls sends unrecognized_name (RFC 6066 §3).
	refuse.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }

	challenge := base.Clone()
	challenge.NextProtos = []string{acmeALPN}
	challenge.SessionTicketsDisabled = true
	challenge.GetCertificate = s.getCertificate

	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c := connOfHello(hello)
		if c.h3 != nil {
			c.Conn = hello.Conn // which knows the addresses, and no more
		}
		// RFC 8737 §3: the CA offers exactly this protocol. Who may be validated is for the certificates to say; no site is involved.
		validation := len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmeALPN
		i, ok := c.settle(hello.ServerName, !validation)
		if ok && c.state.Sites[i].Passthrough != nil {
			if c.h3 != nil { // QUIC cannot pass through: a client comes again by TCP
				return refuse, nil
			}
			return nil, c.passTo(&c.state.Sites[i])
		}
		c.unwatch()
		switch {
		case validation:
			return challenge, nil
		case !ok:
			if c.state.UnknownClose && c.h3 == nil {
				_ = c.Close()
			}
			return refuse, nil
		}
		c.site, c.binding = c.state.Sites[i].Name, c.state.doors[i].binding
		return bindStandIn(c.state.doors[i].tls, c), nil
	}
	return base
}

// settle decides for which name the connection is, and finds its site.
func (c *conn) settle(sni string, useDefault bool) (site int, ok bool) {
	st := c.state
	c.name = st.handshakeName(sni, c.LocalAddr())
	if c.name != "" {
		site, ok = st.table.hosts.Lookup(c.name)
	}
	if !ok && useDefault && st.UnknownDefault {
		c.name = st.DefaultName
		site, ok = st.table.hosts.Lookup(c.name)
	}
	return site, ok
}

// handshakeName returns the canonical form of what the client asked for; empty if that is no name at all. A client that connects to an address sends no
// SNI (RFC 6066 §3: "Literal IPv4 and IPv6 addresses are not permitted"), so it gets the site that has this address as a host, else DefaultName.
func (st *state) handshakeName(sni string, local net.Addr) string {
	if sni != "" {
		name, err := hostname.Normalize(sni)
		if err != nil {
			return ""
		}
		return name
	}
	if ap := addrPortOf(local); ap.IsValid() {
		addr := ap.Addr().Unmap().WithZone("").String()
		if site, ok := st.table.Site(addr); ok && slices.Contains(site.Hosts, addr) {
			return addr
		}
	}
	return st.DefaultName
}

// newDoor is how handshakes with one site go.
func (s *Server) newDoor(site *Site, policy *clientPolicy, tickets bool) door {
	if site.Passthrough != nil {
		return door{binding: "elsewhere:" + site.Name} // which no connection of ours has
	}
	d := door{binding: "site:" + site.Name, tls: s.tls.Clone()}
	if site.HSTS >= time.Second {
		d.hsts = []string{"max-age=" + strconv.FormatInt(int64(site.HSTS/time.Second), 10)}
	}
	d.tls.GetConfigForClient = nil
	d.tls.GetCertificate = s.getCertificate
	d.tls.SessionTicketsDisabled = !tickets
	if policy != nil {
		d.binding += "\x00client:" + policy.print
		policy.apply(d.tls)
	}
	s.bindTickets(d.tls, site, d.binding)
	return d
}

// getCertificate asks for the certificate of the name that GetConfigForClient settled. The client's clock stands still meanwhile.
func (s *Server) getCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c := connOfHello(hello)
	if c.name == "" {
		return nil, nil
	}
	hello.ServerName = c.name
	_ = c.SetDeadline(time.Time{})
	cert, err := s.cfg.GetCertificate(hello)
	_ = c.SetDeadline(time.Now().Add(s.cfg.Limits.HandshakeTimeout))
	c.cert = cert
	return cert, err
}
