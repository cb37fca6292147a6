package acmeclient

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"
)

// nameServer is one server of a zone.
type nameServer struct {
	host    string
	addrs   []string // "address:port"; any of them speaks for it
	recurse bool     // it is a resolver: the zone's own servers cannot be asked
}

// The views of a nameServer on a record.
const (
	viewSilent = iota // no answer, or none that says anything
	viewLacks
	viewHas
)

// view asks the server for the record.
func (n *nameServer) view(ctx context.Context, fqdn, value string) int {
	for _, addr := range n.addrs {
		m, err := exchangeDNS(ctx, addr, fqdn, dns.TypeTXT, n.recurse)
		switch {
		case err != nil:
		case hasTXT(m, fqdn, value):
			return viewHas
		default:
			return viewLacks
		}
	}
	return viewSilent
}

// servers returns the authoritative servers of a zone.
func (r resolvers) servers(ctx context.Context, apex string) ([]*nameServer, error) {
	m, err := r.ask(ctx, apex, dns.TypeNS)
	if err != nil {
		return nil, err
	}
	var all []*nameServer
	for _, rr := range m.Answer {
		ns, ok := rr.(*dns.NS)
		if !ok || !strings.EqualFold(ns.Hdr.Name, apex) {
			continue
		}
		n := &nameServer{host: strings.TrimSuffix(dns.CanonicalName(ns.Ns), ".")}
		for _, addr := range r.addresses(ctx, dns.CanonicalName(ns.Ns)) {
			n.addrs = append(n.addrs, net.JoinHostPort(addr, r.port(addr)))
		}
		all = append(all, n)
	}
	return all, nil
}

// addresses returns the addresses of a host. A server whose addresses cannot be found is one that does not answer.
func (r resolvers) addresses(ctx context.Context, host string) (addrs []string) {
	for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA} {
		m, err := r.ask(ctx, host, typ)
		if err != nil {
			continue
		}
		for _, rr := range m.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				addrs = append(addrs, rr.A.String())
			case *dns.AAAA:
				addrs = append(addrs, rr.AAAA.String())
			}
		}
	}
	return addrs
}

// asServers shows the resolvers as servers of a zone whose own cannot be asked.
func (r resolvers) asServers() (all []*nameServer) {
	for _, addr := range r {
		all = append(all, &nameServer{host: addr, addrs: []string{addr}, recurse: true})
	}
	return all
}

// wait returns when all authoritative servers of the zone have the record: the CA may ask any of them. Servers that do not answer us for a while are left
// aside, since the CA cannot ask them either; if none answers, a firewall is likely, and the resolvers are asked in their place.
//
// When PropagationTimeout is over, there is one look more, and none is cut short by it: whatever the error says was seen.
//
// certmagic's own check is not used: one server that has the record is enough for it, and it knows port 53 only.
func (s *DNSSolver) wait(ctx context.Context, rec *dnsRecord) error {
	z := s.zoneFor(rec.FQDN)
	end := time.Now().Add(z.PropagationTimeout)
	r := newResolvers(z.Resolvers)
	servers, err := r.servers(ctx, rec.Zone)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return dnsProblem(rec.Name, "find the name servers of "+clean(rec.Zone), "the resolvers must know the zone; check `resolvers`", err)
	}
	began := time.Now()
	for round := 0; ; round++ {
		last := !time.Now().Before(end)
		views := viewAll(ctx, servers, rec)
		var has, silent, lacks []string
		for i, n := range servers {
			switch views[i] {
			case viewHas:
				has = append(has, n.host)
			case viewLacks:
				lacks = append(lacks, n.host)
			default:
				silent = append(silent, n.host)
			}
		}
		patient := time.Since(began) < s.pace.silence
		switch {
		case len(has) > 0 && len(lacks) == 0 && (len(silent) == 0 || !patient):
			if len(silent) > 0 {
				s.log.Warn("some name servers of the zone do not answer; the others have the record", zap.String("zone", rec.Zone), zap.Strings("servers", silent))
			}
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case last:
			return notPropagated(rec, z, has, lacks, silent)
		case len(has)+len(lacks) == 0 && (len(servers) == 0 || !patient) && !recursing(servers):
			s.log.Warn("no name server of the zone answers; the resolvers are asked instead", zap.String("zone", rec.Zone), zap.Strings("servers", silent))
			servers, began = r.asServers(), time.Now()
		}
		if err := sleep(ctx, min(s.pace.pause(round), time.Until(end))); err != nil {
			return err
		}
	}
}

func recursing(servers []*nameServer) bool { return len(servers) > 0 && servers[0].recurse }

// notPropagated is the Problem of a wait that ended without the record everywhere. A record that is missing and servers that do not answer are different troubles.
func notPropagated(rec *dnsRecord, z *dnsZone, has, lacks, silent []string) error {
	advice := "all name servers of the zone must show the record that [dns." + z.Name + "] writes; check that the provider is the zone's and that its servers are in step"
	if len(lacks) == 0 {
		advice = "the record is not known to be missing, but there are name servers that do not answer this machine: check `resolvers`, the zone's NS records, and that port 53 is open to it"
	}
	p := dnsProblem(rec.Name, "wait for the DNS record", advice, nil)
	p.Detail = fmt.Sprintf("TXT %s is not everywhere after %v: %s", clean(strings.TrimSuffix(rec.FQDN, ".")), z.PropagationTimeout, describeViews(has, lacks, silent))
	return p
}

// describeViews says who lacks the record, for a person.
func describeViews(has, lacks, silent []string) string {
	var parts []string
	for _, group := range []struct {
		what  string
		hosts []string
	}{{"missing at", lacks}, {"no answer from", silent}, {"present at", has}} {
		if len(group.hosts) > 0 {
			parts = append(parts, group.what+" "+clean(strings.Join(group.hosts, ", ")))
		}
	}
	return strings.Join(parts, "; ")
}

// viewAll asks all servers at once, and waits for all answers.
func viewAll(ctx context.Context, servers []*nameServer, rec *dnsRecord) []int {
	views := make([]int, len(servers))
	var asked sync.WaitGroup
	for i, n := range servers {
		asked.Go(func() { views[i] = n.view(ctx, rec.FQDN, rec.Value) })
	}
	asked.Wait()
	return views
}
