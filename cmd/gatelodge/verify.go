package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"

	"go.uber.org/zap"

	"gatelodge/acmeclient"
	"gatelodge/cmd/internal/config"
	"gatelodge/proxy"
	"gatelodge/proxy/certs/permission"
	"gatelodge/storage"
)

// verifyFiles reads the files that the configuration names, as a start would: `check` must not call valid what `run` refuses.
func verifyFiles(cfg *config.Config) error {
	var errs []error
	nowhere := storage.NewMemory()
	issuers := &acmeIssuers{store: nowhere, responder: acmeclient.NewResponder(nowhere, zap.NewNop()), log: zap.NewNop()}
	if _, err := issuers.prepare(cfg); err != nil { // asks no CA
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
	if cfg.OnDemand.NamesFile != "" {
		if names, err := permission.NewNamesFile(cfg.OnDemand.NamesFile, zap.NewNop()); err != nil {
			errs = append(errs, err)
		} else {
			names.Close()
		}
	}
	return errors.Join(errs...)
}

// noTransport stands in for the connections that a start would open.
func noTransport(string) (http.RoundTripper, error) { return &http.Transport{}, nil }
