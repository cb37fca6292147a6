// Package memo remembers things for a while, and not too many of them.
package memo

import (
	"sync"
	"time"
)

// Memo remembers a value by key for a time, within a bound: what does not fit pushes out something else, and has to be found out again. Its methods may be called from
// any goroutine.
type Memo[K comparable, V any] struct {
	limit int // entries

	mu sync.Mutex // guards m
	m  map[K]item[V]
}

type item[V any] struct {
	value V
	until time.Time
}

// New makes a Memo with room for so many entries.
func New[K comparable, V any](limit int) *Memo[K, V] {
	return &Memo[K, V]{limit: limit, m: map[K]item[V]{}}
}

// Get returns the value, and false if there is none or its time is over.
func (m *Memo[K, V]) Get(key K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	is, ok := m.m[key]
	if ok && time.Now().Before(is.until) {
		return is.value, true
	}
	if ok {
		delete(m.m, key)
	}
	var none V
	return none, false
}

// Put remembers the value until then.
func (m *Memo[K, V]) Put(key K, v V, until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.m[key]; !ok && len(m.m) >= m.limit {
		m.makeRoomLocked()
	}
	m.m[key] = item[V]{v, until}
}

// makeRoomLocked drops what is out of date among a few entries, and one of them in any case. Go begins to walk a map at a random place.
func (m *Memo[K, V]) makeRoomLocked() {
	now, seen, dropped := time.Now(), 0, 0
	for key, is := range m.m {
		if seen++; !now.Before(is.until) || seen == 8 && dropped == 0 {
			delete(m.m, key)
			dropped++
		}
		if seen == 8 {
			return
		}
	}
	if dropped > 0 {
		return
	}
	for key := range m.m { // fewer than eight entries, none out of date
		delete(m.m, key)
		return
	}
}

// Forget drops the value, if there is one.
func (m *Memo[K, V]) Forget(key K) {
	m.mu.Lock()
	delete(m.m, key)
	m.mu.Unlock()
}

// Count returns for how many entries that are in date f is true. Nobody else gets at the Memo meanwhile, so f must be quick.
func (m *Memo[K, V]) Count(f func(V) bool) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, n := time.Now(), 0
	for _, is := range m.m {
		if now.Before(is.until) && f(is.value) {
			n++
		}
	}
	return n
}

// Each calls f for a copy of every entry that is in date.
func (m *Memo[K, V]) Each(f func(K, V)) {
	m.mu.Lock()
	now, all := time.Now(), make(map[K]V, len(m.m))
	for key, is := range m.m {
		if now.Before(is.until) {
			all[key] = is.value
		}
	}
	m.mu.Unlock()
	for key, v := range all {
		f(key, v)
	}
}
