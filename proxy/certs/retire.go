package certs

import (
	"context"
	"time"
)

// Retire begins no order any more, and returns when those that run have ended, or when ctx ends. Handshakes are served from memory and storage as before. It is
// for a process that another one replaces; Close comes afterwards.
func (m *Manager) Retire(ctx context.Context) {
	for m.queue.retire() > 0 && sleep(ctx, 20*time.Millisecond) {
	}
}

// retire gives no order a place any more, and returns how many have one.
func (q *queue) retire() (running int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.retired = true
	return q.running
}
