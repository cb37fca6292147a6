package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.uber.org/zap"

	"gatelodge/cmd/internal/admin"
	"gatelodge/cmd/internal/config"
	"gatelodge/cmd/internal/metrics"
	"gatelodge/proxy/upstream"
)

// newPool builds the pool of an upstream. Secrets and files are read here; a reload reads them again when the configuration of the upstream changes.
func newPool(name string, u config.Upstream, log *zap.Logger) (*upstream.Pool, error) {
	cfg, err := poolConfig(name, u)
	if err != nil {
		return nil, err
	}
	cfg.Logger = log
	return upstream.New(cfg)
}

func poolConfig(name string, u config.Upstream) (upstream.Config, error) {
	identity, err := poolTLS(u.TLS)
	if err != nil {
		return upstream.Config{}, err
	}
	key, err := u.StickyKey.Resolve()
	if err != nil {
		return upstream.Config{}, err
	}
	cfg := upstream.Config{
		Name: name, Weights: u.Weights, Balance: u.Balance, Sticky: u.Sticky, StickyKey: []byte(key), TLS: identity,
		ConnectTimeout: u.Timeouts.Connect, ResponseHeaderTimeout: u.Timeouts.ResponseHeader, IdleTimeout: u.Timeouts.Idle,
		ResolveEvery: u.ResolveEvery, SlowStart: u.SlowStart,
		MaxConns: u.MaxConns, Queue: upstream.Queue{Max: u.Queue.Max, Wait: u.Queue.Wait},
		Health:  upstream.Health{Path: u.Health.Path, Every: u.Health.Every, Timeout: u.Health.Timeout, Rise: u.Health.Rise, Fall: u.Health.Fall},
		Passive: upstream.Passive{Fails: u.Passive.Fails, Within: u.Passive.Within, OutFor: u.Passive.OutFor},
		Retries: upstream.Retries{Max: u.Retries.Max, On: u.Retries.On, Methods: u.Retries.Methods, Budget: int(u.Retries.Budget)},
	}
	for _, to := range u.To {
		cfg.To = append(cfg.To, to.String())
	}
	return cfg, nil
}

// poolTLS reads the files that say whom we believe and who we are.
func poolTLS(t config.UpstreamTLS) (upstream.TLS, error) {
	roots, err := loadRoots(t.Roots)
	if err != nil {
		return upstream.TLS{}, err
	}
	out := upstream.TLS{ServerName: t.ServerName, Roots: roots, SkipVerify: !t.Verify}
	if t.Certificate != "" {
		own, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
		if err != nil {
			return upstream.TLS{}, fmt.Errorf("client certificate %s with key %s: %w", t.Certificate, t.Key, err)
		}
		out.Certificates = []tls.Certificate{own}
	}
	return out, nil
}

// verifyUpstreams builds every pool as a start would, and lets it go.
func verifyUpstreams(cfg *config.Config) error {
	var errs []error
	for name, u := range cfg.Upstreams {
		pool, err := newPool(name, u, zap.NewNop())
		if err != nil {
			errs = append(errs, fmt.Errorf("upstream %s: %w", name, err))
			continue
		}
		errs = append(errs, pool.Close())
	}
	return errors.Join(errs...)
}

// start begins the probes of all pools; of those that were kept they go on.
func (p pools) start() {
	for _, own := range p {
		own.Start()
	}
}

// upstreamStatuses tells of all targets, by the names of the upstreams.
func (p *program) upstreamStatuses() []admin.UpstreamStatus {
	pools := *p.pools.Load()
	all := []admin.UpstreamStatus{}
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		own := pools[name]
		u := admin.UpstreamStatus{Name: name, Retries: own.Retried(), Waiting: own.Waiting()}
		for _, t := range own.Status() {
			u.Targets = append(u.Targets, admin.TargetStatus{
				Target: t.Target, State: t.State, Weight: t.Weight, InFlight: t.InFlight, Requests: t.Requests, Failures: t.Failures,
				OutUntil: t.OutUntil, LastError: t.LastError, LastErrorAt: t.LastErrorAt,
			})
		}
		all = append(all, u)
	}
	return all
}

// upstreamCounts are the named upstreams for the metrics: what a site's own URL stands for would be a label for every site.
func (p *program) upstreamCounts() []metrics.Upstream {
	var all []metrics.Upstream
	cfg := p.cfg.Load()
	for _, u := range p.upstreamStatuses() {
		if _, named := cfg.Upstreams[u.Name]; !named {
			continue
		}
		m := metrics.Upstream{Name: u.Name, Retries: u.Retries, Waiting: u.Waiting, Targets: map[string]int{}}
		for _, t := range u.Targets {
			m.Targets[t.State]++
			m.InFlight += t.InFlight
			m.Requests += t.Requests
			m.Failures += t.Failures
		}
		all = append(all, m)
	}
	return all
}
