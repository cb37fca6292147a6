package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.uber.org/zap"

	"gatelodge/acmeclient"
	"gatelodge/acmeclient/dnsprovider"
	"gatelodge/cmd/internal/config"
	"gatelodge/storage"
)

// newDNSSolver builds the providers of the configuration, or returns nil without any. Nothing goes over the network.
func newDNSSolver(cfg map[string]config.DNS, store storage.Store, log *zap.Logger) (*acmeclient.DNSSolver, error) {
	if len(cfg) == 0 {
		return nil, nil
	}
	var zones []acmeclient.DNSZone
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(cfg)) {
		d := cfg[name]
		provider, err := dnsprovider.New(d.Provider, d.Own, resolveSecret)
		if err != nil {
			errs = append(errs, fmt.Errorf("[dns.%s]: %w", name, err))
			continue
		}
		zones = append(zones, acmeclient.DNSZone{Name: name, Zones: d.Zones, DelegateTo: d.DelegateTo, Resolvers: d.Resolvers, Provider: provider})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return acmeclient.NewDNSSolver(zones, store, log)
}

func resolveSecret(ref string) (string, error) {
	secret, err := config.ParseSecret(ref)
	if err != nil {
		return "", err
	}
	return secret.Resolve()
}
