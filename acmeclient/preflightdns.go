package acmeclient

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// maxLooked bounds how many addresses of a name are connected to, and told of.
const maxLooked = 4

// whereabouts is what the DNS says of a name's addresses.
type whereabouts struct {
	addrs  []netip.Addr
	target string // where CNAMEs lead; empty without any
	absent bool   // the name, or the target, does not exist
	err    error  // nobody can tell, or not all
}

// locateName looks up the name's addresses, and says which of them the CA can use.
func (c *Client) locateName(ctx context.Context, name string) (all, usable []netip.Addr, findings []Finding) {
	w := whereabouts{addrs: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}}
	if name != "localhost" && !strings.HasSuffix(name, ".localhost") { // RFC 6761 §6.3: always this machine, and no question for the DNS
		w = newResolvers(c.cfg.Resolvers).whereIs(ctx, dns.Fqdn(name))
	}
	if f, ok := w.finding(name); ok {
		findings = append(findings, f)
	}
	for _, addr := range w.addrs {
		if connectable(addr, c.cfg.Private) {
			usable = append(usable, addr)
		}
	}
	if len(usable) < len(w.addrs) {
		lost := slices.DeleteFunc(slices.Clone(w.addrs), func(a netip.Addr) bool { return slices.Contains(usable, a) })
		findings = append(findings, Finding{
			Kind: "dns", Refuses: len(usable) == 0,
			Saw:    "it leads to " + listed(lost) + ", which no CA on the Internet can reach",
			Advice: "give " + name + " public addresses that lead to this server, prove it by dns-01, or use the internal CA or a private one",
		})
	}
	return w.addrs, usable, findings
}

// whereIs asks for both kinds of addresses together.
func (r resolvers) whereIs(ctx context.Context, fqdn string) (w whereabouts) {
	var answers [2]*dns.Msg
	var errs [2]error
	var g errgroup.Group
	for i, typ := range []uint16{dns.TypeA, dns.TypeAAAA} {
		g.Go(func() error {
			answers[i], errs[i] = r.ask(ctx, fqdn, typ)
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	for i, m := range answers {
		if errs[i] != nil {
			w.err = errs[i]
			continue
		}
		w.absent = w.absent || m.Rcode == dns.RcodeNameError
		for _, rr := range m.Answer {
			w.add(rr)
		}
	}
	return w
}

func (w *whereabouts) add(rr dns.RR) {
	addr := netip.Addr{}
	switch rr := rr.(type) {
	case *dns.CNAME:
		w.target = clean(strings.TrimSuffix(dns.CanonicalName(rr.Target), "."))
	case *dns.A:
		addr, _ = netip.AddrFromSlice(rr.A)
	case *dns.AAAA:
		addr, _ = netip.AddrFromSlice(rr.AAAA)
	}
	if addr = addr.Unmap(); addr.IsValid() && !slices.Contains(w.addrs, addr) {
		w.addrs = append(w.addrs, addr)
	}
}

// finding is what is wrong where there are no addresses; false if there are.
func (w whereabouts) finding(name string) (Finding, bool) {
	f := Finding{Kind: "dns", Refuses: true, Advice: "add an A or AAAA record for " + name + " that leads to this server"}
	switch {
	case len(w.addrs) > 0:
		return f, false
	case w.absent && w.target != "":
		f.Saw = fmt.Sprintf("its CNAME leads to %s, which does not exist", w.target)
		f.Advice = "correct the CNAME of " + name + ", or replace it by A or AAAA records that lead to this server"
	case w.absent:
		f.Saw = "it does not exist in the DNS"
	case w.err != nil:
		f.Saw, f.Refuses = fmt.Sprintf("its addresses cannot be seen: %v", w.err), false
		f.Advice = "its name servers, and the resolvers of this server (issue.resolvers), must answer"
	case w.target != "":
		f.Saw = fmt.Sprintf("its CNAME leads to %s, which has no addresses", w.target)
	default:
		f.Saw = "it has no addresses"
	}
	return f, true
}

// notPublic are the blocks of addresses that lead nowhere on the Internet, or elsewhere than they seem to, beside those that netip knows (RFC 6890 and IANA's registries of
// special-purpose addresses). Public CAs refuse them.
var notPublic = [...]netip.Prefix{
	netip.PrefixFrom(netip.AddrFrom4([4]byte{0}), 8),
	netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10),      // between customers and their provider
	netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 0}), 24),    // protocols
	netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2}), 24),    // documentation
	netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18}), 15),      // benchmarks
	netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100}), 24), // documentation
	netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113}), 24),  // documentation
	netip.PrefixFrom(netip.AddrFrom4([4]byte{240}), 4),
}

// globalIPv6 is where all of the public IPv6 is so far (2000::/3): what translates to IPv4, such as 64:ff9b::/96, is not in it.
var globalIPv6 = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20}), 3)

// oddIPv6 are the parts of it that are for other things: tunnels that carry IPv4 addresses (Teredo, 6to4) and documentation.
var oddIPv6 = [...]netip.Prefix{
	netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01}), 23),
	netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8}), 32),
	netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x02}), 16),
}

// connectable reports whether a CA can connect to the address, a private one to those of its own network too. Whoever owns the name chooses the address, so we go
// nowhere else either: what is link-local, the metadata service of a cloud above all, is for nobody.
func connectable(a netip.Addr, private bool) bool {
	within := func(p netip.Prefix) bool { return p.Contains(a) }
	switch {
	case private:
		return a.IsLoopback() || a.IsGlobalUnicast()
	case !a.IsGlobalUnicast() || a.IsPrivate():
		return false
	case a.Is4():
		return !slices.ContainsFunc(notPublic[:], within)
	}
	return globalIPv6.Contains(a) && !slices.ContainsFunc(oddIPv6[:], within)
}

// listed are the first addresses for a person.
func listed(addrs []netip.Addr) string {
	var texts []string
	for i, a := range addrs {
		if i == maxLooked {
			texts = append(texts, fmt.Sprintf("%d more", len(addrs)-i))
			break
		}
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}
