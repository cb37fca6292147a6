package certs

import (
	"sync"
	"time"
)

// memo remembers a value by key for a time, within a bound: what does not fit pushes out something else, and has to be found out again. The
// zero value with a limit is ready.
type memo[K comparable, V any] struct {
	limit int // entries

	mu sync.Mutex // guards m
	m  map[K]memoItem[V]
}

type memoItem[V any] struct {
	value V
	until time.Time
}

func newMemo[K comparable, V any](limit int) *memo[K, V] {
	return &memo[K, V]{limit: limit, m: map[K]memoItem[V]{}}
}

func (m *memo[K, V]) get(key K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	item, ok := m.m[key]
	if ok && time.Now().Before(item.until) {
		return item.value, true
	}
	if ok {
		delete(m.m, key)
	}
	var none V
	return none, false
}

func (m *memo[K, V]) put(key K, v V, until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.m[key]; !ok && len(m.m) >= m.limit {
		m.makeRoomLocked()
	}
	m.m[key] = memoItem[V]{v, until}
}

// makeRoomLocked drops what is out of date among a few entries, and one of them in any case. Go begins to walk a map at a random place.
func (m *memo[K, V]) makeRoomLocked() {
	now, seen, dropped := time.Now(), 0, 0
	for key, item := range m.m {
		if seen++; !now.Before(item.until) || seen == 8 && dropped == 0 {
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

func (m *memo[K, V]) forget(key K) {
	m.mu.Lock()
	delete(m.m, key)
	m.mu.Unlock()
}

// each calls f for a copy of every entry that is in date.
func (m *memo[K, V]) each(f func(K, V)) {
	m.mu.Lock()
	now, all := time.Now(), make(map[K]V, len(m.m))
	for key, item := range m.m {
		if now.Before(item.until) {
			all[key] = item.value
		}
	}
	m.mu.Unlock()
	for key, v := range all {
		f(key, v)
	}
}
