package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"

	"go.uber.org/zap"

	"gatelodge/cmd/internal/config"
	"gatelodge/proxy"
	"gatelodge/proxy/certs"
	"gatelodge/proxy/certs/permission"
	"gatelodge/proxy/hostname"
	"gatelodge/proxy/upstream"
)

// settings are what a configuration means to the proxy and to the certificates. Both come from the same sites, found by the same kind of
// table, so that the site which decides about TLS and the site which answers cannot differ.
type settings struct {
	proxy proxy.Settings
	certs certs.Settings
	pools pools

	policies policies
	from     materials // while they are made
}

// materials are what settings are made of beside the configuration.
type materials struct {
	cas        []certs.CA       // the issuers in order, the internal CA among them
	permission certs.Permission // for names on demand; nil without
	pools      pools            // of the settings before; those that did not change are used again
	policies   policies         // likewise
	trace      wrap             // around all sites; nil without
	standsIn   func(*tls.Certificate) bool
	log        *zap.Logger // of the pools
}

// pools are the upstreams by name. A reload keeps those that did not change, with their open connections.
type pools map[string]pool

type pool struct {
	*upstream.Pool
	cfg config.Upstream
}

// newSettings builds the settings of cfg. On error nothing is left open.
func newSettings(cfg *config.Config, from materials) (*settings, error) {
	s := &settings{pools: pools{}, policies: policies{}, from: from}
	table := &hostname.Table[certs.Policy]{}
	var own []certs.Policy
	var errs []error
	for _, site := range cfg.Resolve() {
		ps, err := s.newSite(site)
		if err != nil {
			errs = append(errs, fmt.Errorf("site %s: %w", site.Name, err))
			continue
		}
		s.proxy.Sites = append(s.proxy.Sites, ps)
		if ps.Passthrough != nil {
			continue // its certificates are not ours
		}
		policy := certs.Policy{Site: site.Name, OnDemand: site.OnDemand, CAs: site.CAs, CertFile: site.CertFile, KeyFile: site.KeyFile}
		for _, host := range site.Hosts {
			errs = append(errs, table.Add(host, policy))
		}
		if policy.CertFile != "" {
			own = append(own, policy)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.ClientAuth)) { // one that cannot be loaded refuses the start, or the reload
		policy, err := proxy.LoadClientAuth(name, cfg.ClientAuth[name].CA, cmp.Or(cfg.ClientAuth[name].Mode, "require"))
		errs = append(errs, err)
		s.proxy.ClientAuth = append(s.proxy.ClientAuth, policy)
	}
	if err := errors.Join(errs...); err != nil {
		s.pools.closeBut(from.pools)
		return nil, err
	}
	s.proxy.HTTP3 = cfg.Listen.HTTP3 && cfg.Listen.ProxyProtocol == "off"
	s.proxy.ProxyProtocol = proxy.ProxyProtocol{
		V1: cfg.Listen.ProxyProtocol == "v1" || cfg.Listen.ProxyProtocol == "any", V2: cfg.Listen.ProxyProtocol == "v2" || cfg.Listen.ProxyProtocol == "any",
		From: cfg.Listen.ProxyProtocolFrom,
	}
	s.proxy.UnknownDefault = cfg.TLS.UnknownName == "default"
	s.proxy.LogHeaders, s.proxy.LogRedact = cfg.Log.Headers, cfg.Log.Redact
	s.proxy.NoTickets = cfg.TLS.SessionTickets == "off"
	s.proxy.HandshakesPerClient = cfg.Listen.Limits.HandshakesPerIP.PerSecond()
	s.proxy.RedirectHTTP = cfg.Listen.Redirect && len(cfg.Listen.HTTPS) > 0
	s.proxy.LongLived = cfg.Process.LongLived
	s.proxy.TrustedProxies = cfg.Listen.TrustedProxies
	s.proxy.UnknownClose = cfg.TLS.UnknownName == "close"
	s.proxy.DefaultName = cfg.TLS.DefaultName
	s.proxy.Customers, s.proxy.OpenUpstream = customersOf(from.permission), openCustomer(from.log)
	s.certs = certs.Settings{
		Lookup:           table.Lookup,
		Listed:           cfg.Listed(),
		Own:              own,
		CAs:              from.cas,
		Permission:       from.permission,
		UnknownPerClient: unlessZero(cfg.Listen.Limits.UnknownNamesPerIP),
		MaxWait:          cfg.OnDemand.MaxWait,
		Backoff:          cfg.Issue.Backoff,
		InFlight:         cfg.Issue.Budget.InFlight,
		Budget:           newBudget(cfg.Issue.Budget),
		Failover:         certs.Failover{After: cfg.Issue.Failover.After, BackAfter: cfg.Issue.Failover.BackAfter},
		Keys:             cfg.Issue.Keys,
		ARI:              cfg.Issue.ARI,
		Spread:           cfg.Issue.Spread,
		Abandon:          certs.Abandon{Idle: cfg.OnDemand.IdleAfter, Denied: cfg.Issue.Abandon.WhenDenied, Away: cfg.Issue.Abandon.WhenDNSAway},
		VisitedOnly:      !cfg.OnDemand.Background,
		RenewAt:          cfg.Issue.RenewAt.Float(),
		ExpiryFloor:      cfg.Alert.ExpiryFloor.Float(),
		DefaultName:      cfg.TLS.DefaultName,
		CacheBytes:       int64(cfg.Cache.Memory),
		Preload:          cfg.Cache.Preload,
		Negative:         cfg.Cache.Negative,
	}
	if s.certs.StandIn = cfg.OnDemand.OnWait == "selfsigned"; s.certs.StandIn {
		s.proxy.StandIn = from.standsIn
	}
	s.from = materials{} // so that what a reload gives up is not kept
	return s, nil
}

// newSite is a site as the proxy sees it.
func (s *settings) newSite(site config.ResolvedSite) (proxy.Site, error) {
	ps := proxy.Site{
		Name: site.Name, Hosts: site.Hosts, AccessLog: site.AccessLog, BodyBytes: site.BodyBytes,
		OnDemand: site.OnDemand, HSTS: site.HSTS, ClientAuth: site.ClientAuth,
	}
	var err error
	if site.Passthrough != "" {
		ps.Passthrough, err = proxy.ParsePassthrough(site.Passthrough)
		return ps, err
	}
	if site.UpstreamName != "" {
		if ps.Upstream, err = s.pools.open(site, s.from.pools, s.from.log); err != nil {
			return ps, err
		}
	}
	own, err := s.policies.newPolicies(site.Name, site.Policies, s.from.policies, s.open)
	if err != nil {
		return ps, err
	}
	ps.Wrap = join(s.from.trace, own)
	ps.Headers = headersOf(site.Headers)
	ps.Routes, err = s.newRoutes(site)
	return ps, err
}

// open opens the upstream of a URL that stands alone, such as that of a server that decides about requests.
func (s *settings) open(target string) (http.RoundTripper, error) {
	u := config.DefaultUpstream()
	to, err := config.ParseTarget(target)
	if err != nil {
		return nil, err
	}
	u.To = []config.Target{to}
	return s.pools.open(config.ResolvedSite{UpstreamName: to.String(), Upstream: u}, s.from.pools, s.from.log)
}

// unlessZero turns "no limit", zero in the configuration, into what the rooms take for it where zero is their default.
func unlessZero(r config.Rate) float64 {
	if r.Count == 0 {
		return -1
	}
	return r.PerSecond()
}

// open returns the pool of a site: one that this configuration has already, else the same as before, else a new one.
func (p pools) open(site config.ResolvedSite, before pools, log *zap.Logger) (*upstream.Pool, error) {
	if have, ok := p[site.UpstreamName]; ok {
		return have.Pool, nil
	}
	if old, ok := before[site.UpstreamName]; ok && reflect.DeepEqual(old.cfg, site.Upstream) {
		p[site.UpstreamName] = old
		return old.Pool, nil
	}
	made, err := newPool(site.UpstreamName, site.Upstream, log)
	if err != nil {
		return nil, err
	}
	p[site.UpstreamName] = pool{Pool: made, cfg: site.Upstream}
	return made, nil
}

// closeBut closes the pools that keep does not have; requests under way end undisturbed.
func (p pools) closeBut(keep pools) {
	for name, own := range p {
		if keep[name].Pool != own.Pool {
			_ = own.Close()
		}
	}
}

// newPermission builds the gate for on-demand names, or nil without one: then they are refused.
func newPermission(cfg config.OnDemand, metrics permission.AskMetrics, log *zap.Logger) (certs.Permission, error) {
	switch {
	case !cfg.Enabled:
		return nil, nil
	case cfg.NamesFile != "":
		return permission.NewNamesFile(cfg.NamesFile, log)
	default:
		node, _ := os.Hostname() // a node without a name asks without one
		return permission.NewAsk(permission.AskConfig{Logger: log, Metrics: metrics, URL: cfg.Ask, Node: node, Timeout: cfg.AskTimeout, AllowTTL: cfg.AllowTTL, DenyTTL: cfg.DenyTTL, StaleIfError: cmp.Or(cfg.StaleIfError, -1)})
	}
}

// portOf returns the port of a listener, zero if it has none.
func portOf(ln net.Listener) int {
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	n, _ := strconv.Atoi(port)
	return n
}
