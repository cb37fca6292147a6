package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"

	"go.uber.org/zap"

	"gatelodge/acmeclient"
	"gatelodge/cmd/internal/config"
	"gatelodge/proxy"
	"gatelodge/proxy/certs"
	"gatelodge/proxy/certs/localca"
	"gatelodge/storage"
)

// verifyFiles reads the files that the configuration names, as a start would: `check` must not call valid what `run` refuses.
func verifyFiles(cfg *config.Config) error {
	var errs []error
	nowhere := storage.NewMemory()
	issuers := &acmeIssuers{store: nowhere, responder: acmeclient.NewResponder(nowhere, zap.NewNop()), log: zap.NewNop()}
	prepared, err := issuers.prepare(cfg) // asks no CA
	if err != nil {
		errs = append(errs, err)
	}
	if _, err := storage.ParseKeys(keyRefs(cfg.Storage.Encryption.Keys)); err != nil {
		errs = append(errs, fmt.Errorf("storage.encryption: %w", err))
	}
	if err := verifyWebhook(cfg.Alert); err != nil {
		errs = append(errs, err)
	}
	for name, policy := range cfg.ClientAuth {
		if _, err := proxy.LoadClientAuth(name, policy.CA, cmp.Or(policy.Mode, "require")); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, verifyUpstreams(cfg))
	for _, site := range cfg.Resolve() {
		if _, err := (policies{}).newPolicies(site.Name, site.Policies, nil, noTransport); err != nil {
			errs = append(errs, fmt.Errorf("site %s: %w", site.Name, err))
		}
		for i, r := range site.Routes {
			if _, err := newRoute(r); err != nil {
				errs = append(errs, fmt.Errorf("site %s: route %d: %w", site.Name, i+1, err))
			}
			if _, err := (policies{}).newPolicies(site.Name, r.Policies, nil, noTransport); err != nil {
				errs = append(errs, fmt.Errorf("site %s: route %d: %w", site.Name, i+1, err))
			}
		}
		if site.CertFile == "" {
			continue
		}
		if _, err := tls.LoadX509KeyPair(site.CertFile, site.KeyFile); err != nil {
			errs = append(errs, fmt.Errorf("site %s: certificate %s with key %s: %w", site.Name, site.CertFile, site.KeyFile, err))
		}
	}
	gate, err := newPermission(cfg.OnDemand, nil, zap.NewNop())
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer closePermission(gate, nil)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return rehearse(cfg, materials{cas: prepared.cas, permission: gate, log: zap.NewNop()})
}

// rehearse makes of cfg what a start would make, over a store that is empty and without sockets: whatever the rooms refuse they refuse here.
func rehearse(cfg *config.Config, from materials) error {
	local, err := localca.New(localca.Config{
		Name: config.InternalCAName, Store: storage.NewMemory(), Names: cfg.InternalNames(), Lifetime: cfg.InternalCA.Lifetime, Logger: from.log,
	})
	if err != nil {
		return err
	}
	from.cas = append(from.cas, certs.CA{Issuer: local, Names: cfg.InternalNames(), Internal: true})
	s, err := newSettings(cfg, from)
	if err != nil {
		return err
	}
	defer s.pools.closeBut(nil)
	m, err := certs.New(certs.Config{Store: storage.NewMemory(), Logger: from.log}, s.certs)
	if err != nil {
		return err
	}
	groups, err := proxy.ParseGroups(cfg.TLS.Groups)
	if err != nil {
		return err
	}
	_, err = proxy.New(proxy.Config{HTTPS: make([]net.Listener, 1), GetCertificate: m.GetCertificate, Limits: limitsOf(cfg), Groups: groups, Logger: from.log}, s.proxy)
	return err
}

// noTransport stands in for the connections that a start would open.
func noTransport(string) (http.RoundTripper, error) { return &http.Transport{}, nil }
