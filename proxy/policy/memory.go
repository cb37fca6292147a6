package policy

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
)

// memory remembers names with their passwords that were right, as keyed hashes: whoever reads them can do nothing with them. It is bounded: when a
// generation is full the one before it is forgotten, and what is used moves into the new one.
type memory struct {
	secret [32]byte

	mu       sync.RWMutex // guards now and old
	now, old map[credential]struct{}
}

type credential [sha256.Size]byte

// generation is how many credentials there are in each of two; more users than that at one time have their passwords checked again now and then.
const generation = 4096

func newMemory() *memory {
	m := &memory{now: map[credential]struct{}{}}
	_, _ = rand.Read(m.secret[:]) // never fails
	return m
}

func (m *memory) key(name, password string) (c credential) {
	mac := hmac.New(sha256.New, m.secret[:])
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(name))) // so that no two pairs are the same bytes
	_, _ = mac.Write(length[:])
	_, _ = mac.Write([]byte(name))
	_, _ = mac.Write([]byte(password))
	mac.Sum(c[:0])
	return c
}

func (m *memory) has(c credential) bool {
	m.mu.RLock()
	_, now := m.now[c]
	_, old := m.old[c]
	m.mu.RUnlock()
	if old && !now {
		m.add(c)
	}
	return now || old
}

func (m *memory) add(c credential) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.now) >= generation {
		m.old, m.now = m.now, make(map[credential]struct{})
	}
	m.now[c] = struct{}{}
}
