// Package ticketkeys keeps the keys of TLS session tickets in storage, so that a client resumes at any node of a fleet, and after a restart.
//
// The keys are one object. Each node reads it now and then; the first that finds a new key due puts one in by compare-and-swap. A new key opens tickets as soon
// as it is seen, and seals them only from a time that is written beside it, when all nodes have seen it.
package ticketkeys

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// object is where the keys lie, sealed like all else.
const object = "tickets/keys"

const (
	firstLook = time.Second      // Start waits so long for the keys
	callLimit = 10 * time.Second // one look
	retryMin  = 5 * time.Second  // after trouble with storage, doubled each time
	retryMax  = time.Minute
)

// Config is what a Keeper is built with.
type Config struct {
	// Store keeps the keys. Required.
	Store storage.Store

	// Set takes the keys for use: the first seals, all open. Required.
	Set func(keys [][32]byte) error

	// Logger is required.
	Logger *zap.Logger
}

// Keeper applies the keys that are stored, and rotates them. Its life is New, Start, Close.
type Keeper struct {
	cfg    Config
	cancel context.CancelFunc
	work   sync.WaitGroup

	// These belong to Start, then to the goroutine that it starts.
	set     keySet // as read last
	applied bool   // some keys are in use
	tries   int    // troubles with storage in a row
}

// New builds a Keeper. It does nothing before Start.
func New(cfg Config) *Keeper {
	cfg.Logger = cfg.Logger.Named("tickets")
	return &Keeper{cfg: cfg}
}

// Start applies the stored keys, for which it waits a second at most, and goes on in the background until ctx ends or Close is called. While storage does not
// answer, whatever keys are in use stay in use.
func (k *Keeper) Start(ctx context.Context) {
	ctx, k.cancel = context.WithCancel(ctx)
	first, cancel := context.WithTimeout(ctx, firstLook)
	defer cancel()
	wait := k.look(first)
	k.work.Go(func() {
		for sleep(ctx, wait) {
			limited, cancel := context.WithTimeout(ctx, callLimit)
			wait = k.look(limited)
			cancel()
		}
	})
}

// Close ends what Start began and waits for it. The keys stay in use.
func (k *Keeper) Close() {
	if k.cancel != nil {
		k.cancel()
	}
	k.work.Wait()
}

// look reads the keys, puts in a new one if it is time, applies them, and returns how long it is until the next look.
func (k *Keeper) look(ctx context.Context) time.Duration {
	set, err := k.current(ctx)
	if err != nil {
		return k.trouble(ctx, err)
	}
	k.tries, k.set = 0, set
	now := time.Now()
	if err := k.cfg.Set(set.inUse(now)); err != nil {
		return k.trouble(ctx, err)
	}
	k.applied = true
	return set.nextLook(now, mathrand.Float64())
}

// trouble keeps what is in use, turned as its times say, and comes back soon.
func (k *Keeper) trouble(ctx context.Context, err error) time.Duration {
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return 0 // the end of the Keeper
	}
	if k.tries == 0 {
		k.cfg.Logger.Warn("keys of session tickets cannot be had from storage, trying again; tickets are resumed by the nodes that have the same keys",
			zap.Bool("some_in_use", k.applied), zap.Error(err))
	}
	if keys := k.set.inUse(time.Now()); len(keys) > 0 {
		_ = k.cfg.Set(keys) // took these keys before
	}
	pause := min(retryMin<<min(k.tries, 8), retryMax)
	k.tries++
	return pause
}

// current returns the stored keys, with a new one among them if one was due.
func (k *Keeper) current(ctx context.Context) (keySet, error) {
	for range 10 {
		set, version, err := k.read(ctx)
		if err != nil {
			return keySet{}, err
		}
		next, due := set.rotated(time.Now(), newKey)
		if !due {
			return set, nil
		}
		data, err := json.Marshal(next)
		if err != nil {
			return keySet{}, fmt.Errorf("encode keys of session tickets: %w", err)
		}
		_, err = k.cfg.Store.PutIf(ctx, object, data, version)
		if err == nil {
			k.cfg.Logger.Info("new key of session tickets", zap.Time("seals_from", next.Keys[0].From), zap.Int("keys", len(next.Keys)))
			return next, nil
		}
		if !errors.Is(err, storage.ErrConflict) {
			return keySet{}, err
		}
	}
	return keySet{}, fmt.Errorf("write %s: %w", object, storage.ErrConflict)
}

// read returns what is stored; an empty set if there is nothing. Damaged keys are put aside: they are worth no more than a few whole handshakes.
func (k *Keeper) read(ctx context.Context) (keySet, storage.Version, error) {
	set, version, err := storage.Load(ctx, k.cfg.Store, object, decode, k.cfg.Logger)
	if err == nil {
		return set, version, nil
	}
	if errors.Is(err, storage.ErrNotExist) {
		return keySet{}, "", nil // should somebody have been faster, PutIf tells
	}
	return keySet{}, "", fmt.Errorf("read keys of session tickets: %w", err)
}

func newKey() (key [32]byte) {
	_, _ = rand.Read(key[:]) // never fails
	return key
}

// sleep waits and reports whether ctx still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
