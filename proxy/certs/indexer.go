package certs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// indexTogether is how many certificates an Indexer collects before it writes: each time costs a read and a write of every shard.
const indexTogether = 50_000

// Indexer enters certificates into the index that came into storage by other ways than an order: by an import, a copy, a restored backup. So their renewal is
// planned without a visitor: by the next process that starts, and by those that run within hours (see index).
type Indexer struct {
	index *index
	ratio float64 // Settings.RenewAt

	mu    sync.Mutex // guards count
	count int        // since the last flush
}

// NewIndexer makes an Indexer for the store; renewAt is Settings.RenewAt, and zero means what it means there.
func NewIndexer(store storage.Store, renewAt float64, log *zap.Logger) *Indexer {
	if renewAt == 0 {
		renewAt = defaultRenewAt
	}
	return &Indexer{index: newIndex(store, log, "", func() int { return 0 }), ratio: renewAt}
}

// Stored enters the certificate that is stored for a name, which may be a wildcard. It writes now and then; Flush writes the rest. A bundle that could not serve
// the name is left out: whoever loads it puts it aside.
func (x *Indexer) Stored(ctx context.Context, name string, b *storage.Bundle) error {
	cert, err := newCertificate(name, b, x.ratio)
	if err != nil {
		return nil
	}
	x.index.put(cert, cert.renewAt, true)
	x.mu.Lock()
	x.count++
	full := x.count >= indexTogether
	if full {
		x.count = 0
	}
	x.mu.Unlock()
	if full {
		return x.Flush(ctx)
	}
	return nil
}

// StoredObject is Stored for an object of any name: what is no certificate of ours is left out.
func (x *Indexer) StoredObject(ctx context.Context, object string, data []byte) error {
	name, ok := nameOfCert(object)
	if !ok {
		return nil
	}
	b, err := storage.DecodeBundle(object, data)
	if err != nil {
		return nil
	}
	return x.Stored(ctx, name, b)
}

// Flush writes what was entered.
func (x *Indexer) Flush(ctx context.Context) error {
	var errs []error
	for shard := range indexShards {
		if x.index.pending(shard) {
			_, _, err := x.index.sync(ctx, shard, false)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// nameOfCert is the reverse of certObject.
func nameOfCert(object string) (string, bool) {
	name, ok := strings.CutPrefix(object, "certs/")
	if rest, wild := strings.CutPrefix(name, "_."); wild {
		name = "*." + rest
	}
	return name, ok
}

// ReindexReport says what Reindex found.
type ReindexReport struct {
	Certificates int // are stored and whole, and in the index now
	Damaged      int // cannot be read; whoever loads them puts them aside
	Removed      int // entries whose certificate is not stored
}

func (r *ReindexReport) String() string {
	return fmt.Sprintf("%8d certificates in the index\n%8d damaged, left out\n%8d entries removed that had no certificate\n", r.Certificates, r.Damaged, r.Removed)
}

// Reindex makes the index anew from what is stored: each certificate is read and entered, and entries without a certificate are taken out. It may run while
// processes serve from the store; what they write meanwhile stays. It is an operator's command, and the only place that lists certificates for the index.
func Reindex(ctx context.Context, store storage.Store, renewAt float64, log *zap.Logger) (*ReindexReport, error) {
	r := &reindexing{Indexer: NewIndexer(store, renewAt, log), store: store, seen: map[string]struct{}{}}
	if err := storage.ForAll(ctx, store, "certs/", 16, r.object); err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	if err := r.Flush(ctx); err != nil {
		return nil, fmt.Errorf("write index: %w", err)
	}
	for shard := range indexShards {
		if err := r.prune(ctx, shard); err != nil {
			return nil, fmt.Errorf("prune index: %w", err)
		}
	}
	return &r.report, nil
}

// reindexing is one run of Reindex.
type reindexing struct {
	*Indexer
	store storage.Store

	mu     sync.Mutex // guards what follows
	report ReindexReport
	seen   map[string]struct{}
}

func (r *reindexing) object(ctx context.Context, object string) error {
	name, _ := nameOfCert(object)
	data, version, err := r.store.Get(ctx, object)
	if errors.Is(err, storage.ErrNotExist) {
		return nil // gone meanwhile
	}
	if err == nil && version.Stale() {
		err = fmt.Errorf("read %s: %w", object, storage.ErrStale)
	}
	var b *storage.Bundle
	if err == nil {
		b, err = storage.DecodeBundle(object, data)
	}
	_, damaged := errors.AsType[*storage.CorruptError](err)
	if err != nil && !damaged {
		return err
	}
	r.mu.Lock()
	r.seen[name] = struct{}{}
	if damaged {
		r.report.Damaged++
	} else {
		r.report.Certificates++
	}
	r.mu.Unlock()
	if damaged {
		return nil
	}
	return r.Stored(ctx, name, b)
}

// prune takes out of a shard the names that have no certificate. Only an entry that was seen is removed: one that comes meanwhile has its certificate.
func (r *reindexing) prune(ctx context.Context, shard int) error {
	for range 10 {
		file, version, err := r.index.load(ctx, shard)
		if err != nil {
			return err
		}
		var gone []string
		for name := range file.Names {
			if _, ok := r.seen[name]; ok {
				continue
			}
			if _, _, err := r.store.Get(ctx, certObject(name)); errors.Is(err, storage.ErrNotExist) {
				gone = append(gone, name)
			} else if err != nil {
				return err
			}
		}
		if len(gone) == 0 {
			return nil
		}
		for _, name := range gone {
			delete(file.Names, name)
		}
		if _, err = r.index.write(ctx, shard, file, version); err == nil {
			r.report.Removed += len(gone)
		}
		if !errors.Is(err, storage.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("write %s: %w", indexObject(shard), storage.ErrConflict)
}
