package certs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// membersObject lists the processes that share the planning.
const membersObject = "members"

// The rhythm of beats, in parts of Config.Beat.
const (
	beatUsual  = time.Minute
	beatSpread = 0.1 // processes part ways
	beatsDead  = 3.5 // without a beat, others take over
	beatRetry  = 6   // after trouble with storage: six times in a beat
)

// membersFile is the one object by which processes know of each other.
type membersFile struct {
	Beats map[string]uint64 `json:"beats"` // by process, counted up
}

// members shares the shards of the index out between the processes that live, by rendezvous hashing: each process draws a number for each shard, and the
// highest has it. When a process comes or goes, only its own shards change hands, and nobody needs to agree on anything.
//
// A process lives as long as its count in the object goes up, by the clock of whoever looks; no clock of another host is read. Two processes may take a shard
// for theirs for a minute: that costs a question too many, since every order is made under the lease of its name.
type members struct {
	store storage.Store
	log   *zap.Logger
	self  string
	every time.Duration

	failing func(error) // hears of storage that has taken no beat for the time of one

	mu     sync.Mutex // guards what follows
	seen   map[string]beatSeen
	who    []string          // the processes that the shards were dealt out to last, sorted
	mine   [indexShards]bool // what we got of them
	beaten time.Time         // when our last beat was sent that came through; zero: none
	failed time.Time         // since when none does; zero: the last one did
}

// beatSeen is a count and when it was new to us.
type beatSeen struct {
	count uint64
	at    time.Time
}

func newMembers(store storage.Store, log *zap.Logger, every time.Duration) *members {
	setDefault(&every, beatUsual)
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	x := &members{failing: func(error) {}, store: store, log: log, every: every, self: fmt.Sprintf("%s/%d/%s", host, os.Getpid(), randomText()), seen: map[string]beatSeen{}}
	for shard := range x.mine {
		x.mine[shard] = true // alone, until we know better
	}
	return x
}

// randomText tells apart what would otherwise have one name.
func randomText() string { return fmt.Sprintf("%012x", rand.Uint64()>>16) }

// owns reports whether the shard's planning is ours. A process that has not been heard for so long that others take over owns nothing; one that was never
// heard, because storage does not answer yet, goes on as if it were alone.
func (x *members) owns(shard int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.mine[shard] && (x.beaten.IsZero() || time.Since(x.beaten) < x.dead())
}

func (x *members) dead() time.Duration { return scale(x.every, beatsDead) }

// beat tells the others that we live, until ctx ends, and then that we leave. It calls gained with the shards that became ours.
func (x *members) beat(ctx context.Context, gained func(shards []int)) {
	for ctx.Err() == nil {
		pause := x.every + scale(x.every, beatSpread*rand.Float64())
		if err := x.once(ctx, false, gained); err != nil {
			x.trouble(ctx, err)
			pause = x.every / beatRetry
		}
		if !sleep(ctx, pause) {
			break
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := x.once(ctx, true, func([]int) {}); err != nil {
		x.log.Debug("others were not told that we leave, they notice", zap.Error(err))
	}
}

// trouble tells the log, once for all failures in a row, and if they last whoever has to know: a process may have nothing else to write for days.
func (x *members) trouble(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	x.mu.Lock()
	first := x.failed.IsZero()
	if first {
		x.failed = time.Now()
	}
	lasts := time.Since(x.failed) >= x.every
	x.mu.Unlock()
	if lasts {
		x.failing(err)
	}
	if first {
		x.log.Warn("other processes cannot be told that this one lives, they may take over its renewals", zap.Error(err))
	}
}

// once counts up in the object, drops those that are dead, and draws the conclusions.
func (x *members) once(ctx context.Context, leave bool, gained func([]int)) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for range 10 {
		sent := time.Now()
		file, version, err := x.read(ctx)
		if err != nil {
			return err
		}
		live := x.living(file, sent)
		next := membersFile{Beats: map[string]uint64{}}
		for _, id := range live {
			next.Beats[id] = file.Beats[id]
		}
		next.Beats[x.self] = file.Beats[x.self] + 1
		if leave {
			delete(next.Beats, x.self)
		}
		data, err := json.Marshal(next)
		if err != nil {
			return fmt.Errorf("encode %s: %w", membersObject, err)
		}
		_, err = x.store.PutIf(ctx, membersObject, data, version)
		if err == nil {
			gained(x.share(next, sent))
			return nil
		}
		if !errors.Is(err, storage.ErrConflict) {
			return fmt.Errorf("write %s: %w", membersObject, err)
		}
		if !sleep(ctx, rand.N(time.Second)) {
			break
		}
	}
	return fmt.Errorf("write %s: %w", membersObject, storage.ErrConflict)
}

// read returns what is stored. What is damaged counts as nothing: it is written anew.
func (x *members) read(ctx context.Context) (membersFile, storage.Version, error) {
	file, version, err := storage.LoadJSON[membersFile](ctx, x.store, membersObject, x.log)
	if err == nil {
		return file, version, nil
	}
	if errors.Is(err, storage.ErrNotExist) {
		return membersFile{}, "", nil
	}
	return membersFile{}, "", fmt.Errorf("read %s: %w", membersObject, err)
}

// living returns those whose count went up a short time ago, or that we see for the first time.
func (x *members) living(file membersFile, now time.Time) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var live []string
	for id, count := range file.Beats {
		was, known := x.seen[id]
		if !known || was.count != count {
			was = beatSeen{count, now}
			x.seen[id] = was
		}
		if id != x.self && now.Sub(was.at) < x.dead() {
			live = append(live, id)
		}
	}
	return live
}

// share deals the shards out between the processes in the object, and returns those that became ours.
func (x *members) share(file membersFile, sent time.Time) (gained []int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	maps.DeleteFunc(x.seen, func(id string, _ beatSeen) bool {
		_, there := file.Beats[id]
		return !there
	})
	lapsed := !x.beaten.IsZero() && time.Since(x.beaten) >= x.dead() // as owns has it: what was left to others meanwhile is ours again
	x.beaten, x.failed = sent, time.Time{}
	who := slices.Sorted(maps.Keys(file.Beats))
	if slices.Equal(who, x.who) && !lapsed {
		return nil
	}
	x.who = who
	for shard := range x.mine {
		mine := file.owner(shard) == x.self
		if mine && (!x.mine[shard] || lapsed) {
			gained = append(gained, shard)
		}
		x.mine[shard] = mine
	}
	return gained
}

// owner is the process with the highest draw.
func (f membersFile) owner(shard int) (owner string) {
	best := uint64(0)
	for id := range f.Beats {
		if draw := hash64(id, indexObject(shard)); owner == "" || draw > best || draw == best && id > owner {
			owner, best = id, draw
		}
	}
	return owner
}
