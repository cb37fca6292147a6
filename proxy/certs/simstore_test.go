package certs

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gatelodge/storage"
)

// dice are the simulator's only source of chance: what happens depends on the seed, on what is asked, and on how often it was asked before, not on which goroutine
// comes first. So a seed gives the same world again, whatever the machine does.
type dice struct {
	seed string

	mu    sync.Mutex // guards times
	times map[string]int
}

func newDice(seed string) *dice { return &dice{seed: seed, times: map[string]int{}} }

// roll returns a number in [0, 1) for the next time that this happens.
func (d *dice) roll(what ...string) float64 {
	key := strings.Join(what, " ")
	d.mu.Lock()
	d.times[key]++
	n := d.times[key]
	d.mu.Unlock()
	return fraction(d.seed, key, string(rune(n)))
}

// fixed returns the same number each time.
func (d *dice) fixed(what ...string) float64 {
	return fraction(append([]string{d.seed}, what...)...)
}

// weather says how bad a day is: calm, with faults, or stormy. Each thing has its own.
func (d *dice) weather(what string, begin, now time.Time) float64 {
	day := int(now.Sub(begin) / (24 * time.Hour))
	switch x := d.fixed("weather", what, string(rune(day))); {
	case x < 0.7:
		return 0
	case x < 0.95:
		return 0.02
	}
	return 0.2
}

// simStore is the bucket of the fleet, and counts what it costs.
type simStore struct {
	inner *storage.Memory
	dice  *dice
	begin time.Time

	index, beats, lists, other atomic.Int64
}

var (
	errSimStore = errors.New("simulated: storage answers 500")
	errSimDead  = errors.New("simulated: the process is dead")
)

// simWire is one process's way to the bucket: it is slow, fails, does what it says it failed to do, and ends with the process.
type simWire struct {
	*simStore
	dead  atomic.Bool
	pause atomic.Pointer[chan struct{}] // closed when the process goes on
}

func (w *simWire) count(name string) {
	switch {
	case strings.HasPrefix(name, "index/"):
		w.index.Add(1)
	case name == membersObject:
		w.beats.Add(1)
	default:
		w.other.Add(1)
	}
}

// call does an operation of storage as the day's weather has it.
func (w *simWire) call(ctx context.Context, op, name string, do func() error) error {
	w.count(name)
	bad := w.dice.weather("store", w.begin, time.Now())
	if !sleep(ctx, time.Duration((1+20*bad)*float64(20*time.Millisecond)*(0.5+w.dice.roll(op, name, "latency")))) {
		return context.Cause(ctx)
	}
	if err := w.stand(ctx); err != nil {
		return err
	}
	fate := w.dice.roll(op, name)
	if fate < bad/2 {
		return errSimStore
	}
	err := do()
	if p := w.stand(ctx); p != nil {
		return p
	}
	if fate < bad && op != "Get" {
		return errSimStore // done, and nobody knows
	}
	return err
}

// stand waits while the process stands still.
func (w *simWire) stand(ctx context.Context) error {
	if p := w.pause.Load(); p != nil {
		<-*p
	}
	if w.dead.Load() {
		return errSimDead
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (w *simWire) Get(ctx context.Context, name string) (data []byte, v storage.Version, err error) {
	err = w.call(ctx, "Get", name, func() (err error) {
		data, v, err = w.inner.Get(ctx, name)
		return err
	})
	return data, v, err
}

func (w *simWire) Put(ctx context.Context, name string, data []byte) (v storage.Version, err error) {
	err = w.call(ctx, "Put", name, func() (err error) {
		v, err = w.inner.Put(ctx, name, data)
		return err
	})
	return v, err
}

func (w *simWire) PutIf(ctx context.Context, name string, data []byte, at storage.Version) (v storage.Version, err error) {
	err = w.call(ctx, "PutIf", name, func() (err error) {
		if at != "" && w.dice.roll("conflict", name) < 0.01 { // somebody else writes the same again
			if now, is, err := w.inner.Get(ctx, name); err == nil && is == at {
				if _, err := w.inner.PutIf(ctx, name, now, is); err != nil {
					return err
				}
			}
		}
		v, err = w.inner.PutIf(ctx, name, data, at)
		return err
	})
	return v, err
}

func (w *simWire) Delete(ctx context.Context, name string) error {
	return w.call(ctx, "Delete", name, func() error { return w.inner.Delete(ctx, name) })
}

func (w *simWire) List(context.Context, string, string, int) ([]string, error) {
	w.lists.Add(1)
	return nil, errors.New("simulated: nothing lists while it runs")
}

func (w *simWire) Lease(context.Context, string) (storage.Lease, error) {
	panic("leases are those of storage.Shared")
}

// lease tells who has the lease of a name, past all faults.
func (s *simStore) lease(name string) (holder string, fence uint64, held bool) {
	data, _, err := s.inner.Get(context.Background(), "leases/"+issueLease(name))
	var record struct {
		State, Holder string
		Fence         uint64
	}
	if err != nil || json.Unmarshal(data, &record) != nil {
		return "", 0, false
	}
	return record.Holder, record.Fence, record.State == "held"
}

// stored returns the certificate that lies in the bucket, nil if there is none.
func (s *simStore) stored(name string) *storage.Bundle {
	data, _, err := s.inner.Get(context.Background(), certObject(name))
	if err != nil {
		return nil
	}
	b, err := storage.DecodeBundle(certObject(name), data)
	if err != nil {
		return nil
	}
	return b
}
