package policy

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sort"
)

// NetworksConfig says from where one may ask.
type NetworksConfig struct {
	// Allow: only from these networks. Empty: from everywhere.
	Allow []netip.Prefix

	// Deny: not from these, also where Allow has them.
	Deny []netip.Prefix

	Client ClientAddr // required
	Refuse Refuse
}

// Networks answers 403 to clients from the wrong networks. A client without an address, such as one on a unix socket, is in no network.
type Networks struct {
	cfg         NetworksConfig
	allow, deny ranges
}

// NewNetworks returns an error for a network that is none.
func NewNetworks(cfg NetworksConfig) (*Networks, error) {
	if cfg.Client == nil {
		return nil, errors.New("policy: allow and deny need to know the client")
	}
	n := &Networks{cfg: cfg}
	n.cfg.Refuse = cfg.Refuse.orPlain()
	var err, err2 error
	n.allow, err = newRanges(cfg.Allow)
	n.deny, err2 = newRanges(cfg.Deny)
	return n, errors.Join(err, err2)
}

// Wrap lets through who may ask.
func (n *Networks) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !n.permits(n.cfg.Client(r)) {
			n.cfg.Refuse(w, r, http.StatusForbidden, "the client's network may not ask")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (n *Networks) permits(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return !n.deny.contain(a) && (len(n.allow) == 0 || n.allow.contain(a))
}

// ranges are addresses from first to last, sorted, none overlapping, so that a list of ten thousand networks costs fourteen comparisons.
type ranges []addrRange

type addrRange struct{ first, last netip.Addr }

func newRanges(prefixes []netip.Prefix) (ranges, error) {
	var all ranges
	for _, p := range prefixes {
		if !p.IsValid() {
			return nil, fmt.Errorf("policy: %v is no network", p)
		}
		if a := p.Addr(); a.Is4In6() {
			if p.Bits() < 96 {
				return nil, fmt.Errorf("policy: write %v as a network of IPv4", p)
			}
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		all = append(all, addrRange{p.Masked().Addr(), lastOf(p)})
	}
	slices.SortFunc(all, func(a, b addrRange) int { return a.first.Compare(b.first) })
	var merged ranges
	for _, r := range all {
		if i := len(merged) - 1; i >= 0 && merged[i].last.BitLen() == r.first.BitLen() && r.first.Compare(merged[i].last) <= 0 {
			if merged[i].last.Less(r.last) {
				merged[i].last = r.last
			}
			continue
		}
		merged = append(merged, r)
	}
	return merged, nil
}

// lastOf is the highest address of a network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		switch host := (i+1)*8 - p.Bits(); {
		case host >= 8:
			b[i] = 0xff
		case host > 0:
			b[i] |= 1<<host - 1
		}
	}
	last, _ := netip.AddrFromSlice(b) // of four or sixteen bytes
	return last
}

func (rs ranges) contain(a netip.Addr) bool {
	if !a.IsValid() {
		return false
	}
	i := sort.Search(len(rs), func(i int) bool { return a.Less(rs[i].first) }) - 1
	return i >= 0 && rs[i].last.BitLen() == a.BitLen() && a.Compare(rs[i].last) <= 0
}
