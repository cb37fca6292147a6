package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Health are the probes: every target is asked for Path, whether there are requests or not. A status from 200 to 399 in time is healthy. Targets count as
// healthy until their first probe, which decides alone. While none is healthy requests fail at once with ErrUnavailable.
type Health struct {
	Path    string        // empty turns them off
	Every   time.Duration // from one probe of a target to the next; zero means 5 s
	Timeout time.Duration // zero means 2 s
	Rise    int           // so many good probes in a row bring a target back; zero means 2
	Fall    int           // so many bad ones take it out; zero means 3
}

func (c Health) withDefaults() Health {
	orDefault(&c.Every, 5*time.Second)
	orDefault(&c.Timeout, 2*time.Second)
	orDefault(&c.Rise, 2)
	orDefault(&c.Fall, 3)
	return c
}

// probes is what the probes of an endpoint said.
type probes struct {
	any bool // there was one
	run int  // how many in a row contradict the present state
}

// probeAll probes all endpoints again and again until ctx ends.
func (p *Pool) probeAll(ctx context.Context) {
	for {
		start := time.Now()
		p.refresh(start)
		var round sync.WaitGroup
		for _, e := range *p.members.Load() {
			round.Go(func() {
				err := p.probe(ctx, e)
				if ctx.Err() == nil {
					p.judge(e, err)
				}
			})
		}
		round.Wait()
		every := p.cfg.Health.Every
		every += rand.N(every/10+1) - every/20 // so that many pools, and nodes, do not fall into step
		select {
		case <-ctx.Done():
			return
		case <-time.After(every - time.Since(start)):
		}
	}
}

// probe asks an endpoint how it is.
func (p *Pool) probe(ctx context.Context, e *endpoint) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Health.Timeout)
	defer cancel()
	u := &url.URL{Scheme: e.scheme, Host: e.host, Opaque: p.cfg.Health.Path}
	r, call := withCall((&http.Request{Method: http.MethodGet, URL: u, Host: e.host, Header: http.Header{"User-Agent": {"gatelodge"}}, ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx))
	call.method = r.Method
	res, err := e.main.RoundTrip(r)
	if err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, res.Body, 64<<10) // what is longer costs its connection
	_ = res.Body.Close()
	switch {
	case res.StatusCode < 200 || res.StatusCode > 399:
		return fmt.Errorf("probe of %s: status %d", p.cfg.Health.Path, res.StatusCode)
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("probe of %s: %w", p.cfg.Health.Path, err)
	}
	return nil
}

// judge takes the result of a probe into account.
func (p *Pool) judge(e *endpoint, err error) {
	e.mu.Lock()
	if err != nil {
		e.last = trouble{err.Error(), time.Now()}
	}
	first := !e.probes.any
	e.probes.any = true
	down := e.down.Load()
	if down == (err != nil) {
		e.probes.run = 0
		e.mu.Unlock()
		return
	}
	e.probes.run++
	enough := p.cfg.Health.Fall
	if down {
		enough = p.cfg.Health.Rise
	}
	changed := first || e.probes.run >= enough
	if changed {
		e.probes.run = 0
		e.down.Store(!down)
	}
	e.mu.Unlock()
	switch {
	case !changed:
	case down:
		p.log.Info("target is up", zap.String("upstream", e.label))
		p.cameBack(e)
	default:
		p.log.Warn("target is down", zap.String("upstream", e.label), zap.Error(err))
		p.admit() // those who waited for it alone need not go on
	}
}
