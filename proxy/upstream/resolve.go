package upstream

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// group is a configured target and its endpoints: one, but for a name that has several addresses.
type group struct {
	target    Target
	weight    int
	named     bool // its host is a name, whose addresses may change
	due       atomic.Int64
	endpoints []*endpoint  // guarded by Pool.mu
	addrs     []netip.Addr // sorted; nil before the first answer; guarded by Pool.mu
}

func (p *Pool) newGroup(t Target, weight int) *group {
	g := &group{target: t, weight: weight}
	if name := t.name(); name != "" {
		_, err := netip.ParseAddr(name)
		g.named = err != nil
	}
	network, addr := t.dialled()
	g.endpoints = []*endpoint{p.newEndpoint(t, weight, t.String(), network, addr)}
	return g
}

// refresh looks up the names whose addresses are too old. It does not wait for the answers. A pool that nobody uses looks up nothing.
func (p *Pool) refresh(now time.Time) {
	for _, g := range p.groups {
		due := g.due.Load()
		if g.named && now.UnixNano() >= due && g.due.CompareAndSwap(due, now.Add(p.cfg.ResolveEvery).UnixNano()) {
			p.goOn(func(ctx context.Context) { p.resolve(ctx, g) })
		}
	}
}

// lookupTimeout bounds one look-up. Until it has an answer the old addresses are good.
const lookupTimeout = 5 * time.Second

// maxAddrs bounds the endpoints of one name.
const maxAddrs = 64

// resolve asks for the addresses of a group's name and makes the endpoints fit them.
func (p *Pool) resolve(ctx context.Context, g *group) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := p.cfg.Lookup(ctx, g.target.name())
	if err != nil || len(addrs) == 0 {
		p.log.Debug("addresses not looked up, the old ones stay", zap.String("upstream", g.target.String()), zap.Error(err))
		return
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	if len(addrs) > maxAddrs {
		addrs = addrs[:maxAddrs]
	}
	p.settle(g, addrs)
}

// settle gives the group the endpoints of its addresses. Those that are still there stay, with their connections and what is known of their health; the
// others finish what they carry.
func (p *Pool) settle(g *group, addrs []netip.Addr) {
	for _, e := range p.replace(g, addrs) {
		e.retire()
	}
	p.admit()
}

// replace does it, and returns the endpoints that are gone.
func (p *Pool) replace(g *group, addrs []netip.Addr) (gone []*endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Equal(addrs, g.addrs) || p.closed.Load() {
		return nil
	}
	first := g.addrs == nil
	g.addrs = addrs
	hosts := hostsOf(addrs)
	if first && len(hosts) == 0 {
		return nil // the endpoint that dials by name is the right one
	}
	old := g.endpoints
	g.endpoints = nil
	if len(hosts) == 0 {
		network, addr := g.target.dialled()
		g.endpoints = []*endpoint{p.newEndpoint(g.target, g.weight, g.target.String(), network, addr)}
	}
	for _, host := range hosts {
		g.endpoints = append(g.endpoints, p.endpointAt(g, old, host))
	}
	p.collect()
	p.log.Info("target has other addresses", zap.String("upstream", g.target.String()), zap.Stringers("addresses", addrs))
	return slices.DeleteFunc(old, func(e *endpoint) bool { return slices.Contains(g.endpoints, e) })
}

// hostsOf returns the addresses that are hosts of their own: none for a name with no more than one of each family, which are two ways to the same host
// (RFC 8305) and dialled by name; else those of IPv4 if there are any.
func hostsOf(addrs []netip.Addr) []netip.Addr {
	v6 := slices.IndexFunc(addrs, netip.Addr.Is6) // sorted: IPv4 comes first
	if v6 < 0 {
		v6 = len(addrs)
	}
	switch {
	case v6 <= 1 && len(addrs)-v6 <= 1:
		return nil
	case v6 > 0:
		return addrs[:v6]
	}
	return addrs
}

// endpointAt returns the endpoint at the address: the old one, or a new one that starts slowly.
func (p *Pool) endpointAt(g *group, old []*endpoint, host netip.Addr) *endpoint {
	addr := net.JoinHostPort(host.String(), g.target.port())
	label := g.target.Scheme + "://" + addr
	for _, e := range old {
		if e.label == label {
			return e
		}
	}
	e := p.newEndpoint(g.target, g.weight, label, "tcp", addr)
	if len(old) > 1 && p.cfg.SlowStart > 0 {
		e.upSince.Store(time.Now().UnixNano())
	}
	return e
}

// collect makes the list that requests choose from. The caller holds p.mu, or is New.
func (p *Pool) collect() {
	var all []*endpoint
	for _, g := range p.groups {
		all = append(all, g.endpoints...)
	}
	p.members.Store(&all)
}
