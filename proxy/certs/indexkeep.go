package certs

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// This file is what the Manager does with the index: it reads what others know, and writes what it knows itself.

// writeIndex stores changes until ctx ends, and then what is left.
func (m *Manager) writeIndex(ctx context.Context) {
	failing := false // the log knows
	for {
		shards, wait := m.index.next(time.Now())
		var failed []int
		var last error
		for _, shard := range shards {
			if _, err := m.syncShard(ctx, shard, false); err != nil && ctx.Err() == nil {
				failed, last = append(failed, shard), err
			}
		}
		switch { // one line for all shards and tries: storage that cannot be written concerns them all
		case len(failed) > 0 && !failing:
			failing = true
			m.log.Warn("index could not be written, trying again", zap.Ints("shards", failed), zap.Error(last))
		case len(shards) > 0 && len(failed) == 0 && failing && ctx.Err() == nil:
			failing = false
			m.log.Info("index can be written again")
		}
		if len(shards) > 0 {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			m.queue.close() // what is issued to the last order is entered too
			m.index.leave(ctx)
			return
		case <-m.index.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// readIndex tells the planner of the names in the index: after the start, and now and then of what other processes did.
func (m *Manager) readIndex(ctx context.Context) {
	for shard := range indexShards {
		for !m.readShard(ctx, shard) {
			if !sleep(ctx, indexRetry) {
				return
			}
		}
	}
	close(m.planner.told)
	if names, unclaimed := m.countNames(); names > 0 {
		m.log.Info("stored certificates known", zap.Int("names", names), zap.Int("claimed_by_no_site", unclaimed))
	}
	for shard := 0; ; shard = (shard + 1) % indexShards {
		if !sleep(ctx, indexReread/indexShards) {
			return
		}
		if m.index.stale(shard, time.Now()) {
			m.readShard(ctx, shard)
		}
	}
}

// stale reports whether it is time to look at the shard again.
func (x *index) stale(shard int, now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return now.Sub(x.read[shard]) >= indexReread*3/4
}

func (m *Manager) readShard(ctx context.Context, shard int) bool {
	_, err := m.syncShard(ctx, shard, false)
	if err != nil && ctx.Err() == nil {
		m.log.Warn("index cannot be read, trying again", zap.Int("shard", shard), zap.Error(err))
	}
	return err == nil
}

// syncShard is index.sync, whose news the planner hears.
func (m *Manager) syncShard(ctx context.Context, shard int, ask bool) (others time.Time, err error) {
	names, others, err := m.index.sync(ctx, shard, ask)
	if err != nil {
		return time.Time{}, err
	}
	for name, e := range names {
		m.readEntry(name, e)
	}
	return others, nil
}

// readEntry takes a name into planning, what became of its certificate, and what its CA said of it.
func (m *Manager) readEntry(name string, e indexEntry) {
	now := time.Now()
	soon := now.Add(scale(firstWithin, fraction(name)))
	if m.planner.hear(name, e, soon) && m.cache.cert(name) != nil {
		m.planner.refresh(name, soon) // another process has replaced the one we serve
	}
	if e.Said != nil {
		m.learn(name, *e.Said)
	}
}

// countNames returns how many names are planned, and how many of them no site claims.
func (m *Manager) countNames() (names, unclaimed int) {
	r := m.rules.Load()
	for _, name := range m.planner.names() {
		names++
		if _, ok := r.managed(name); !ok {
			unclaimed++
		}
	}
	return names, unclaimed
}

// sleep waits and reports whether ctx still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
