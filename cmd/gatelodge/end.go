package main

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy"
)

// drain ends all within process.drain, after load balancers have heard of it.
func (p *program) drain(work context.Context) {
	cfg := p.cfg.Load().Process
	drain, cancel := context.WithTimeout(work, cfg.Drain)
	defer cancel()
	p.proxy.Retire()
	p.readiness.leave(drain, min(cfg.LameDuck, cfg.Drain/2))
	p.endOrders(drain, min(orderTime, cfg.Drain/3))
	if p.readiness.balanced() { // connections that the balancer keeps are told to go by an answer, since one that we close may have a request on its way
		rest, cancel := context.WithTimeout(drain, min(restTime, cfg.Drain/4))
		defer cancel()
		p.proxy.Leave(rest)
		<-rest.Done()
	}
	p.shutdown(drain)
}

// orderTime is for orders that are under way when we end: most take seconds.
const orderTime = 10 * time.Second

// endOrders waits for them as long as our listeners are open. A CA that validates a name through us afterwards finds nobody, and whoever comes after us would have to
// place another order. The visitors who wait for them are served, too.
func (p *program) endOrders(ctx context.Context, atMost time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	p.certs.Retire(ctx)
}

// restTime is for the last requests on connections that are kept.
const restTime = 2 * time.Second

func (p *program) shutdown(ctx context.Context) {
	if err := p.proxy.Shutdown(ctx); err != nil {
		p.log.Warn("closed what had not ended", zap.Error(err))
	}
}

var errEnding = errors.New("the program is ending")

// close ends the parts, the last opened first.
func (p *program) close() {
	p.reloading.Lock()
	defer p.reloading.Unlock()
	p.closed = true
	p.abort()
	if p.certs != nil {
		p.certs.Close()
	}
	if p.alerts != nil {
		p.alerts.Close()
	}
	if p.issuers != nil {
		p.issuers.close()
	}
	if p.tickets != nil {
		p.tickets.close()
	}
	if p.settings != nil {
		closePermission(p.settings.certs.Permission, nil)
		p.settings.pools.closeBut(nil)
	}
	for _, sockets := range []*proxy.Sockets{p.http, p.https, p.side} {
		if sockets != nil {
			_ = sockets.Close()
		}
	}
	if p.store != nil {
		_ = p.store.Close()
	}
	if p.traces != nil {
		p.sendTraces()
	}
	if p.access != nil {
		_ = p.access.Close()
	}
	if p.log != nil {
		_ = p.log.Sync()
	}
}

// sendTraces sends what is recorded and not sent yet, unless that takes too long.
func (p *program) sendTraces() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := p.traces.Close(ctx); err != nil {
		p.log.Warn("traces not delivered", zap.Error(err))
	}
}
