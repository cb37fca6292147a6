package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"gatelodge/acmeclient"
	"gatelodge/cmd/internal/config"
	"gatelodge/cmd/internal/metrics"
	"gatelodge/proxy"
	"gatelodge/proxy/certs"
	"gatelodge/storage"
)

// acmeIssuer shows an ACME CA to proxy/certs, which knows no ACME, as acmeclient knows nothing of names and when they are due.
type acmeIssuer struct {
	client *acmeclient.Client

	// What the client was built from: with other values a reload builds another.
	cfg   config.CA
	issue config.Issue
	roots *x509.CertPool
	dns   *acmeclient.DNSSolver

	started bool // guarded by acmeIssuers.mu
}

var (
	_ certs.Issuer          = (*acmeIssuer)(nil)
	_ certs.RenewalInformer = (*acmeIssuer)(nil)
	_ certs.Revoker         = (*acmeIssuer)(nil)
	_ certs.Forgiver        = (*acmeIssuer)(nil)
)

func (a *acmeIssuer) Name() string { return a.cfg.Name }

func (a *acmeIssuer) Issue(ctx context.Context, r *certs.Request) (*certs.Issued, error) {
	req := acmeclient.Request{Names: r.Names, CSR: r.CSR, Profile: r.Profile, Placing: r.Placing, Renewal: len(r.Predecessor) > 0, Again: r.Again, Shared: r.Shared, Hold: true}
	if r.PredecessorCA == a.cfg.Name {
		req.Predecessor = r.Predecessor
	}
	cert, err := a.client.Obtain(ctx, req)
	if err != nil {
		return nil, explained(err)
	}
	stored := func(ctx context.Context) { a.client.Forget(ctx, r.CSR) }
	return &certs.Issued{Chain: cert.Chain, Stored: stored, Notes: map[string]string{
		"acme_version": string(cert.Protocol),
		"account":      cert.Account,
		"order":        cert.Order,
		"certificate":  cert.URL,
		"profile":      cert.Profile,
		"challenge":    strings.Join(cert.Challenges, ", "),
	}}, nil
}

// RenewalInfo implements certs.RenewalInformer.
func (a *acmeIssuer) RenewalInfo(ctx context.Context, id string) (certs.RenewalInfo, error) {
	info, err := a.client.RenewalInfoOf(ctx, id)
	if errors.Is(err, acmeclient.ErrNoRenewalInfo) {
		err = fmt.Errorf("%w: %w", certs.ErrNoRenewalInfo, err)
	}
	return certs.RenewalInfo{
		Window: certs.Window{Start: info.Start, End: info.End}, Explanation: info.Explanation, NextCheck: info.NextCheck,
	}, err
}

// Revoke implements certs.Revoker.
func (a *acmeIssuer) Revoke(ctx context.Context, chain [][]byte, key crypto.Signer, reason int) error {
	return a.client.Revoke(ctx, chain, key, reason)
}

// Forgive implements certs.Forgiver.
func (a *acmeIssuer) Forgive(ctx context.Context, names []string) error {
	return a.client.Forgive(ctx, names)
}

var _ acmeclient.NegotiationMetrics = (*metrics.ACME)(nil)

// acmeIssuers are the CAs of a configuration. A reload keeps the clients of those that did not change, with their nonces, limits and orders.
type acmeIssuers struct {
	store     storage.Store
	responder *acmeclient.Responder
	metrics   acmeclient.Metrics
	log       *zap.Logger

	mu     sync.Mutex      // guards what follows
	ctx    context.Context // of what the clients do in the background; nil before start
	byName map[string]*acmeIssuer
	order  []string // names as in the configuration

	retired []*acmeIssuer // replaced by the last change, not closed yet

	dns    *acmeclient.DNSSolver // nil without [dns]
	dnsCfg map[string]config.DNS // what it was built from
}

// A change of issuers that has not happened yet.
type issuerChange struct {
	cas    []certs.CA // in the order of the configuration
	byName map[string]*acmeIssuer
	order  []string
	dns    *acmeclient.DNSSolver
	dnsCfg map[string]config.DNS
}

// prepare builds the issuers of cfg. Nothing has changed until commit, and nothing has to be undone without it.
func (a *acmeIssuers) prepare(cfg *config.Config) (*issuerChange, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ch := &issuerChange{byName: map[string]*acmeIssuer{}, dns: a.dns, dnsCfg: cfg.DNS}
	if !reflect.DeepEqual(a.dnsCfg, cfg.DNS) {
		var err error
		if ch.dns, err = newDNSSolver(cfg.DNS, a.store, a.log); err != nil {
			return nil, err
		}
	}
	var errs []error
	for _, ca := range cfg.CAs {
		if cfg.Idle(ca) {
			continue
		}
		issuer, err := a.open(ca, cfg.Issue, ch.dns)
		if err != nil {
			errs = append(errs, fmt.Errorf("ca %q: %w", ca.Name, err))
			continue
		}
		ch.byName[ca.Name] = issuer
		ch.order = append(ch.order, ca.Name)
		ch.cas = append(ch.cas, certs.CA{Issuer: issuer, Names: ca.Names, Unbudgeted: cfg.Unbudgeted(ca)})
	}
	return ch, errors.Join(errs...)
}

// commit makes the change. Clients that it replaces stay open until the next one: orders may be about to use them.
func (a *acmeIssuers) commit(ch *issuerChange) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, old := range a.retired {
		_ = old.client.Close()
	}
	a.retired = nil
	for name, old := range a.byName {
		if ch.byName[name] != old {
			a.retired = append(a.retired, old)
		}
	}
	a.byName, a.order, a.dns, a.dnsCfg = ch.byName, ch.order, ch.dns, ch.dnsCfg
	a.startLocked()
}

// start lets the clients negotiate and look after themselves in the background, those of later reloads too, until close.
func (a *acmeIssuers) start(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ctx = ctx
	a.startLocked()
}

func (a *acmeIssuers) startLocked() {
	if a.ctx == nil {
		return
	}
	for _, issuer := range a.byName {
		if !issuer.started {
			issuer.started = true
			_ = issuer.client.Start(a.ctx) // fails for a client that was closed or started before: this one is neither
		}
	}
}

func (a *acmeIssuers) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, issuer := range a.byName {
		_ = issuer.client.Close()
	}
	for _, issuer := range a.retired {
		_ = issuer.client.Close()
	}
}

// get returns an issuer by name, or nil.
func (a *acmeIssuers) get(name string) *acmeIssuer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.byName[name]
}

// all returns the issuers in the order of the configuration.
func (a *acmeIssuers) all() []*acmeIssuer {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []*acmeIssuer
	for _, name := range a.order {
		list = append(list, a.byName[name])
	}
	return list
}

// solver returns what answers dns-01 at present; nil without [dns].
func (a *acmeIssuers) solver() *acmeclient.DNSSolver {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dns
}

// open returns the issuer that there is, or a new one if its description or the content of its files changed.
func (a *acmeIssuers) open(ca config.CA, issue config.Issue, dns *acmeclient.DNSSolver) (*acmeIssuer, error) {
	roots, err := loadRoots(ca.Roots)
	if err != nil {
		return nil, err
	}
	if old := a.byName[ca.Name]; old != nil && reflect.DeepEqual(old.cfg, ca) && old.suits(issue) && old.roots.Equal(roots) && old.dns == dns {
		return old, nil
	}
	var eab acmeclient.EAB
	if eab.KID, err = ca.EAB.KID.Resolve(); err != nil {
		return nil, err
	}
	if eab.HMAC, err = ca.EAB.HMAC.Resolve(); err != nil {
		return nil, err
	}
	client, err := acmeclient.New(acmeclient.Config{
		Name:      ca.Name,
		Directory: ca.Directory, DirectoryV1: ca.DirectoryV1,
		Protocol: acmeclient.Protocol(ca.ACMEVersion),
		EAB:      eab,
		Profile:  ca.Profile, ProfileRequired: ca.ProfileRequired, PreferredChain: ca.PreferredChain,
		Roots: roots, Private: len(ca.Names) > 0,
		Contact:    ca.Contact,
		AgreeTerms: ca.AgreeTerms,
		Challenges: issue.Challenges,
		Preflight:  acmeclient.Preflight(issue.Preflight),
		Resolvers:  issue.Resolvers,
		HTTPPort:   ca.HTTPPort,
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
	return &acmeIssuer{client: client, cfg: ca, issue: issue, roots: roots, dns: dns}, nil
}

// suits reports whether the client does what [issue] says of how names are proved and looked at; the rest of it is not a client's affair.
func (a *acmeIssuer) suits(issue config.Issue) bool {
	return slices.Equal(a.issue.Challenges, issue.Challenges) && a.issue.Preflight == issue.Preflight && slices.Equal(a.issue.Resolvers, issue.Resolvers)
}

// loadRoots reads PEM files; none means the system's roots, as a nil pool.
func loadRoots(files []string) (*x509.CertPool, error) {
	if len(files) == 0 {
		return nil, nil
	}
	pool := x509.NewCertPool()
	var errs []error
	for _, file := range files {
		certs, err := proxy.ReadCertificates(file)
		errs = append(errs, err)
		for _, cert := range certs {
			pool.AddCert(cert)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("read roots:\n%w", err)
	}
	return pool, nil
}
