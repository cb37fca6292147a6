package cmstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"gatelodge/storage"
)

// objectsPrefix begins the keys of our objects, so that they can lie beside what certmagic keeps there itself.
const objectsPrefix = "gatelodge/objects"

// From is a storage.Store over a certmagic.Storage, for one process at a time.
//
// What holds of the Store's contract: everything, within one process. What does not hold, for want of conditional writes below: two processes
// that call PutIf or DeleteIf for the same object at the same time may both succeed. Leases are certmagic's locks between processes; a lost one is not noticed. How
// durable a write is, and whether a context is obeyed while the storage works, is as the storage has it. List reads all names below the folder that its prefix
// names.
type From struct {
	below certmagic.Storage
	turns storage.Turns // of writes and of leases, by name

	mu    sync.Mutex // guards fence
	fence uint64
}

var (
	_ storage.Store    = (*From)(nil)
	_ storage.Salvager = (*From)(nil)
)

// FromCertmagic puts a certmagic.Storage below us.
func FromCertmagic(below certmagic.Storage) *From { return &From{below: below} }

// An object lies under a key whose folders end with a comma, which no name has: so "a" and "a/b" do not stand in each other's way. Its value is one line, and
// then the bytes:
//
//	gatelodge cm 1 <nonce> <SHA-256 of the bytes>
const valueIntro = "gatelodge cm 1 "

func keyOf(name string) string {
	return objectsPrefix + "/" + strings.ReplaceAll(name, "/", ",/")
}

// nameOf reports whether the key is that of an object.
func nameOf(key string) (string, bool) {
	rest, ok := strings.CutPrefix(key, objectsPrefix+"/")
	if !ok {
		return "", false
	}
	name := strings.ReplaceAll(rest, ",/", "/")
	return name, storage.CheckName(name) == nil && keyOf(name) == key
}

func check(ctx context.Context, name string) error {
	if err := storage.CheckName(name); err != nil {
		return err
	}
	return ctx.Err()
}

// Get implements storage.Store.
func (s *From) Get(ctx context.Context, name string) ([]byte, storage.Version, error) {
	value, err := s.load(ctx, name)
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", name, err)
	}
	data, version, err := decodeValue(value)
	if err != nil {
		corrupt := storage.NewCorruptError(name, value, err)
		corrupt.Version = version
		return nil, "", corrupt
	}
	return data, version, nil
}

func (s *From) load(ctx context.Context, name string) ([]byte, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	return s.below.Load(ctx, keyOf(name))
}

func encodeValue(data []byte) ([]byte, storage.Version) {
	var nonce [12]byte
	rand.Read(nonce[:])
	version := hex.EncodeToString(nonce[:])
	line := fmt.Sprintf("%s%s %x\n", valueIntro, version, sha256.Sum256(data))
	return append([]byte(line), data...), storage.Version(version)
}

// decodeValue returns a version even for what is damaged.
func decodeValue(value []byte) ([]byte, storage.Version, error) {
	damaged := storage.Version(fmt.Sprintf("damaged-%x", sha256.Sum256(value)))
	line, data, ok := bytes.Cut(value, []byte("\n"))
	rest, known := strings.CutPrefix(string(line), valueIntro)
	version, sum, two := strings.Cut(rest, " ")
	if !ok || !known || !two || len(version) != 24 {
		return nil, damaged, errors.New("its first line is not that of an object")
	}
	if sum != fmt.Sprintf("%x", sha256.Sum256(data)) {
		return nil, damaged, errors.New("its bytes are not those that were written (checksum)")
	}
	return data, storage.Version(version), nil
}

// Salvage implements storage.Salvager.
func (s *From) Salvage(ctx context.Context, name string) ([]byte, storage.Version, error) {
	value, err := s.load(ctx, name)
	if err != nil {
		return nil, "", fmt.Errorf("salvage %s: %w", name, err)
	}
	data, version, err := decodeValue(value)
	if err != nil {
		return value[:min(len(value), storage.MaxObject)], version, nil
	}
	return data, version, nil
}

// Put implements storage.Store.
func (s *From) Put(ctx context.Context, name string, data []byte) (storage.Version, error) {
	return s.write(ctx, name, data, nil)
}

// PutIf implements storage.Store.
func (s *From) PutIf(ctx context.Context, name string, data []byte, v storage.Version) (storage.Version, error) {
	return s.write(ctx, name, data, &v)
}

func (s *From) write(ctx context.Context, name string, data []byte, want *storage.Version) (storage.Version, error) {
	if len(data) > storage.MaxObject {
		return "", fmt.Errorf("write %s: %d bytes are more than an object can have (%d)", name, len(data), storage.MaxObject)
	}
	var version storage.Version
	err := s.inTurn(ctx, name, func() error {
		if want != nil {
			if err := s.mustBe(ctx, name, *want); err != nil {
				return err
			}
		}
		value, v := encodeValue(data)
		version = v
		return s.below.Store(ctx, keyOf(name), value)
	})
	if err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return version, nil
}

// inTurn runs do alone for the name, within this process.
func (s *From) inTurn(ctx context.Context, name string, do func() error) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	if err := s.turns.Take(ctx, "write "+name); err != nil {
		return err
	}
	defer s.turns.Give("write " + name)
	return do()
}

// mustBe fails unless the object is at the version; empty means absent.
func (s *From) mustBe(ctx context.Context, name string, want storage.Version) error {
	_, is, err := s.Salvage(ctx, name)
	if err != nil && !errors.Is(err, storage.ErrNotExist) {
		return err
	}
	if is != want {
		return storage.ErrConflict
	}
	return nil
}

// Delete implements storage.Store.
func (s *From) Delete(ctx context.Context, name string) error {
	err := s.inTurn(ctx, name, func() error { return s.below.Delete(ctx, keyOf(name)) })
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// DeleteIf implements storage.Salvager.
func (s *From) DeleteIf(ctx context.Context, name string, v storage.Version) error {
	err := s.inTurn(ctx, name, func() error {
		if v == "" {
			return storage.ErrConflict
		}
		if err := s.mustBe(ctx, name, v); err != nil {
			return err
		}
		return s.below.Delete(ctx, keyOf(name))
	})
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// List implements storage.Store.
func (s *From) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	dir := objectsPrefix
	if i := strings.LastIndexByte(prefix, '/'); i > 0 {
		if storage.CheckName(prefix[:i]) != nil {
			return nil, nil
		}
		dir = keyOf(prefix[:i]) + ","
	}
	keys, err := s.below.List(ctx, dir, true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	var names []string
	for _, key := range keys {
		if name, ok := nameOf(key); ok && strings.HasPrefix(name, prefix) && name > after {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if limit <= 0 {
		limit = 1000
	}
	return names[:min(len(names), limit)], nil
}

// Lease implements storage.Store.
func (s *From) Lease(ctx context.Context, name string) (storage.Lease, error) {
	if err := check(ctx, name); err != nil {
		return nil, fmt.Errorf("lease %s: %w", name, err)
	}
	if err := s.turns.Take(ctx, "lease "+name); err != nil {
		return nil, fmt.Errorf("wait for lease %s: %w", name, err)
	}
	sum := sha256.Sum256([]byte(name))
	lock := "gatelodge_" + hex.EncodeToString(sum[:16]) // a name may be too long for a file's, or have letters that locks have not
	if err := s.below.Lock(ctx, lock); err != nil {
		s.turns.Give("lease " + name)
		return nil, fmt.Errorf("lease %s: %w", name, err)
	}
	s.mu.Lock()
	s.fence = max(s.fence+1, uint64(time.Now().UnixMicro()))
	l := &lease{fence: s.fence, free: func(ctx context.Context) error {
		defer s.turns.Give("lease " + name)
		return s.below.Unlock(ctx, lock)
	}}
	s.mu.Unlock()
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	return l, nil
}

// lease implements storage.Lease.
type lease struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	fence  uint64
	free   func(ctx context.Context) error
	once   sync.Once
	err    error // of free; written once
}

func (l *lease) Context() context.Context { return l.ctx }
func (l *lease) Fence() uint64            { return l.fence }

func (l *lease) Release(ctx context.Context) error {
	l.once.Do(func() {
		l.cancel(context.Canceled)
		l.err = l.free(ctx)
	})
	return l.err
}
