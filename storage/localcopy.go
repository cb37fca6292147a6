package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// ErrStale is wrapped by the error of PutIf and DeleteIf for a version that is Stale: what was read is a copy from before an outage, so nothing can be
// decided from it. The store itself may answer again; the caller reads anew.
var ErrStale = errors.New("storage: the store did not answer, and what was read is a local copy")

// stalePrefix begins the versions of what comes from the local copy.
const stalePrefix = "stale "

// Stale reports whether the object came from a local copy because the store did not answer. Such an object may be served, and nothing else: nothing is ordered,
// renewed, replaced or removed because of what is in it.
func (v Version) Stale() bool { return strings.HasPrefix(string(v), stalePrefix) }

// LocalCopyConfig says what is copied and for how long.
type LocalCopyConfig struct {
	// Of names the store that is copied, such as its address: a folder with copies of another store is not believed. It may be empty.
	Of string

	// Prefixes begin the names of what is copied. Empty means what a process needs to start and to serve without the store: "certs/", "keys/" and "localca/".
	Prefixes []string

	// MaxAge is how long a copy is good after the store confirmed it last. Zero means 100 days: longer than certificates live that are loaded once and
	// then served from memory.
	MaxAge time.Duration

	// MaxObjects bounds the copies; those confirmed longest ago go first. Zero means 200,000, about 1.6 GB on a disk.
	MaxObjects int
}

// Times of a local copy.
const (
	copyConfirm = 24 * time.Hour         // a copy's age is written down at most so often
	copyRest    = 2 * time.Second        // after a slow failure, names with a copy do not wait for the store again
	copySlow    = 100 * time.Millisecond // a failure that takes so long is slow
	copyLimit   = 2 * time.Second        // one call of the local store
)

// LocalCopy is a Store that keeps, in a second one on the own host, copies of what was read from and written to the first. While the first does not answer, the
// copies are served, with versions that are Stale. After a restart too.
//
// The first store decides, always: nothing is written to the copy alone; what it says does not exist, was deleted or was replaced is not served again, whatever
// happens in between. Where calls for one name overlap in a way that leaves open which of two answers is newer, no copy is kept.
//
// A LocalCopy under a Sealed copies envelopes, so that the copies are sealed as the store is.
type LocalCopy struct {
	inner, local Store
	cfg          LocalCopyConfig
	log          *zap.Logger

	life    context.Context // of work in the background; ends with Close
	endLife context.CancelFunc
	work    sync.WaitGroup

	mu     sync.Mutex // guards what follows; never held during I/O
	closed bool
	names  map[string]*copyName // those with calls under way
	dead   map[string]struct{}  // names whose copy should be gone and could not be removed
	queue  []laterCopy          // to be written in the background
	busy   bool                 // somebody works in the background
	count  int                  // copies, about; right after each sweep
	swept  time.Time            // zero before the first
	rest   time.Time            // until then the store is not waited for if there is a copy
	stale  int                  // copies served since the store answered last
	warned time.Time            // when trouble with the local store was logged last
}

var (
	_ Store    = (*LocalCopy)(nil)
	_ Salvager = (*LocalCopy)(nil)
)

// NewLocalCopy copies inner into local, which nobody else may use. It asks neither of them anything. log may be nil.
func NewLocalCopy(inner, local Store, cfg LocalCopyConfig, log *zap.Logger) *LocalCopy {
	if log == nil {
		log = zap.NewNop()
	}
	if len(cfg.Prefixes) == 0 {
		cfg.Prefixes = []string{"certs/", "keys/", "localca/"}
	}
	cfg.MaxAge = cmp.Or(cfg.MaxAge, 100*24*time.Hour)
	cfg.MaxObjects = cmp.Or(cfg.MaxObjects, 200_000)
	l := &LocalCopy{inner: inner, local: local, cfg: cfg, log: log, names: map[string]*copyName{}, dead: map[string]struct{}{}}
	l.life, l.endLife = context.WithCancel(context.Background())
	return l
}

// Close ends work in the background and waits for it. It closes neither of the stores.
func (l *LocalCopy) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.endLife()
	l.work.Wait()
	return nil
}

func (l *LocalCopy) copies(name string) bool {
	return slices.ContainsFunc(l.cfg.Prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// Get implements Store.
func (l *LocalCopy) Get(ctx context.Context, name string) ([]byte, Version, error) {
	if !l.copies(name) || CheckName(name) != nil {
		return l.inner.Get(ctx, name)
	}
	n := l.enter(name)
	defer l.leave(name, n)
	if l.resting() && ctx.Err() == nil {
		if c := l.copyOf(ctx, name); c != nil {
			return l.serve(name, c)
		}
	}
	seen := n.now()
	start := time.Now()
	data, version, err := l.ask(ctx, name)
	switch {
	case err == nil:
		l.answered()
		l.keep(ctx, n, name, seen, &copied{version: version, seen: time.Now(), data: data})
	case errors.Is(err, ErrNotExist):
		l.answered()
		if err := l.drop(ctx, n, name); err != nil {
			l.trouble("local copy of an object that is gone could not be removed", name, err)
		}
	case isOutage(err) && !errors.Is(ctx.Err(), context.Canceled):
		if time.Since(start) >= copySlow {
			l.restNow()
		}
		if c := l.copyOf(ctx, name); c != nil {
			return l.serve(name, c)
		}
	}
	return data, version, err
}

// ask reads the store and leaves a fifth of the caller's time for reading the copy.
func (l *LocalCopy) ask(ctx context.Context, name string) ([]byte, Version, error) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)*4/5)
		defer cancel()
	}
	return l.inner.Get(ctx, name)
}

// isOutage reports whether the error leaves open what the store has.
func isOutage(err error) bool {
	_, damaged := errors.AsType[*CorruptError](err)
	_, sealed := errors.AsType[*KeyError](err)
	return !damaged && !sealed && !errors.Is(err, ErrNotExist) && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrName) &&
		!errors.Is(err, ErrPlaintext) && !errors.Is(err, fs.ErrClosed)
}

// serve answers from the copy.
func (l *LocalCopy) serve(name string, c *copied) ([]byte, Version, error) {
	l.mu.Lock()
	l.stale++
	first := l.stale == 1
	l.mu.Unlock()
	if first {
		l.log.Warn("storage does not answer, serving local copies", zap.String("object", name), zap.Time("copied", c.seen))
	}
	return c.data, stalePrefix + c.version, nil
}

// answered notes that the store works.
func (l *LocalCopy) answered() {
	l.mu.Lock()
	served := l.stale
	l.stale, l.rest = 0, time.Time{}
	l.mu.Unlock()
	if served > 0 {
		l.log.Info("storage answers again", zap.Int("served_from_copies", served))
	}
}

func (l *LocalCopy) resting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.rest)
}

func (l *LocalCopy) restNow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = time.Now().Add(copyRest)
}

// trouble logs what is wrong with the local store, once a minute at most: it costs nothing but copies.
func (l *LocalCopy) trouble(message, name string, err error) {
	l.mu.Lock()
	quiet := time.Since(l.warned) < time.Minute
	if !quiet {
		l.warned = time.Now()
	}
	l.mu.Unlock()
	if !quiet {
		l.log.Error(message, zap.String("object", name), zap.Error(err))
	}
}

// Put implements Store.
func (l *LocalCopy) Put(ctx context.Context, name string, data []byte) (Version, error) {
	return l.write(ctx, name, data, func() (Version, error) { return l.inner.Put(ctx, name, data) })
}

// PutIf implements Store.
func (l *LocalCopy) PutIf(ctx context.Context, name string, data []byte, v Version) (Version, error) {
	if v.Stale() {
		return "", fmt.Errorf("write %s: %w", name, ErrStale)
	}
	return l.write(ctx, name, data, func() (Version, error) { return l.inner.PutIf(ctx, name, data, v) })
}

// write writes to the store first. An error leaves the copy alone, unless it tells that somebody else has written.
func (l *LocalCopy) write(ctx context.Context, name string, data []byte, do func() (Version, error)) (Version, error) {
	if !l.copies(name) || CheckName(name) != nil {
		return do()
	}
	n := l.enter(name)
	defer l.leave(name, n)
	seen := n.now()
	version, err := do()
	switch {
	case err == nil:
		l.settle(ctx, n, name, seen, &copied{version: version, seen: time.Now(), data: data})
	case errors.Is(err, ErrConflict):
		l.settle(ctx, n, name, seen, nil)
	}
	return version, err
}

// Delete implements Store. The copy goes first: should we die in between, it cannot come back.
func (l *LocalCopy) Delete(ctx context.Context, name string) error {
	return l.remove(ctx, name, func() error { return l.inner.Delete(ctx, name) })
}

// DeleteIf implements Salvager.
func (l *LocalCopy) DeleteIf(ctx context.Context, name string, v Version) error {
	salvager, ok := l.inner.(Salvager)
	if !ok {
		return fmt.Errorf("delete %s: %T is no storage.Salvager: %w", name, l.inner, errors.ErrUnsupported)
	}
	if v.Stale() {
		return fmt.Errorf("delete %s: %w", name, ErrStale)
	}
	return l.remove(ctx, name, func() error { return salvager.DeleteIf(ctx, name, v) })
}

func (l *LocalCopy) remove(ctx context.Context, name string, do func() error) error {
	if !l.copies(name) || CheckName(name) != nil || ctx.Err() != nil {
		return do()
	}
	n := l.enter(name)
	defer l.leave(name, n)
	if err := l.drop(ctx, n, name); err != nil {
		return fmt.Errorf("delete the local copy of %s: %w", name, err)
	}
	if err := do(); err != nil {
		return err
	}
	if err := l.drop(ctx, n, name); err != nil { // somebody may have read the object before it was gone
		return fmt.Errorf("delete the local copy of %s: %w", name, err)
	}
	return nil
}

// Salvage implements Salvager, by the store alone.
func (l *LocalCopy) Salvage(ctx context.Context, name string) ([]byte, Version, error) {
	salvager, ok := l.inner.(Salvager)
	if !ok {
		return nil, "", fmt.Errorf("salvage %s: %T is no storage.Salvager: %w", name, l.inner, errors.ErrUnsupported)
	}
	return salvager.Salvage(ctx, name)
}

// List implements Store, by the store alone.
func (l *LocalCopy) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	return l.inner.List(ctx, prefix, after, limit)
}

// Lease implements Store, by the store alone: without it, nobody has the right to anything.
func (l *LocalCopy) Lease(ctx context.Context, name string) (Lease, error) {
	return l.inner.Lease(ctx, name)
}
