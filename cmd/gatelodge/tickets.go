package main

import (
	"context"
	"sync"

	"go.uber.org/zap"

	"gatelodge/cmd/internal/ticketkeys"
	"gatelodge/storage"
)

// tickets give the proxy its keys of session tickets, as tls.session_tickets says: "shared" are those in storage, "local" this process's own, rotated
// in the same way.
type tickets struct {
	set   func(keys [][32]byte) error
	store storage.Store
	log   *zap.Logger

	mu     sync.Mutex         // guards what follows
	life   context.Context    // of keepers; nil before start
	mode   string             // of the keeper
	keeper *ticketkeys.Keeper // nil if there are no tickets
}

// start applies the keys, for which it waits a second at most, and keeps them until close.
func (t *tickets) start(ctx context.Context, mode string) {
	t.mu.Lock()
	t.life = ctx
	t.mu.Unlock()
	t.apply(mode)
}

// apply changes the mode. Tickets that are out are worth nothing afterwards, unless the mode is the same.
func (t *tickets) apply(mode string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.life == nil || mode == t.mode {
		return
	}
	t.stopLocked()
	t.mode = mode
	store := map[string]storage.Store{"shared": t.store, "local": storage.NewMemory()}[mode]
	if store == nil {
		return
	}
	t.keeper = ticketkeys.New(ticketkeys.Config{Store: store, Set: t.set, Logger: t.log})
	t.keeper.Start(t.life)
}

func (t *tickets) stopLocked() {
	if t.keeper != nil {
		t.keeper.Close()
		t.keeper = nil
	}
}

// close ends the keeper and waits for it.
func (t *tickets) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.life = nil
	t.stopLocked()
}
