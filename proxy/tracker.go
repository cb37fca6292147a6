package proxy

import (
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// tracker counts what is under way, so that somebody can wait for its end. The zero value counts nothing yet.
type tracker struct{ n atomic.Int64 }

func (t *tracker) add()         { t.n.Add(1) }
func (t *tracker) done()        { t.n.Add(-1) }
func (t *tracker) count() int64 { return t.n.Load() }

// wait returns when nothing is under way, or when giveUp is closed. It looks again every few milliseconds, as http.Server.Shutdown does: waiting
// happens once in the life of a process, counting a hundred thousand times a second.
func (t *tracker) wait(giveUp <-chan struct{}) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for t.count() > 0 {
		select {
		case <-tick.C:
		case <-giveUp:
			return
		}
	}
}

// tunnels are the upgraded connections: net/http forgets them when they are hijacked, so somebody else must be able to close them.
type tunnels struct {
	mu     sync.Mutex
	open   map[io.Closer]struct{}
	closed bool
}

// add enters c and reports whether it may go on; c must be closed if not.
func (t *tunnels) add(c io.Closer) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	if t.open == nil {
		t.open = map[io.Closer]struct{}{}
	}
	t.open[c] = struct{}{}
	return true
}

func (t *tunnels) remove(c io.Closer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
}

// close closes all, now and in future.
func (t *tunnels) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for c := range t.open {
		_ = c.Close()
	}
}
