package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

const (
	sweepObject = "sweep/last" // when the last one ended
	sweepLease  = "sweep"
	sweepEvery  = 7 * 24 * time.Hour
	sweepLook   = 12 * time.Hour      // one read of sweepObject, up to a half more
	leftIdle    = 30 * 24 * time.Hour // tombstones that nobody has used for so long
)

// sweeper removes, once a week for the whole fleet, what can be found by listing only: challenges that dead processes left, and tombstones of leases. It is the one
// place in the running program that lists; certificates that ended are found by their plan (proxy/certs). The first sweep is a week after the first start.
type sweeper struct {
	store storage.Store
	log   *zap.Logger
	tasks map[string]func(context.Context) error // by what they sweep
}

type sweepRecord struct {
	Ended time.Time `json:"ended"`
}

// run sweeps until ctx ends.
func (s *sweeper) run(ctx context.Context) {
	for pause := sweepLook / 12; ; pause = sweepLook {
		timer := time.NewTimer(pause + rand.N(pause/2))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := s.once(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("leftovers in storage not swept, trying again within a day", zap.Error(err))
		}
	}
}

// once sweeps if that is due, and if no other node does.
func (s *sweeper) once(ctx context.Context) error {
	if due, _, err := s.due(ctx); err != nil || !due {
		return err
	}
	lease, err := s.store.Lease(ctx, sweepLease)
	if err != nil {
		return fmt.Errorf("get the lease of the sweep: %w", err)
	}
	defer func() {
		releasing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if err := lease.Release(releasing); err != nil {
			s.log.Warn("lease of the sweep could not be released", zap.Error(err))
		}
	}()
	ctx = lease.Context()
	due, version, err := s.due(ctx) // whoever held the lease before may have swept
	if err != nil || !due {
		return err
	}
	if version != "" {
		err = s.sweep(ctx)
	}
	return errors.Join(err, s.done(ctx, version)) // also after an error, or every node would list every day
}

func (s *sweeper) sweep(ctx context.Context) error {
	var errs []error
	for what, task := range s.tasks {
		if err := task(ctx); err != nil {
			errs = append(errs, fmt.Errorf("sweep %s: %w", what, err))
		}
	}
	return errors.Join(errs...)
}

// due reports whether the last sweep was a week ago, or none ever was: then the version is empty, and only the time is noted.
func (s *sweeper) due(ctx context.Context) (bool, storage.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	last, version, err := storage.LoadJSON[sweepRecord](ctx, s.store, sweepObject, s.log)
	if errors.Is(err, storage.ErrNotExist) {
		return true, "", nil
	}
	if err != nil {
		return false, "", fmt.Errorf("read when the last sweep was: %w", err)
	}
	return time.Since(last.Ended) >= sweepEvery, version, nil
}

func (s *sweeper) done(ctx context.Context, v storage.Version) error {
	data, err := json.Marshal(sweepRecord{Ended: time.Now().UTC()})
	if err != nil {
		return fmt.Errorf("encode the record of the sweep: %w", err)
	}
	if _, err := s.store.PutIf(ctx, sweepObject, data, v); err != nil {
		return fmt.Errorf("note that was swept: %w", err)
	}
	return nil
}

// newSweeper knows what this program leaves behind.
func (p *program) newSweeper() *sweeper {
	tasks := map[string]func(context.Context) error{
		"challenges": p.responder.Sweep,
		"DNS records": func(ctx context.Context) error {
			if dns := p.issuers.solver(); dns != nil {
				return dns.Sweep(ctx)
			}
			return nil
		},
		"orders": func(ctx context.Context) error {
			var errs []error
			for _, issuer := range p.issuers.all() {
				errs = append(errs, issuer.client.Sweep(ctx))
			}
			return errors.Join(errs...)
		},
	}
	if p.store.bucket != nil {
		tasks["tombstones"] = func(ctx context.Context) error {
			_, err := p.store.bucket.SweepTombstones(ctx, leftIdle)
			return err
		}
	}
	return &sweeper{store: p.store, log: p.log.Named("sweep"), tasks: tasks}
}
