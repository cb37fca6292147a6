package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"gatelodge/acmeclient"
	"gatelodge/cmd/internal/alert"
	"gatelodge/cmd/internal/config"
	"gatelodge/cmd/internal/gcpace"
	"gatelodge/cmd/internal/handover"
	"gatelodge/cmd/internal/metrics"
	"gatelodge/cmd/internal/traces"
	"gatelodge/proxy"
	"gatelodge/proxy/certs"
	"gatelodge/proxy/certs/localca"
	"gatelodge/proxy/certs/permission"
)

// program is everything that serves. The parts know each other only by the seams of DESIGN 2; here they are joined.
type program struct {
	load      func() (*config.Config, error) // reads the configuration again
	command   *command                       // nil: nobody can upgrade it
	inherited *handover.Inheritance          // nil: no process was before this one

	log     *zap.Logger
	access  *accessLog
	metrics *metrics.Metrics
	traces  *traces.Traces // nil without a collector

	store     *store
	responder *acmeclient.Responder
	issuers   *acmeIssuers
	local     *localca.CA
	certs     *certs.Manager
	alerts    *alert.Sender
	proxy     *proxy.Server
	tickets   *tickets
	http      *proxy.Sockets
	https     *proxy.Sockets
	side      *proxy.Sockets // of metrics and /readyz

	reloading sync.Mutex // one reload or upgrade at a time; guards settings, closed and left
	settings  *settings
	closed    bool
	left      bool                          // another process serves
	cfg       atomic.Pointer[config.Config] // what is in force
	pools     atomic.Pointer[pools]         // of settings, for those who look without waiting for a reload
	readiness readiness
	work      context.Context    // of the parts, which end after the drain
	abort     context.CancelFunc // ends everything without a drain
	ending    atomic.Bool        // somebody has asked for the end
	successor chan *handover.Successor
}

// newProgram opens what the configuration names, in the order in which the parts need each other, unless ctx ends first. On error nothing is left open.
func newProgram(ctx context.Context, cfg *config.Config, load func() (*config.Config, error), inherited *handover.Inheritance) (_ *program, err error) {
	p := &program{load: load, inherited: inherited, metrics: metrics.New(version), successor: make(chan *handover.Successor, 1)}
	p.work, p.abort = context.WithCancel(context.WithoutCancel(ctx))
	p.cfg.Store(cfg)
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.log, err = newLogger(cfg.Log.Format, cfg.Log.Level); err != nil {
		return nil, err
	}
	if err = verifyWebhook(cfg.Alert); err != nil {
		return nil, err
	}
	if p.access, err = openAccessLog(cfg.Log.Access, cfg.Log.Format); err != nil {
		return nil, err
	}
	if cfg.Trace.OTLP != "" {
		if p.traces, err = traces.New(context.Background(), traces.Config{Endpoint: cfg.Trace.OTLP, Version: version, Logger: p.log.Named("traces")}); err != nil {
			return nil, err
		}
	}
	for _, w := range cfg.Warnings() {
		p.log.Warn("configuration", zap.Error(&w))
	}
	opening, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if p.store, err = openStore(opening, cfg.Storage, p.log.Named("storage")); err != nil {
		return nil, err
	}
	if err = p.listen(cfg.Listen, cfg.Admin); err != nil {
		return nil, err
	}
	return p, p.join(cfg)
}

// join builds the three rooms over what is open, and lets them meet.
func (p *program) join(cfg *config.Config) error {
	p.responder = acmeclient.NewResponder(p.store, p.log)
	p.issuers = &acmeIssuers{store: p.store, responder: p.responder, metrics: p.metrics.ACME(), log: p.log}
	var err error
	if p.local, err = localca.New(localca.Config{
		Name: config.InternalCAName, Store: p.store, Names: cfg.InternalNames(), Lifetime: cfg.InternalCA.Lifetime, Logger: p.log,
	}); err != nil {
		return err
	}
	issuers, err := p.issuers.prepare(cfg)
	if err != nil {
		return err
	}
	if p.settings, err = p.newSettings(cfg, issuers.cas); err != nil {
		return err
	}
	p.pools.Store(&p.settings.pools)
	p.issuers.commit(issuers)
	if p.alerts, err = p.newAlerts(); err != nil {
		return err
	}
	if p.certs, err = certs.New(certs.Config{
		Store: p.store, Challenge: p.responder.Certificate, View: p.view, Events: p.tell, Logger: p.log, Metrics: p.metrics.Certs(),
	}, p.settings.certs); err != nil {
		return err
	}
	groups, err := proxy.ParseGroups(cfg.TLS.Groups)
	if err != nil {
		return err
	}
	p.proxy, err = proxy.New(proxy.Config{
		HTTPS: p.https.Listeners, HTTP: p.http.Listeners, ListenQUIC: p.https.ListenQUIC, AwaitQUIC: p.awaitQUIC(), Groups: groups,
		GetCertificate: p.certs.GetCertificate,
		Challenges:     p.responder.HTTP,
		Limits:         limitsOf(cfg),
		MinVersion:     map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}[cfg.TLS.MinVersion],
		Logger:         p.log, AccessLog: p.access.Logger,
		Metrics: p.metrics.Proxy(),
	}, p.settings.proxy)
	if err == nil {
		p.tickets = &tickets{set: p.proxy.SetTicketKeys, store: p.store, log: p.log}
	}
	return err
}

// newSettings turns a configuration into settings, with the issuers, upstreams and gate that it needs.
func (p *program) newSettings(cfg *config.Config, cas []certs.CA) (*settings, error) {
	cas = append(cas, certs.CA{Issuer: p.local, Names: cfg.InternalNames(), Internal: true})
	from := materials{cas: cas, log: p.log.Named("upstream"), standsIn: func(cert *tls.Certificate) bool { return p.certs.IsStandIn(cert) }}
	var err error
	if from.permission, err = p.permissionFor(cfg.OnDemand); err != nil {
		return nil, err
	}
	if p.settings != nil {
		from.pools, from.policies = p.settings.pools, p.settings.policies
	}
	var s *settings
	if from.trace, err = newTrace(p.traces, cfg.Trace.Sample); err == nil {
		s, err = newSettings(cfg, from)
	}
	if err != nil {
		closePermission(from.permission, p.gate())
		return nil, err
	}
	if len(p.https.Listeners) > 0 {
		s.proxy.HTTPSPort = portOf(p.https.Listeners[0])
	}
	return s, nil
}

// permissionFor keeps the gate, and what it remembers, over reloads that do not change it.
func (p *program) permissionFor(cfg config.OnDemand) (certs.Permission, error) {
	if now := p.cfg.Load(); p.settings != nil && reflect.DeepEqual(now.OnDemand, cfg) {
		return p.settings.certs.Permission, nil
	}
	gate, err := newPermission(cfg, p.metrics.Ask(), p.log)
	if err == nil && p.settings != nil {
		old, isAsk := p.settings.certs.Permission.(*permission.Ask)
		if ask, ok := gate.(*permission.Ask); ok && isAsk {
			ask.Inherit(old)
		}
	}
	return gate, err
}

// closePermission ends what a gate that is not keep does in the background.
func closePermission(p, keep certs.Permission) {
	if gate, ok := p.(interface{ Close() }); ok && p != keep {
		gate.Close()
	}
}

// gate is the one in force; nil before there is one.
func (p *program) gate() certs.Permission {
	if p.settings == nil {
		return nil
	}
	return p.settings.certs.Permission
}

// drop closes what settings have that do not come into force.
func (p *program) drop(s *settings) {
	s.pools.closeBut(p.settings.pools)
	closePermission(s.certs.Permission, p.gate())
}

// run serves until ctx ends, then drains. Every goroutine of the program has ended when it returns.
func (p *program) run(ctx context.Context) error {
	defer p.close()
	work := p.work
	if err := p.start(work); err != nil {
		return err
	}
	side, err := p.startSide()
	if err != nil {
		return err
	}
	defer side.close()

	var chores sync.WaitGroup
	defer chores.Wait()
	defer p.abort()
	chores.Go(func() { p.newSweeper().run(work) })
	chores.Go(func() { gcpace.Run(work, p.certs.CacheBytes) })

	served := make(chan error, 1)
	go func() { served <- p.proxy.Serve(work) }()
	p.log.Info("serving", zap.String("version", version), zap.Strings("https", addresses(p.https.Listeners)), zap.Strings("http", addresses(p.http.Listeners)),
		zap.Int("sites", len(p.cfg.Load().Sites)), zap.String("storage", p.cfg.Load().Storage.Kind))
	if err := p.inherit(ctx, side); err != nil {
		return err
	}
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady) // where systemd waits for it
	select {
	case err := <-served:
		return err
	case next := <-p.successor:
		p.leave(ctx, next, side)
		p.finish(ctx, work)
	case <-ctx.Done():
		_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
		p.drain(work)
	}
	return <-served
}

// start lets the parts work, before anybody is served. A reload waits for it.
func (p *program) start(work context.Context) error {
	p.reloading.Lock()
	defer p.reloading.Unlock()
	p.alerts.Start(work)
	if err := p.certs.Start(work); err != nil {
		return err
	}
	p.issuers.start(work)
	p.settings.pools.start()
	p.tickets.start(work, p.cfg.Load().TLS.SessionTickets)
	return nil
}

// reload applies the difference between the configuration in force and the one that is read now. On error nothing has changed.
func (p *program) reload() error {
	p.reloading.Lock()
	defer p.reloading.Unlock()
	if p.closed || p.left {
		return errEnding
	}
	cfg, err := p.load()
	if err != nil {
		return err
	}
	if keys := p.cfg.Load().RestartOnly(cfg); len(keys) > 0 {
		return fmt.Errorf("these keys changed, and only a restart can apply them: %v", keys)
	}
	if err := verifyWebhook(cfg.Alert); err != nil {
		return err
	}
	issuers, err := p.issuers.prepare(cfg)
	if err != nil {
		return err
	}
	s, err := p.newSettings(cfg, issuers.cas)
	if err != nil {
		return err
	}
	if err := p.certs.Apply(s.certs); err != nil {
		p.drop(s)
		return err
	}
	if err := p.proxy.Apply(s.proxy); err != nil {
		err = errors.Join(err, p.certs.Apply(p.settings.certs))
		p.drop(s)
		return err
	}
	p.issuers.commit(issuers)
	old := p.settings
	p.settings = s
	p.pools.Store(&s.pools)
	s.pools.start()
	p.cfg.Store(cfg)
	p.tickets.apply(cfg.TLS.SessionTickets)
	old.pools.closeBut(s.pools)
	closePermission(old.certs.Permission, s.certs.Permission)
	for _, w := range cfg.Warnings() {
		p.log.Warn("configuration", zap.Error(&w))
	}
	p.log.Info("configuration reloaded", zap.Int("sites", len(cfg.Sites)))
	return nil
}

// listen opens the sockets, or takes those that systemd opened, or the process before.
func (p *program) listen(cfg config.Listen, admin config.Admin) (err error) {
	opener := proxy.NewOpener(p.inherited.Files())
	opener.ReusePort = cfg.ReusePort
	if p.https, err = opener.Open(texts(cfg.HTTPS)); err == nil {
		p.http, err = opener.Open(texts(cfg.HTTP))
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: ports below 1024 need root or the capability CAP_NET_BIND_SERVICE; listen.https and listen.http choose others", err)
	}
	if err == nil {
		p.side, err = listenSide(opener, admin)
	}
	if unused := opener.Unused(); len(unused) > 0 && err == nil {
		p.log.Warn("systemd passed sockets that no listen key names", zap.Strings("sockets", unused))
	}
	return err
}

func texts(addrs []config.Address) []string {
	var all []string
	for _, a := range addrs {
		all = append(all, string(a))
	}
	return all
}

func addresses(lns []net.Listener) []string {
	var all []string
	for _, ln := range lns {
		all = append(all, ln.Addr().String())
	}
	return all
}

func limitsOf(cfg *config.Config) proxy.Limits {
	l := cfg.Listen.Limits
	return proxy.Limits{
		Connections:      mostConnections(),
		HandshakeTimeout: l.HandshakeTimeout,
		CertificateWait:  max(5*time.Minute, cfg.OnDemand.MaxWait+5*time.Second), // certs gives up sooner, by a max_wait that reloads change
		HeaderTimeout:    l.HeaderTimeout,
		IdleTimeout:      l.IdleTimeout,
		BodyRate:         unlessZero(l.BodyRate),
		HeaderBytes:      int(l.HeaderBytes),
		BodyBytes:        int64(l.BodyBytes),
	}
}

// mostConnections leaves a quarter of the process's descriptors to what clients cannot take: upstreams, storage, CAs, `ask`. However many
// clients come, those who are in are served.
func mostConnections() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(limit.Cur/4*3, math.MaxInt32))
}
