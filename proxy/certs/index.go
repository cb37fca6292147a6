package certs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

const (
	indexBatch  = 200 * time.Millisecond // changes are collected for so long before they are written
	indexRetry  = 10 * time.Second       // after trouble with storage
	indexReread = 6 * time.Hour          // for names that other processes obtained
)

// indexEntry is what the index says of a name. The certificate itself decides; the index only says that there is one.
type indexEntry struct {
	CA       string    `json:"ca,omitempty"`
	NotAfter time.Time `json:"not_after"`
	RenewAt  time.Time `json:"renew_at"` // by its lifetime

	// Said is what the CA said of it, nil if it was not asked. What one process heard, the others hold to.
	Said *suggestion `json:"ari,omitempty"`
}

// indexShardFile is one object of the index. Fields of newer programs are lost when it is written: the index can always be told again.
type indexShardFile struct {
	Names map[string]indexEntry `json:"names"`
}

// index tells the planner, after a restart, of names that nobody has visited since, and all processes what CAs said of certificates. It lies in storage in shards, written by compare-and-swap after the
// certificates themselves; so it may lack a name for a moment, or for as long as nobody visits it after a crash in between: each
// certificate that is loaded is entered again. What did not come by an order is entered by an Indexer, and Reindex makes all of it anew.
type index struct {
	store storage.Store
	log   *zap.Logger
	wake  chan struct{} // has room for one: there are changes

	mu      sync.Mutex // guards changes
	changes [indexShards]map[string]*indexEntry
}

func newIndex(store storage.Store, log *zap.Logger) *index {
	return &index{store: store, log: log, wake: make(chan struct{}, 1)}
}

// put enters the certificate, soon.
func (x *index) put(c *certificate) { x.change(c.name, entryOf(c)) }

// told enters what the CA said of the certificate, soon.
func (x *index) told(c *certificate, s suggestion) {
	e := entryOf(c)
	e.Said = &s
	x.change(c.name, e)
}

func entryOf(c *certificate) *indexEntry {
	return &indexEntry{CA: c.ca, NotAfter: c.tls.Leaf.NotAfter, RenewAt: c.renewAt}
}

// remove takes the name out, soon.
func (x *index) remove(name string) { x.change(name, nil) }

func (x *index) change(name string, e *indexEntry) {
	x.mu.Lock()
	shard := indexShard(name)
	if x.changes[shard] == nil {
		x.changes[shard] = map[string]*indexEntry{}
	}
	if old := x.changes[shard][name]; old != nil && e != nil && e.Said == nil {
		e.Said = old.Said // not written yet
	}
	x.changes[shard][name] = e
	x.mu.Unlock()
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// write stores changes until ctx ends, and then what is left.
func (x *index) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
			defer cancel()
			x.flush(last)
			return
		case <-x.wake:
		}
		pause := indexBatch
		for {
			if !sleep(ctx, pause) || x.flush(ctx) {
				break
			}
			pause = indexRetry
		}
	}
}

// flush stores all changes. It reports whether none is left.
func (x *index) flush(ctx context.Context) bool {
	done := true
	for shard := range indexShards {
		changes := x.taken(shard)
		if len(changes) == 0 {
			continue
		}
		if err := x.merge(ctx, shard, changes); err != nil {
			done = false
			x.log.Warn("index could not be written, trying again", zap.Int("shard", shard), zap.Error(err))
			x.mu.Lock()
			maps.Copy(changes, x.changes[shard]) // what came meanwhile is newer
			x.changes[shard] = changes
			x.mu.Unlock()
		}
	}
	return done
}

// taken returns the changes of a shard, which are the caller's from now on.
func (x *index) taken(shard int) map[string]*indexEntry {
	x.mu.Lock()
	defer x.mu.Unlock()
	changes := x.changes[shard]
	x.changes[shard] = nil
	return changes
}

// merge brings the changes into a shard by compare-and-swap.
func (x *index) merge(ctx context.Context, shard int, changes map[string]*indexEntry) error {
	for range 10 {
		file, version, err := x.read(ctx, shard)
		if err != nil {
			return err
		}
		if !file.apply(changes) {
			return nil
		}
		data, err := json.Marshal(file)
		if err != nil {
			return fmt.Errorf("encode index: %w", err)
		}
		if _, err = x.store.PutIf(ctx, indexObject(shard), data, version); !errors.Is(err, storage.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("write %s: %w", indexObject(shard), storage.ErrConflict)
}

// apply reports whether anything changed.
func (f *indexShardFile) apply(changes map[string]*indexEntry) bool {
	changed := false
	for name, e := range changes {
		old, there := f.Names[name]
		switch {
		case e == nil && there:
			delete(f.Names, name)
			changed = true
		case e != nil && (!there || old.CA != e.CA || !old.NotAfter.Equal(e.NotAfter)):
			f.Names[name] = *e
			changed = true
		case e != nil && e.Said != nil && e.Said.newerThan(old.Said):
			old.Said = e.Said
			f.Names[name] = old
			changed = true
		}
	}
	return changed
}

// read returns a shard. A damaged one is put aside and begun anew: names enter it again as they are loaded or renewed.
func (x *index) read(ctx context.Context, shard int) (*indexShardFile, storage.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	file := &indexShardFile{}
	object := indexObject(shard)
	data, version, err := x.store.Get(ctx, object)
	if err == nil {
		if bad := json.Unmarshal(data, file); bad != nil {
			err = storage.NewCorruptError(object, data, bad)
		}
	}
	if _, damaged := errors.AsType[*storage.CorruptError](err); damaged {
		if err := storage.Quarantine(ctx, x.store, object, err, x.log); err != nil {
			return nil, "", err
		}
		file, err = &indexShardFile{}, storage.ErrNotExist
	}
	if err != nil && !errors.Is(err, storage.ErrNotExist) {
		return nil, "", fmt.Errorf("read index: %w", err)
	}
	if file.Names == nil {
		file.Names = map[string]indexEntry{}
	}
	return file, version, nil
}

// readIndex tells the planner of the names in the index: after the start, and now and then for what other processes obtained.
func (m *Manager) readIndex(ctx context.Context) {
	for first := true; ; first = false {
		names, unclaimed := 0, 0
		for shard := range indexShards {
			file, _, err := m.index.read(ctx, shard)
			for err != nil {
				if ctx.Err() == nil {
					m.log.Warn("index cannot be read, trying again", zap.Error(err))
				}
				if !sleep(ctx, indexRetry) {
					return
				}
				file, _, err = m.index.read(ctx, shard)
			}
			for name, e := range file.Names {
				names++
				if _, ok := m.rules.Load().managed(name); !ok {
					unclaimed++
				}
				m.readEntry(name, e)
			}
		}
		if first && names > 0 {
			m.log.Info("stored certificates known", zap.Int("names", names), zap.Int("claimed_by_no_site", unclaimed))
		}
		if !sleep(ctx, indexReread) {
			return
		}
	}
}

// readEntry takes a name into planning, and what its CA said of its certificate.
func (m *Manager) readEntry(name string, e indexEntry) {
	now := time.Now()
	soon := now.Add(scale(firstWithin, fraction(name)))
	it, known := m.planner.get(name)
	if it.ca == "" {
		m.planner.note(name, e.CA, e.NotAfter, e.RenewAt)
	}
	switch {
	case e.Said == nil && it.said == nil:
		m.planner.watch(name, 0, soon)
	case e.Said != nil && known && it.ca == "":
		m.planner.learn(name, *e.Said) // it is looked at soon, which plans it
	case e.Said != nil:
		m.learn(name, *e.Said)
	}
	if e.Said != nil && e.Said.Next < now.Unix() { // nobody asked while we were away: not all at once
		m.planner.recheck(name, soon)
	}
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
