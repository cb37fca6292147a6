package devca

import (
	"crypto/rand"
	"encoding/base64"
	"sync"
)

// maxNonces bounds the memory that unused nonces take; the oldest go first, as if they had expired.
const maxNonces = 20_000

// nonces hands out anti-replay nonces (RFC 8555 §6.5) and takes each back once.
type nonces struct {
	mu   sync.Mutex
	live map[string]struct{}
	ring []string // in order of issue; used ones stay until overwritten
	next int
}

func newNonces() *nonces {
	return &nonces{live: make(map[string]struct{}), ring: make([]string, 0, 1024)}
}

func randomString(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}

func (n *nonces) issue() string {
	s := randomString(32)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.live[s] = struct{}{}
	if len(n.ring) < maxNonces {
		n.ring = append(n.ring, s)
		return s
	}
	delete(n.live, n.ring[n.next])
	n.ring[n.next] = s
	n.next = (n.next + 1) % maxNonces
	return s
}

// take reports whether the nonce was issued here and not used before; from now on it is.
func (n *nonces) take(s string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.live[s]
	delete(n.live, s)
	return ok
}
