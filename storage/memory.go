package storage

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
)

// Memory is a Store that lasts as long as the process: for tests, simulations and trials. Its leases exclude within the process only.
type Memory struct {
	mu      sync.Mutex // guards what follows; never held while waiting
	objects map[string]memoryObject
	writes  uint64 // number of writes so far: the next version
	fence   uint64 // the last one given

	leases Turns
}

// memoryObject is replaced, never modified.
type memoryObject struct {
	data    []byte
	version Version
}

var (
	_ Store    = (*Memory)(nil)
	_ Salvager = (*Memory)(nil)
)

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{objects: make(map[string]memoryObject)} }

// Get implements Store.
func (m *Memory) Get(ctx context.Context, name string) ([]byte, Version, error) {
	if err := checkCall(ctx, name); err != nil {
		return nil, "", fmt.Errorf("read %s: %w", name, err)
	}
	m.mu.Lock()
	o, ok := m.objects[name]
	m.mu.Unlock()
	if !ok {
		return nil, "", fmt.Errorf("read %s: %w", name, ErrNotExist)
	}
	return bytes.Clone(o.data), o.version, nil
}

// Salvage implements Salvager. Memory does not decay: it is the same as Get.
func (m *Memory) Salvage(ctx context.Context, name string) ([]byte, Version, error) {
	return m.Get(ctx, name)
}

// Put implements Store.
func (m *Memory) Put(ctx context.Context, name string, data []byte) (Version, error) {
	return m.write(ctx, name, data, nil)
}

// PutIf implements Store.
func (m *Memory) PutIf(ctx context.Context, name string, data []byte, v Version) (Version, error) {
	return m.write(ctx, name, data, &v)
}

func (m *Memory) write(ctx context.Context, name string, data []byte, want *Version) (Version, error) {
	if err := checkWrite(ctx, name, data); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if want != nil && m.objects[name].version != *want {
		return "", fmt.Errorf("write %s: %w", name, ErrConflict)
	}
	m.writes++
	v := Version("m" + strconv.FormatUint(m.writes, 10))
	m.objects[name] = memoryObject{data: append([]byte{}, data...), version: v}
	return v, nil
}

// Delete implements Store.
func (m *Memory) Delete(ctx context.Context, name string) error {
	if err := checkCall(ctx, name); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, name)
	return nil
}

// DeleteIf implements Salvager.
func (m *Memory) DeleteIf(ctx context.Context, name string, v Version) error {
	if err := checkCall(ctx, name); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if o, ok := m.objects[name]; !ok || o.version != v {
		return fmt.Errorf("delete %s: %w", name, ErrConflict)
	}
	delete(m.objects, name)
	return nil
}

// List implements Store.
func (m *Memory) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, ended(ctx))
	}
	p := newPage(prefix, after, limit)
	m.mu.Lock()
	for name := range m.objects {
		p.add(name)
	}
	m.mu.Unlock()
	return p.names(), nil
}

// Lease implements Store.
func (m *Memory) Lease(ctx context.Context, name string) (Lease, error) {
	if err := checkCall(ctx, name); err != nil {
		return nil, fmt.Errorf("lease %s: %w", name, err)
	}
	if err := m.leases.Take(ctx, name); err != nil {
		return nil, fmt.Errorf("wait for lease %s: %w", name, err)
	}
	m.mu.Lock()
	m.fence = nextFence(m.fence)
	fence := m.fence
	m.mu.Unlock()
	return newHeldLease(ctx, fence, func() error { m.leases.Give(name); return nil }), nil
}
