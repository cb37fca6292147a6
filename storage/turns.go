package storage

import (
	"context"
	"sync"
)

// Turns lets one caller at a time have a name, in the order of asking, within this process. Names that nobody has or wants take no memory.
// The zero value is ready.
type Turns struct {
	mu sync.Mutex // guards m and the counts in it; never held while waiting
	m  map[string]*turn
}

type turn struct {
	taken chan struct{} // holds one element while somebody has the name; senders queue in order
	users int           // the holder and those who wait
}

// Take waits until the caller has the name; an error says that ctx has ended before.
func (t *Turns) Take(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return ended(ctx)
	}
	t.mu.Lock()
	u := t.m[name]
	if u == nil {
		u = &turn{taken: make(chan struct{}, 1)}
		if t.m == nil {
			t.m = make(map[string]*turn)
		}
		t.m[name] = u
	}
	u.users++
	t.mu.Unlock()

	select {
	case u.taken <- struct{}{}:
		return nil
	case <-ctx.Done():
		t.leave(name, u)
		return ended(ctx)
	}
}

// Give lets the next one have the name. Only the holder calls it.
func (t *Turns) Give(name string) {
	t.mu.Lock()
	u := t.m[name]
	t.mu.Unlock()
	<-u.taken
	t.leave(name, u)
}

func (t *Turns) leave(name string, u *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u.users--; u.users == 0 {
		delete(t.m, name)
	}
}
