package proxy

import (
	"crypto/tls"
	"errors"
	"slices"

	"gatelodge/proxy/hostname"
)

// SetTicketKeys replaces the keys of session tickets: the first seals, all open. So a fleet that has the same keys resumes each other's sessions, and
// keys are rotated by putting a new one in front. It may be called at any time. A Server that was given none uses random ones, which it rotates daily.
func (s *Server) SetTicketKeys(keys [][32]byte) error {
	if len(keys) == 0 {
		return errors.New("proxy: no session ticket key; Settings.NoTickets turns tickets off")
	}
	s.tls.SetSessionTicketKeys(keys)
	return nil
}

// bindTickets makes the tickets that handshakes of cfg give out worth nothing elsewhere. A ticket carries the binding of its site's door: otherwise one
// from an open site would open another that asks for client certificates (nginx CVE-2025-23419). Where names are permitted one by one it carries the name
// too, since a resumption asks nobody for a certificate.
func (s *Server) bindTickets(cfg *tls.Config, site *Site, binding string) {
	cfg.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		ss.Extra = append(ss.Extra, []byte(site.ticketBinding(binding, cs.ServerName)))
		return s.tls.EncryptTicket(cs, ss)
	}
	cfg.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		ss, err := s.tls.DecryptTicket(ticket, cs)
		if err != nil || ss == nil {
			return nil, err
		}
		want := site.ticketBinding(binding, cs.ServerName)
		for _, extra := range ss.Extra {
			if string(extra) == want {
				return ss, nil
			}
		}
		return nil, nil // not an error: a full handshake follows
	}
}

// ticketBinding is what a ticket for the SNI carries.
func (s *Site) ticketBinding(binding, sni string) string {
	name, err := hostname.Normalize(sni)
	if err != nil {
		name = "" // all who send no SNI get the same
	}
	if name != "" && s.lists(name) {
		return binding
	}
	return binding + "\x00name:" + name
}

// deadTicket is what takes the place of a ticket where none may be given and RFC 8446 §4.6.1 wants one of a byte at least: nobody can open it.
var deadTicket = []byte("no ticket")

// bindStandIn keeps tickets from the connection if it is served with a certificate that stands in for another. Only where there may be such certificates does a connection get a
// configuration of its own.
func bindStandIn(door *tls.Config, c *conn) *tls.Config {
	if c.state.StandIn == nil {
		return door
	}
	own := door.Clone()
	own.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		if c.state.StandIn(c.cert) {
			return slices.Clone(deadTicket), nil
		}
		return door.WrapSession(cs, ss)
	}
	return own
}
