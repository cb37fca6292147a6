package acmeclient

import (
	"sync"
	"time"
)

// Bounds of the nonce pool. Let's Encrypt allows 20 newNonce requests a second and address, so nonces of answers are kept; its nonces live long, but other CAs
// forget them within minutes.
const (
	maxNonces   = 64
	maxNonceAge = 5 * time.Minute
)

// noncePool keeps the nonces that answers brought along (RFC 8555 §6.5). The youngest is used first, since it is the likeliest to be still good; that
// of a badNonce answer is the very next, as RFC 8555 §6.5 asks. The zero value is empty.
type noncePool struct {
	mu     sync.Mutex
	nonces []pooledNonce // oldest first
}

type pooledNonce struct {
	value string
	seen  time.Time
}

// put adds a nonce; the oldest gives way if the pool is full. What is no nonce is ignored: RFC 8555 §6.5.1 "MUST ignore invalid Replay-Nonce values".
func (p *noncePool) put(value string, now time.Time) {
	if !isBase64URL(value) || len(value) > 512 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.nonces) == maxNonces {
		p.nonces = append(p.nonces[:0], p.nonces[1:]...)
	}
	p.nonces = append(p.nonces, pooledNonce{value, now})
}

// take removes and returns the youngest nonce. It reports false when there is none.
func (p *noncePool) take(now time.Time) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.nonces) == 0 {
		return "", false
	}
	last := p.nonces[len(p.nonces)-1]
	if now.Sub(last.seen) > maxNonceAge { // then so are all others
		p.nonces = nil
		return "", false
	}
	p.nonces = p.nonces[:len(p.nonces)-1]
	return last.value, true
}

// add puts the nonces of another pool into p.
func (p *noncePool) add(other *noncePool) {
	now := time.Now()
	for n, ok := other.take(now); ok; n, ok = other.take(now) {
		p.put(n, now)
	}
}

// isBase64URL reports whether s is not empty and of the base64url alphabet without padding.
func isBase64URL(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return s != ""
}
