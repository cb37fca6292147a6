package acmeclient

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/miekg/dns"
)

// Bounds of one question to one server.
const (
	udpTimeout = 2 * time.Second
	tcpTimeout = 3 * time.Second
	udpSize    = 1232 // bytes; larger answers come over TCP (DNS flag day 2020)
)

// resolvers are recursive name servers, "host:port".
type resolvers []string

// newResolvers returns the configured ones, or else the system's.
func newResolvers(configured []string) resolvers { return certmagic.RecursiveNameservers(configured) }

// ask returns the answer of the first resolver that has one: records, none, or that the name does not exist.
func (r resolvers) ask(ctx context.Context, fqdn string, typ uint16) (*dns.Msg, error) {
	failed := fmt.Errorf("look up %s %s", dns.TypeToString[typ], fqdn)
	for i, server := range r {
		m, err := exchangeDNS(ctx, server, fqdn, typ, true)
		switch {
		case err == nil:
			return m, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("look up %s %s: %w", dns.TypeToString[typ], fqdn, ctx.Err())
		case i == 0:
			failed = fmt.Errorf("%w: %w", failed, err)
		default:
			failed = fmt.Errorf("%w; %w", failed, err)
		}
	}
	return nil, failed
}

// port returns where to ask the authoritative server at an address: 53, or the port of the resolver at the same address.
func (r resolvers) port(addr string) string {
	for _, server := range r {
		if host, port, err := net.SplitHostPort(server); err == nil && host == addr {
			return port
		}
	}
	return "53"
}

// exchangeDNS asks one server, by UDP, then by TCP if the answer is too long or none comes. Answers other than NOERROR and NXDOMAIN are errors.
func exchangeDNS(ctx context.Context, server, fqdn string, typ uint16, recurse bool) (*dns.Msg, error) {
	q := new(dns.Msg).SetQuestion(fqdn, typ)
	q.SetEdns0(udpSize, false)
	q.RecursionDesired = recurse
	udp := &dns.Client{Net: "udp", Timeout: udpTimeout, UDPSize: udpSize}
	m, _, err := udp.ExchangeContext(ctx, q, server)
	if ctx.Err() == nil && (err != nil || m.Truncated) {
		tcp := &dns.Client{Net: "tcp", Timeout: tcpTimeout}
		m, _, err = tcp.ExchangeContext(ctx, q, server)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask %s: %w", server, err)
	case len(m.Question) != 1 || !strings.EqualFold(m.Question[0].Name, fqdn) || m.Question[0].Qtype != typ:
		return nil, fmt.Errorf("ask %s: it answers another question", server)
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return nil, fmt.Errorf("ask %s: it answers %s", server, dns.RcodeToString[m.Rcode])
	}
	return m, nil
}

// cnameOf returns where the answer leads the name, canonical; empty if nowhere.
func cnameOf(m *dns.Msg, fqdn string) string {
	for _, rr := range m.Answer {
		if c, ok := rr.(*dns.CNAME); ok && strings.EqualFold(c.Hdr.Name, fqdn) {
			return dns.CanonicalName(c.Target)
		}
	}
	return ""
}

// apexOf returns the zone that the answer about the name comes from, by the SOA record in it; empty if it does not say.
func apexOf(m *dns.Msg, fqdn string) string {
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range section {
			if soa, ok := rr.(*dns.SOA); ok && dns.IsSubDomain(soa.Hdr.Name, fqdn) {
				return dns.CanonicalName(soa.Hdr.Name)
			}
		}
	}
	return ""
}

// hasTXT reports whether the value is one of the name's TXT records.
func hasTXT(m *dns.Msg, fqdn, value string) bool {
	for _, rr := range m.Answer {
		if t, ok := rr.(*dns.TXT); ok && strings.EqualFold(t.Hdr.Name, fqdn) && strings.Join(t.Txt, "") == value {
			return true
		}
	}
	return false
}
