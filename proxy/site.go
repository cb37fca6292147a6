package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"gatelodge/proxy/hostname"
)

// Table finds the site of a host. It is the one lookup: the handshake, the router and whoever decides about certificates use the same, so that
// they cannot disagree (facts/edge.md: the commonest advisory of all peers). It is immutable.
type Table struct {
	sites []Site
	hosts hostname.Table[int] // index into sites
}

// NewTable checks the sites and returns their table. All faults are in the error.
func NewTable(sites []Site) (*Table, error) {
	t := &Table{sites: sites}
	var errs []error
	names := make(map[string]bool, len(sites))
	for i, s := range sites {
		if s.Name == "" || names[s.Name] {
			errs = append(errs, fmt.Errorf("site %d: name %q is empty or taken", i+1, s.Name))
		}
		names[s.Name] = true
		switch {
		case s.Passthrough != nil && (s.Upstream != nil || len(s.Routes) > 0 || s.Wrap != nil):
			errs = append(errs, fmt.Errorf("site %q: upstreams, routes and policies have no part in what passes through", s.Name))
		case s.Passthrough != nil:
			errs = append(errs, s.Passthrough.check())
		case s.Upstream == nil && len(s.Routes) == 0 && !s.OnDemand:
			errs = append(errs, fmt.Errorf("site %q: no upstream", s.Name))
		}
		if len(s.Hosts) == 0 {
			errs = append(errs, fmt.Errorf("site %q: no hosts", s.Name))
		}
		for _, h := range s.Hosts {
			if canonical, err := hostname.FromConfig(h); err != nil {
				errs = append(errs, fmt.Errorf("site %q: %w", s.Name, err))
			} else if canonical != h {
				errs = append(errs, fmt.Errorf("site %q: host %q is not canonical, write %q", s.Name, h, canonical))
			} else if err := t.hosts.Add(h, i); err != nil {
				errs = append(errs, fmt.Errorf("site %q: %w", s.Name, err))
			}
		}
	}
	return t, errors.Join(errs...)
}

// Site returns the site that has the canonical host (hostname.Normalize).
func (t *Table) Site(host string) (*Site, bool) {
	i, ok := t.hosts.Lookup(host)
	if !ok {
		return nil, false
	}
	return &t.sites[i], true
}

// state is Settings with all that is derived from them. It is replaced whole, never modified; a request keeps the one it started with.
type state struct {
	Settings
	table    *Table
	policies map[string]*clientPolicy
	doors    []door // parallel to Settings.Sites
	plans    []plan // likewise
	passes   bool   // some site passes TLS through
	asks     bool   // somebody is asked about names that clients bring, and may be told their address
	altSvc   []string
	logged   *logHeaders // nil for none
}

// door is how one gets into a site by TLS.
type door struct {
	tls *tls.Config // see newDoor

	hsts []string // the field Strict-Transport-Security; nil for none of ours

	// binding names the site and what it asks of its clients. A connection and a session ticket have the binding of their handshake, and are worth
	// nothing where there is another.
	binding string
}

func (s *Server) newState(set Settings) (*state, error) {
	table, err := NewTable(set.Sites)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	policies, err := clientPolicies(set)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	if err := errors.Join(checkDefault(set, table), set.ProxyProtocol.check()); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	st := &state{Settings: set, table: table, policies: policies, logged: newLogHeaders(set.LogHeaders, set.LogRedact), doors: make([]door, len(set.Sites)), plans: make([]plan, len(set.Sites))}
	var errs []error
	for i := range set.Sites {
		st.passes = st.passes || set.Sites[i].Passthrough != nil
		st.asks = st.asks || set.Sites[i].OnDemand || slices.Contains(set.Sites[i].Hosts, "*")
		if st.plans[i], err = newPlan(&set.Sites[i]); err != nil {
			errs = append(errs, err)
		}
		st.doors[i] = s.newDoor(&set.Sites[i], policies[set.Sites[i].ClientAuth], !set.NoTickets)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return st, nil
}

// checkDefault checks what is served to clients that name none of our sites.
func checkDefault(set Settings, table *Table) error {
	d := set.DefaultName
	if d == "" {
		if set.UnknownDefault {
			return errors.New("unknown names are to be served the default certificate, but there is no default name")
		}
		return nil
	}
	if set.UnknownDefault && set.UnknownClose {
		return errors.New("unknown names cannot both be served and be closed")
	}
	if canonical, err := hostname.Normalize(d); err != nil || canonical != d {
		return fmt.Errorf("default name %q is not a canonical host name", d)
	}
	if _, ok := table.Site(d); !ok {
		return fmt.Errorf("no site has the default name %q", d)
	}
	return nil
}

// trusts reports whether addr is a proxy whose word about its client we take.
func (st *state) trusts(addr netip.Addr) bool {
	for _, p := range st.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// bodyLimit is the largest request body that the route and the site take; zero means any.
func (x *exchange) bodyLimit() int64 {
	switch {
	case x.way != nil && x.way.route.BodyBytes != 0:
		return x.way.route.BodyBytes
	case x.site.BodyBytes != 0:
		return x.site.BodyBytes
	}
	return x.srv.cfg.Limits.BodyBytes
}
