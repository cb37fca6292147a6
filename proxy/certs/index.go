package certs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

const (
	indexBatch  = 200 * time.Millisecond // new names are collected for so long before they are written
	indexRetry  = 10 * time.Second       // after trouble with storage
	indexEach   = 2 * time.Second        // other changes are collected for so long for each name there is,
	indexSeldom = 6 * time.Hour          // and for that long at most
	indexReread = 8 * time.Hour          // for what other processes did
	indexHands  = 8                      // shards read or written together
)

// index tells the planner, after a restart, of names that nobody has visited since, and all processes what became of each certificate and what CAs said of it. It
// lies in storage in shards, written by compare-and-swap after the certificates themselves; so it may lack a name for a moment, or for as long as nobody
// visits it after a crash in between: each certificate that is loaded is entered again. What did not come by an order is entered by an Indexer, and Reindex makes all of
// it anew.
//
// A name that is new is written soon. Everything else is collected: a million names are planned with a few writes of each shard a day. Who believes an old
// entry looks at a certificate too early, and sees that.
type index struct {
	store storage.Store
	log   *zap.Logger
	self  string        // see members
	wake  chan struct{} // has room for one: there are changes
	names func() int    // how many there are
	seen  *visits       // nil: of no interest

	// planned returns what the planner knows of the certificate of a name, if it knows one. It is only needed by who calls told.
	planned func(name string) (indexEntry, bool)

	mu      sync.Mutex // guards what follows
	changes [indexShards]indexChanges
	due     [indexShards]time.Time       // when the changes are to be written
	read    [indexShards]time.Time       // when we saw it last
	version [indexShards]storage.Version // of what we saw or wrote then
	asking  [indexShards]time.Time       // until then only we ask about its certificates
}

// indexChanges are those of a shard that are not written yet. A million names that are planned have some hundred thousand at any time, so nothing is kept of them that
// can be found when they are written.
type indexChanges struct {
	entries map[string]*indexEntry // of certificates that are new; nil where the name is to be taken out
	told    map[string]struct{}    // names of which the planner knows more
}

func (c indexChanges) count() int { return len(c.entries) + len(c.told) }

func newIndex(store storage.Store, log *zap.Logger, self string, names func() int) *index {
	return &index{store: store, log: log, self: self, names: names, wake: make(chan struct{}, 1)}
}

// put enters the certificate: at once if its name is new.
func (x *index) put(c *certificate, renewAt time.Time, isNew bool) {
	wait := x.pause()
	if isNew {
		wait = indexBatch
	}
	x.change(c.name, entryOf(c, renewAt), wait)
}

func entryOf(c *certificate, renewAt time.Time) *indexEntry {
	i := c.identity()
	return &indexEntry{CA: c.ca, NotAfter: i.ends, RenewAt: renewAt.UTC().Truncate(time.Second), Leaf: i.leaf, ID: i.id, Issued: i.issued.UTC().Truncate(time.Second), Early: i.early}
}

// remove takes the name out, soon.
func (x *index) remove(name string) { x.change(name, nil, indexBatch) }

// pause is for how long changes are collected: a few names are written quickly, many seldom.
func (x *index) pause() time.Duration {
	return min(max(time.Duration(x.names())*indexEach, indexBatch), indexSeldom)
}

func (x *index) change(name string, e *indexEntry, wait time.Duration) {
	shard := indexShard(name)
	x.mu.Lock()
	c := &x.changes[shard]
	if c.entries == nil {
		c.entries = map[string]*indexEntry{}
	}
	if old := c.entries[name]; old == nil || e == nil || !old.Issued.After(e.Issued) {
		c.entries[name] = e
	}
	x.dueLocked(shard, wait)
	x.mu.Unlock()
	x.wakeUp()
}

// told says that the planner knows more of the name's certificate: what its CA said of it, or whether the name has left us.
func (x *index) told(name string) {
	shard, wait := indexShard(name), x.pause()
	x.mu.Lock()
	c := &x.changes[shard]
	if c.told == nil {
		c.told = map[string]struct{}{}
	}
	c.told[name] = struct{}{}
	x.dueLocked(shard, wait)
	x.mu.Unlock()
	x.wakeUp()
}

// dueLocked sees to it that the shard is written after the wait at the latest.
func (x *index) dueLocked(shard int, wait time.Duration) {
	if due := time.Now().Add(wait); x.due[shard].IsZero() || due.Before(x.due[shard]) {
		x.due[shard] = due
	}
}

func (x *index) wakeUp() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// next returns the shards whose changes are to be written, or else how long it is until there are some.
func (x *index) next(now time.Time) (shards []int, wait time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	wait = time.Hour
	for shard, due := range x.due {
		switch {
		case due.IsZero():
		case !due.After(now):
			shards = append(shards, shard)
		default:
			wait = min(wait, due.Sub(now))
		}
	}
	return shards, wait
}

// take returns the shard's changes, and forgets them.
func (x *index) take(shard int) indexChanges {
	x.mu.Lock()
	defer x.mu.Unlock()
	changes := x.changes[shard]
	x.changes[shard], x.due[shard] = indexChanges{}, time.Time{}
	return changes
}

// pending reports whether the shard has changes that are not written.
func (x *index) pending(shard int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.changes[shard].count() > 0
}

// giveBack keeps changes that could not be written. What came meanwhile is newer.
func (x *index) giveBack(shard int, c indexChanges) {
	if c.count() == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	c.entries, c.told = union(c.entries, x.changes[shard].entries), union(c.told, x.changes[shard].told)
	x.changes[shard], x.due[shard] = c, time.Now().Add(indexRetry)
}

// union returns both together; where both have something, it is that of the second.
func union[V any](a, b map[string]V) map[string]V {
	if len(a) == 0 {
		return b
	}
	maps.Copy(a, b)
	return a
}

// complete returns the changes as they are to be written: with what the planner knows now.
func (x *index) complete(c indexChanges) map[string]*indexEntry {
	all := make(map[string]*indexEntry, c.count())
	maps.Copy(all, c.entries)
	for name := range c.told {
		e, known := x.planned(name)
		if entry, there := all[name]; there && known && entry != nil && e.same(*entry) {
			e.RenewAt = entry.RenewAt
		} else if there || !known {
			continue // it is gone, or another certificate
		}
		all[name] = &e
	}
	return all
}

// sync writes the shard's changes, if there are any, and returns the names that are there then; if nobody else has written since we looked last, only those whose
// visits were entered. With ask, it makes us the one who asks about its certificates for as long as changes are collected; others is until when another process does
// instead.
func (x *index) sync(ctx context.Context, shard int, ask bool) (names map[string]indexEntry, others time.Time, err error) {
	changes := x.take(shard)
	defer func() {
		if err != nil {
			x.giveBack(shard, changes)
		}
	}()
	for range 10 {
		file, version, err := x.load(ctx, shard)
		if err != nil {
			return nil, time.Time{}, err
		}
		now, written := time.Now(), version
		changed := file.apply(x.complete(changes))
		var seen map[string]indexEntry
		if x.seen != nil {
			seen = file.see(x.seen, now)
			changed = changed || len(seen) > 0
		}
		until := file.Until
		if ask = ask || changed && x.self != "" && file.Asker == x.self; ask {
			until = now.Add(x.pause() + infoHold)
			others = file.claim(x.self, now, until)
		}
		if changed || ask && others.IsZero() {
			written, err = x.write(ctx, shard, file, version)
		}
		if err == nil {
			x.mu.Lock()
			defer x.mu.Unlock()
			if names = seen; x.version[shard] != version {
				names = file.Names
			}
			x.read[shard], x.version[shard] = now, written
			if ask && others.IsZero() {
				x.asking[shard] = until
			}
			return names, others, nil
		}
		if !errors.Is(err, storage.ErrConflict) {
			return nil, time.Time{}, err
		}
	}
	return nil, time.Time{}, fmt.Errorf("write %s: %w", indexObject(shard), storage.ErrConflict)
}

func (x *index) write(ctx context.Context, shard int, file *indexShardFile, v storage.Version) (storage.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	v, err := x.store.PutIf(ctx, indexObject(shard), file.encode(), v)
	if err != nil {
		return "", fmt.Errorf("write %s: %w", indexObject(shard), err)
	}
	return v, nil
}

// asks reports whether only we ask about the shard's certificates, for a while yet.
func (x *index) asks(shard int, now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return now.Add(infoTimeout).Before(x.asking[shard])
}

// load returns a shard. A damaged one is put aside and begun anew: names enter it again as they are loaded or renewed.
func (x *index) load(ctx context.Context, shard int) (*indexShardFile, storage.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	file, version, err := storage.Load(ctx, x.store, indexObject(shard), decodeIndex, x.log)
	if errors.Is(err, storage.ErrNotExist) {
		return &indexShardFile{Names: map[string]indexEntry{}}, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("read index: %w", err)
	}
	return file, version, nil
}

// leave writes what is left, and lets others ask about the shards that we asked about.
func (x *index) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	x.each(func(shard int) {
		if !x.pending(shard) && !x.asks(shard, time.Now()) {
			return
		}
		changes := x.take(shard)
		err := storage.ErrConflict
		for try := 0; try < 5 && errors.Is(err, storage.ErrConflict); try++ {
			var file *indexShardFile
			var version storage.Version
			if file, version, err = x.load(ctx, shard); err != nil {
				break
			}
			changed := file.apply(x.complete(changes))
			if ours := file.Asker == x.self; ours || changed {
				if ours {
					file.Asker, file.Until = "", time.Time{}
				}
				_, err = x.write(ctx, shard, file, version)
			}
		}
		if err != nil {
			x.log.Warn("index could not be written at the end, who reads it sees that later", zap.Int("shard", shard), zap.Error(err))
		}
	})
}

// each calls f for every shard, some at a time.
func (x *index) each(f func(shard int)) {
	var hands sync.WaitGroup
	shards := make(chan int)
	for range indexHands {
		hands.Go(func() {
			for shard := range shards {
				f(shard)
			}
		})
	}
	for shard := range indexShards {
		shards <- shard
	}
	close(shards)
	hands.Wait()
}
