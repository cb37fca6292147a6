package storage

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"
)

var (
	_ Store    = (*Shared)(nil)
	_ Salvager = (*Shared)(nil)
)

// errSharedClosed is the cause of everything that ends with Shared.Close.
var errSharedClosed = errors.New("storage: closed")

// Shared makes a Store that several processes share out of one that has an honest PutIf: its leases are objects in it, below "leases/", as in a bucket (see
// casLeases). Whoever has a database of their own needs to implement no leases. The other methods are those of the Store.
type Shared struct {
	Store
	leases *casLeases
}

// NewShared is for one process; each calls it for itself.
func NewShared(store Store, times LeaseTimes, log *zap.Logger) (*Shared, error) {
	times, err := times.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Shared{store, newCASLeases(sharedLeases{store}, times, log, nil)}, nil
}

// Lease implements Store.
func (s *Shared) Lease(ctx context.Context, name string) (Lease, error) {
	if err := checkCall(ctx, name); err != nil {
		return nil, err
	}
	return s.leases.Lease(ctx, name)
}

// List implements Store. Leases are no objects to those who list.
func (s *Shared) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	p := newPage(prefix, after, limit)
	for {
		names, err := s.Store.List(ctx, prefix, after, limit)
		if err != nil || len(names) == 0 {
			return p.names(), err
		}
		for _, name := range names {
			if !strings.HasPrefix(name, "leases/") {
				p.add(name)
			}
		}
		if after = names[len(names)-1]; !strings.HasPrefix(after, "leases/") {
			return p.names(), nil
		}
		after = "leases0" // follows all of them: the slash is before the zero
	}
}

// Salvage implements Salvager, if the Store does.
func (s *Shared) Salvage(ctx context.Context, name string) ([]byte, Version, error) {
	if inner, ok := s.Store.(Salvager); ok {
		return inner.Salvage(ctx, name)
	}
	return nil, "", fmt.Errorf("salvage %s: %w", name, errors.ErrUnsupported)
}

// DeleteIf implements Salvager, if the Store does.
func (s *Shared) DeleteIf(ctx context.Context, name string, v Version) error {
	if inner, ok := s.Store.(Salvager); ok {
		return inner.DeleteIf(ctx, name, v)
	}
	return fmt.Errorf("delete %s: %w", name, errors.ErrUnsupported)
}

// Close gives up leases that are held, and ends calls that wait for one.
func (s *Shared) Close() error { return s.leases.close(errSharedClosed) }

// sharedLeases are the objects of leases in a Store.
type sharedLeases struct{ store Store }

// leaseObject is where a lease lies; one whose name leaves no room for the prefix by its hash.
func leaseObject(name string) string {
	if object := "leases/" + name; len(object) <= MaxName {
		return object
	}
	return fmt.Sprintf("leases/%x", sha256.Sum256([]byte(name)))
}

func (l sharedLeases) get(ctx context.Context, name string, unless Version) ([]byte, Version, error) {
	data, v, err := l.store.Get(ctx, leaseObject(name))
	if err == nil && v == unless {
		return nil, v, errUnchanged
	}
	return data, v, err
}

func (l sharedLeases) putIf(ctx context.Context, name string, data []byte, v Version) (Version, error) {
	return l.store.PutIf(ctx, leaseObject(name), data, v)
}
