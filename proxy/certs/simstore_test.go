package certs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gatelodge/storage"
)

// dice are the simulator's only source of chance: what happens depends on the seed, on what is asked, and on how often it was asked before, not on which goroutine
// comes first. So a seed gives the same world again, as far as the order in which goroutines run allows.
type dice struct {
	seed string

	mu    sync.Mutex // guards times
	times map[string]int
	large bool // too many things happen to count them: the time tells one from the next. On calm days storage answers at once
}

func newDice(seed string, large bool) *dice {
	return &dice{seed: seed, times: map[string]int{}, large: large}
}

// roll returns a number in [0, 1) for the next time that this happens.
func (d *dice) roll(what ...string) float64 {
	if d.large {
		return d.now(what...)
	}
	key := strings.Join(what, " ")
	d.mu.Lock()
	d.times[key]++
	n := d.times[key]
	d.mu.Unlock()
	return fraction(d.seed, key, strconv.Itoa(n))
}

// now returns the same number for the same moment.
func (d *dice) now(what ...string) float64 {
	return d.fixed(append(what, strconv.FormatInt(time.Now().UnixNano(), 36))...)
}

// fixed returns the same number each time.
func (d *dice) fixed(what ...string) float64 {
	return fraction(append([]string{d.seed}, what...)...)
}

// weather says how bad a day is: calm, with faults, or stormy. Each thing has its own.
func (d *dice) weather(what string, begin, now time.Time) float64 {
	day := int(now.Sub(begin) / (24 * time.Hour))
	switch x := d.fixed("weather", what, strconv.Itoa(day)); {
	case x < 0.7:
		return 0
	case x < 0.95:
		return 0.02
	}
	return 0.2
}

// simStore is the bucket of the fleet, and counts what it costs. Certificates that were there before the simulation began are made when they are read.
type simStore struct {
	inner *storage.Memory
	w     *simWorld

	today atomic.Pointer[simWeather]
	calls [simKinds]atomic.Int64

	mu sync.Mutex // guards old
	// old are the names whose certificate is still the one from before: their version is simOld.
	old map[int]bool
}

// simWeather is that of one day.
type simWeather struct {
	day int
	bad float64
}

// What storage is asked for.
const (
	simIndex = iota
	simBeats
	simCerts
	simLeases
	simOther
	simLists
	simKinds
)

// simOld is the version of certificates from before.
const simOld = storage.Version("old")

var (
	errSimStore = errors.New("simulated: storage answers 500")
	errSimDead  = errors.New("simulated: the process is dead")
)

// weather is that of today.
func (s *simStore) weather() float64 {
	now := time.Now()
	day := int(now.Sub(s.w.begin) / (24 * time.Hour))
	today := s.today.Load()
	if today == nil || today.day != day {
		today = &simWeather{day, s.w.dice.weather("store", s.w.begin, now)}
		s.today.Store(today)
	}
	return today.bad
}

func (s *simStore) count(name string) {
	kind := simOther
	switch place, _, _ := strings.Cut(name, "/"); place {
	case "index":
		kind = simIndex
	case membersObject:
		kind = simBeats
	case "certs":
		kind = simCerts
	case "leases":
		kind = simLeases
	}
	s.calls[kind].Add(1)
}

// get is that of the bucket.
func (s *simStore) get(ctx context.Context, name string) ([]byte, storage.Version, error) {
	data, v, err := s.inner.Get(ctx, name)
	if n := s.isOld(name); n >= 0 && errors.Is(err, storage.ErrNotExist) {
		return s.w.object(n), simOld, nil
	}
	return data, v, err
}

// isOld returns the number of the name whose certificate from before that is; below zero if it is none.
func (s *simStore) isOld(object string) int {
	if s.old == nil || !strings.HasPrefix(object, "certs/") {
		return -1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := simNumberOf(strings.TrimPrefix(object, "certs/")); s.old[n] {
		return n
	}
	return -1
}

func (s *simStore) putIf(ctx context.Context, name string, data []byte, at storage.Version) (storage.Version, error) {
	n := s.isOld(name)
	switch {
	case n >= 0 && at != simOld:
		return "", storage.ErrConflict
	case n >= 0:
		at = ""
	}
	v, err := s.inner.PutIf(ctx, name, data, at)
	if err == nil {
		s.took(name, n, data)
	}
	return v, err
}

// took notes that an object has another content now.
func (s *simStore) took(name string, old int, data []byte) {
	if old >= 0 {
		s.mu.Lock()
		delete(s.old, old)
		s.mu.Unlock()
	}
	if strings.HasPrefix(name, "certs/") {
		line, _, _ := bytes.Cut(data, []byte("\n"))
		s.w.keeps(simNumberOf(strings.TrimPrefix(name, "certs/")), line)
	}
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

// simWire is one process's way to the bucket: it is slow, fails, does what it says it failed to do, and ends with the process.
type simWire struct {
	*simStore
	dead  atomic.Bool
	pause atomic.Pointer[chan struct{}] // closed when the process goes on
}

// call does an operation of storage as the day's weather has it.
func (w *simWire) call(ctx context.Context, op, name string, do func() error) error {
	w.count(name)
	bad, d := w.weather(), w.w.dice
	if pause := time.Duration((1 + 20*bad) * float64(20*time.Millisecond) * (0.5 + d.now(op, name, "latency"))); (bad > 0 || !d.large) && !sleep(ctx, pause) {
		return context.Cause(ctx)
	}
	if err := w.stand(ctx); err != nil {
		return err
	}
	fate := 1.0
	if bad > 0 {
		fate = d.roll(op, name)
	}
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
		data, v, err = w.get(ctx, name)
		return err
	})
	return data, v, err
}

func (w *simWire) Put(ctx context.Context, name string, data []byte) (v storage.Version, err error) {
	err = w.call(ctx, "Put", name, func() (err error) {
		if v, err = w.inner.Put(ctx, name, data); err == nil {
			w.took(name, w.isOld(name), data)
		}
		return err
	})
	return v, err
}

func (w *simWire) PutIf(ctx context.Context, name string, data []byte, at storage.Version) (v storage.Version, err error) {
	err = w.call(ctx, "PutIf", name, func() (err error) {
		if at != "" && w.w.accidents && w.w.dice.roll("conflict", name) < 0.01 { // somebody else writes the same again
			if now, is, err := w.get(ctx, name); err == nil && is == at {
				if _, err := w.putIf(ctx, name, now, is); err != nil {
					return err
				}
			}
		}
		v, err = w.putIf(ctx, name, data, at)
		return err
	})
	return v, err
}

func (w *simWire) Delete(ctx context.Context, name string) error {
	return w.call(ctx, "Delete", name, func() error {
		w.took(name, w.isOld(name), nil)
		return w.inner.Delete(ctx, name)
	})
}

func (w *simWire) List(context.Context, string, string, int) ([]string, error) {
	w.calls[simLists].Add(1)
	return nil, errors.New("simulated: nothing lists while it runs")
}

func (w *simWire) Lease(context.Context, string) (storage.Lease, error) {
	panic("leases are those of storage.Shared")
}
