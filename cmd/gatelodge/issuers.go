package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sync"

	"go.uber.org/zap"

	"gatelodge/acmeclient"
	"gatelodge/cmd/internal/config"
	"gatelodge/proxy/certs"
	"gatelodge/storage"
)

// acmeIssuer shows an ACME CA to proxy/certs, which knows no ACME, as acmeclient knows nothing of names and when they are due.
type acmeIssuer struct {
	client *acmeclient.Client

	// What the client was built from: with other values a reload builds another.
	cfg        config.CA
	challenges []string
	roots      *x509.CertPool
	dns        *acmeclient.DNSSolver
}

var _ certs.Issuer = (*acmeIssuer)(nil)

func (a *acmeIssuer) Name() string { return a.cfg.Name }

func (a *acmeIssuer) Issue(ctx context.Context, r *certs.Request) (*certs.Issued, error) {
	req := acmeclient.Request{Names: r.Names, CSR: r.CSR, Profile: r.Profile}
	if r.PredecessorCA == a.cfg.Name {
		req.Predecessor = r.Predecessor
	}
	cert, err := a.client.Obtain(ctx, req)
	if err != nil {
		return nil, err
	}
	return &certs.Issued{Chain: cert.Chain, Notes: map[string]string{
		"acme_version": string(cert.Protocol),
		"account":      cert.Account,
		"order":        cert.Order,
		"certificate":  cert.URL,
	}}, nil
}

// acmeIssuers are the CAs of a configuration. A reload keeps the clients of those that did not change, with their nonces, limits and orders.
type acmeIssuers struct {
	store     storage.Store
	responder *acmeclient.Responder
	metrics   acmeclient.Metrics
	log       *zap.Logger

	mu     sync.Mutex // guards what follows against a reload
	byName map[string]*acmeIssuer

	dns    *acmeclient.DNSSolver // nil without [dns]
	dnsCfg map[string]config.DNS // what it was built from
}

// update returns the issuers of cfg in its order. On error nothing has changed.
func (a *acmeIssuers) update(cfg *config.Config) ([]certs.CA, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	dns := a.dns
	if !reflect.DeepEqual(a.dnsCfg, cfg.DNS) {
		var err error
		if dns, err = newDNSSolver(cfg.DNS, a.store, a.log); err != nil {
			return nil, err
		}
	}
	byName := map[string]*acmeIssuer{}
	var cas []certs.CA
	var errs []error
	for _, ca := range cfg.CAs {
		issuer, err := a.open(ca, cfg.Issue.Challenges, dns)
		if err != nil {
			errs = append(errs, fmt.Errorf("ca %q: %w", ca.Name, err))
			continue
		}
		byName[ca.Name] = issuer
		cas = append(cas, certs.CA{Issuer: issuer, Names: ca.Names})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	a.byName, a.dns, a.dnsCfg = byName, dns, cfg.DNS
	return cas, nil
}

// solver returns what answers dns-01 at present; nil without [dns].
func (a *acmeIssuers) solver() *acmeclient.DNSSolver {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dns
}

// open returns the issuer that there is, or a new one if its description or the content of its files changed.
func (a *acmeIssuers) open(ca config.CA, challenges []string, dns *acmeclient.DNSSolver) (*acmeIssuer, error) {
	roots, err := loadRoots(ca.Roots)
	if err != nil {
		return nil, err
	}
	if old := a.byName[ca.Name]; old != nil && reflect.DeepEqual(old.cfg, ca) && slices.Equal(old.challenges, challenges) && old.roots.Equal(roots) && old.dns == dns {
		return old, nil
	}
	client, err := acmeclient.New(acmeclient.Config{
		Name:       ca.Name,
		Directory:  ca.Directory,
		Protocol:   acmeclient.Protocol(ca.ACMEVersion),
		Roots:      roots,
		Contact:    ca.Contact,
		AgreeTerms: ca.AgreeTerms,
		Challenges: challenges,
		DNS:        dns,
		Store:      a.store,
		Responder:  a.responder,
		UserAgent:  "gatelodge/" + version,
		Logger:     a.log,
		Metrics:    a.metrics,
	})
	if err != nil {
		return nil, err
	}
	return &acmeIssuer{client: client, cfg: ca, challenges: challenges, roots: roots, dns: dns}, nil
}

// loadRoots reads PEM files; none means the system's roots, as a nil pool.
func loadRoots(files []string) (*x509.CertPool, error) {
	if len(files) == 0 {
		return nil, nil
	}
	pool := x509.NewCertPool()
	for _, file := range files {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read roots: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read roots: %s has no PEM certificate", file)
		}
	}
	return pool, nil
}
