package certs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

const (
	hotObject = "hot"
	hotEvery  = 5 * time.Minute // between two writes, where there were visitors
	hotFor    = time.Hour       // a name is hot for so long after a visit
	hotMost   = 1 << 15         // names in the list: 1.5 MB
)

// hotFile is one small object that all processes write: the certificates that visitors were served with in the last hour. Nothing depends on it; it saves the
// first visitors after a restart the wait for storage.
type hotFile struct {
	Names map[string]int64 `json:"names"` // a certificate's own name, and when it was used last: Unix seconds, to five minutes
}

// hotList writes the list. It belongs to one goroutine.
type hotList struct {
	*Manager
	file    hotFile // as it is in storage at the version, if nobody has written since
	version storage.Version
	written time.Time // what was used before is in it
}

// listHot enters the names of visitors now and then until ctx ends, and then the last ones.
func (m *Manager) listHot(ctx context.Context) {
	l := &hotList{Manager: m, written: time.Now()}
	for sleep(ctx, hotEvery) {
		l.write(ctx)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	l.write(last)
}

// write enters those that were used since the last time. Without visitors it does nothing.
func (l *hotList) write(ctx context.Context) {
	if l.rules.Load().Preload != PreloadHot {
		return
	}
	now := time.Now()
	used := l.cache.usedSince(l.written)
	if len(used) == 0 {
		return
	}
	if err := l.enter(ctx, used, now); err != nil {
		l.log.Warn("the list of hot names could not be written, trying again in some minutes", zap.Error(err))
		return
	}
	l.written = now
}

// enter brings the names into the object by compare-and-swap. As long as nobody else writes, that is one request.
func (l *hotList) enter(ctx context.Context, used map[string]int64, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for range 5 {
		file := l.file.with(used, now)
		data, err := json.Marshal(file)
		if err != nil {
			return fmt.Errorf("encode the list of hot names: %w", err)
		}
		version, err := l.store.PutIf(ctx, hotObject, data, l.version)
		if err == nil {
			l.file, l.version = file, version
			return nil
		}
		if !errors.Is(err, storage.ErrConflict) {
			return fmt.Errorf("write the list of hot names: %w", err)
		}
		if l.file, l.version, err = readHot(ctx, l.store, l.log); err != nil {
			return err
		}
	}
	return fmt.Errorf("write the list of hot names: %w", storage.ErrConflict)
}

// with returns the list with these names too, and without those that are hot no more.
func (f hotFile) with(used map[string]int64, now time.Time) hotFile {
	all := hotFile{Names: maps.Clone(used)}
	for name, at := range f.Names {
		if at >= now.Add(-hotFor).Unix() {
			all.Names[name] = max(at, all.Names[name])
		}
	}
	if len(all.Names) > hotMost {
		for _, name := range all.latest()[hotMost:] {
			delete(all.Names, name)
		}
	}
	return all
}

// latest returns the names, those that were used last first.
func (f hotFile) latest() []string {
	return slices.SortedFunc(maps.Keys(f.Names), func(a, b string) int {
		return cmp.Or(cmp.Compare(f.Names[b], f.Names[a]), strings.Compare(a, b))
	})
}

// readHot returns the list; an empty one if there is none. A damaged one is put aside: it is written anew.
func readHot(ctx context.Context, store storage.Store, log *zap.Logger) (hotFile, storage.Version, error) {
	file, version, err := storage.LoadJSON[hotFile](ctx, store, hotObject, log)
	if errors.Is(err, storage.ErrNotExist) {
		return hotFile{}, "", nil
	}
	if err != nil {
		return hotFile{}, "", fmt.Errorf("read the list of hot names: %w", err)
	}
	return file, version, nil
}
