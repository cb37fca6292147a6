package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gatelodge/acmeclient"
	"gatelodge/cmd/internal/admin"
	"gatelodge/cmd/internal/config"
	"gatelodge/cmd/internal/metrics"
	"gatelodge/proxy"
	"gatelodge/proxy/certs"
	"gatelodge/proxy/hostname"
)

// side is what operators and their machines talk to, beside the traffic.
type side struct {
	metrics *metrics.Server
	ready   *metrics.Server // /readyz alone, for load balancers
	admin   *admin.Server
}

// startSide serves metrics and the admin socket, those that the configuration has.
func (p *program) startSide() (_ *side, err error) {
	s := &side{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	p.metrics.WatchCertificates(p.certs.Expiries)
	p.metrics.WatchUpstreams(p.upstreamCounts)
	p.metrics.WatchWorkload(p.workload)
	listeners := p.side.Listeners // in the order of listenSide
	cfg := p.cfg.Load().Admin
	if cfg.Metrics != "" {
		if s.metrics, err = metrics.NewServer(metrics.ServerConfig{Listener: listeners[0], Metrics: p.metrics, Ready: p.readiness.check, Logger: p.log}); err != nil {
			return nil, err
		}
		listeners = listeners[1:]
		s.metrics.Start()
	}
	if cfg.Ready != "" {
		if s.ready, err = metrics.NewServer(metrics.ServerConfig{Listener: listeners[0], Ready: p.readiness.check, Logger: p.log}); err != nil {
			return nil, err
		}
		s.ready.Start()
	}
	if p.inherited != nil {
		return s, nil // the process before has the admin socket still
	}
	return s, p.startAdmin(s)
}

// listenSide opens the sockets of metrics and /readyz, those that the configuration has.
func listenSide(opener *proxy.Opener, cfg config.Admin) (*proxy.Sockets, error) {
	var addrs []string
	for _, addr := range []config.Address{cfg.Metrics, cfg.Ready} {
		if addr != "" {
			addrs = append(addrs, string(addr))
		}
	}
	sockets, err := opener.Open(addrs)
	if err != nil {
		return nil, fmt.Errorf("metrics and /readyz: %w; admin.metrics and admin.ready choose other addresses, or \"\" for none", err)
	}
	return sockets, nil
}

// startAdmin serves the admin socket, if the configuration has one.
func (p *program) startAdmin(s *side) (err error) {
	cfg := p.cfg.Load().Admin
	if cfg.Listen == "" {
		return nil
	}
	s.admin, err = admin.NewServer(admin.Config{
		Listen:  cfg.Listen,
		Certs:   p.certStatuses,
		Cert:    p.certStatus,
		Retry:   p.retry,
		Revoke:  p.revoke,
		Config:  p.cfg.Load,
		Reload:  func(context.Context) error { return p.reloadOrSay() },
		Upgrade: p.upgradeOrSay,
		CAs:     p.caStatuses, Probe: p.probeCA, Reset: p.resetCA, RollKey: p.rollKeyOfCA,
		Upstreams: p.upstreamStatuses,
		Logger:    p.log,
	})
	if err == nil {
		s.admin.Start()
	}
	return err
}

func (s *side) close() {
	for _, m := range []*metrics.Server{s.metrics, s.ready} {
		if m != nil {
			_ = m.Close()
		}
	}
	if s.admin != nil {
		_ = s.admin.Close()
	}
}

func (p *program) certStatus(ctx context.Context, name string) (admin.CertStatus, error) {
	host, err := hostname.FromConfig(name)
	if err != nil {
		return admin.CertStatus{}, fmt.Errorf("%w: %w", admin.ErrUnknownName, err)
	}
	st, err := p.certs.Status(ctx, host)
	if err != nil && st.Unread == "" {
		return admin.CertStatus{}, err
	}
	if st.State == certs.StateNotOurs && st.NotAfter.IsZero() {
		return admin.CertStatus{}, fmt.Errorf("%w: no site claims %s", admin.ErrUnknownName, host)
	}
	return toAdmin(st), nil
}

func (p *program) revoke(ctx context.Context, name string, r admin.Revocation) error {
	if _, err := p.certStatus(ctx, name); err != nil {
		return err
	}
	host, err := hostname.FromConfig(name)
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, 15*time.Second) // a compromised key is revoked only when its successor is in use on all nodes
	defer cancel()
	if r.Compromised {
		err = p.certs.Compromised(waiting, host)
	} else {
		err = p.certs.Revoke(waiting, host, r.Reason)
	}
	if errors.Is(err, context.DeadlineExceeded) && waiting.Err() != nil {
		return admin.ErrGoesOn
	}
	return err
}

func (p *program) caStatuses(ctx context.Context) []admin.CAStatus {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // of storage; without it, we tell what this node knows
	defer cancel()
	all := []admin.CAStatus{}
	for _, issuer := range p.issuers.all() {
		issuer.client.Refresh(ctx)
		all = append(all, caToAdmin(issuer.client.Status()))
	}
	return all
}

func (p *program) probeCA(ctx context.Context, name string) (admin.CAStatus, error) {
	return p.lookAtCA(name, func(c *acmeclient.Client) (acmeclient.Status, error) { return c.Probe(ctx) })
}

func (p *program) resetCA(ctx context.Context, name string) (admin.CAStatus, error) {
	return p.lookAtCA(name, func(c *acmeclient.Client) (acmeclient.Status, error) { return c.Reset(ctx) })
}

func (p *program) rollKeyOfCA(ctx context.Context, name string) (admin.CAStatus, error) {
	return p.lookAtCA(name, func(c *acmeclient.Client) (acmeclient.Status, error) {
		_, err := c.RollKey(ctx)
		return c.Status(), err
	})
}

func (p *program) lookAtCA(name string, look func(*acmeclient.Client) (acmeclient.Status, error)) (admin.CAStatus, error) {
	issuer := p.issuers.get(name)
	if issuer == nil {
		return admin.CAStatus{}, fmt.Errorf("%w: no [[ca]] has the name %q", admin.ErrUnknownCA, name)
	}
	st, err := look(issuer.client)
	return caToAdmin(st), err
}

func caToAdmin(st acmeclient.Status) admin.CAStatus {
	n := st.Negotiation
	a := admin.CAStatus{
		Name: st.Name, Directory: st.Directory, DirectoryV1: st.DirectoryV1, Protocol: string(st.Protocol),
		State: n.State, Deprecated: n.Deprecated, Evidence: n.Evidence, Since: n.Since, Trouble: n.Trouble, NextProbe: n.NextProbe, OrdersV1: n.OrdersV1,
		Account: st.Account, LastError: st.LastError, LastErrorAt: st.LastErrorAt,
	}
	for _, l := range st.Limits {
		a.Limits = append(a.Limits, fmt.Sprintf("%s %s until %s: %s", l.Scope, l.Subject, l.Until.Format(time.RFC3339), l.Detail))
	}
	return a
}
