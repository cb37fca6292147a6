package main

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"gatelodge/acmeclient"
	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func TestSweeper_OneNodeSweepsOnceAWeekAndTheOthersOnlyRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storagetest.NewFaulty(storage.NewMemory())
		responder := acmeclient.NewResponder(store, zap.NewNop())
		swept := 0
		ctx, stop := context.WithCancel(t.Context())
		var nodes sync.WaitGroup
		for range 3 {
			s := &sweeper{store: store, log: zap.NewNop(), tasks: map[string]func(context.Context) error{
				"challenges": responder.Sweep,
				"tombstones": func(context.Context) error { swept++; return errors.New("not today") },
			}}
			nodes.Go(func() { s.run(ctx) })
		}
		begin := time.Now()
		time.Sleep(6 * 24 * time.Hour)
		if n := store.Count(storagetest.List, ""); n > 0 {
			t.Errorf("%d listings in the first week", n)
		}
		time.Sleep(54 * 24 * time.Hour)
		stop()
		nodes.Wait()
		if swept < 7 || swept > 8 {
			t.Errorf("swept %d times in 60 days", swept)
		}
		if n := store.Count(storagetest.List, ""); n != swept {
			t.Errorf("%d listings, %d sweeps", n, swept)
		}
		if n, most := store.Count(storagetest.Get, sweepObject), int(time.Since(begin)/sweepLook)*3+50; n > most {
			t.Errorf("%d reads of three nodes, want %d at most", n, most)
		}
	})
}

func TestSweeper_ListsNothingWhenItCannotTellWhetherItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storagetest.NewFaulty(storage.NewMemory())
		swept := 0
		s := &sweeper{store: store, log: zap.NewNop(), tasks: map[string]func(context.Context) error{"all": func(context.Context) error { swept++; return nil }}}
		if err := s.once(t.Context()); err != nil || swept > 0 {
			t.Fatalf("the first start: swept %d times, %v", swept, err)
		}
		time.Sleep(sweepEvery)
		for _, op := range []storagetest.Op{storagetest.Get, storagetest.Lease} {
			store.Set(storagetest.Fault{Op: op})
			if err := s.once(t.Context()); !errors.Is(err, storagetest.ErrInjected) || swept > 0 {
				t.Errorf("%s fails: swept %d times, %v", op, swept, err)
			}
		}
		store.Set()
		if err := s.once(t.Context()); err != nil || swept != 1 {
			t.Errorf("swept %d times, %v", swept, err)
		}
		if _, err := store.Put(t.Context(), sweepObject, []byte("torn")); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.once(t.Context()); err != nil || swept != 1 {
				t.Errorf("a damaged record: swept %d times, %v", swept, err)
			}
		}
	})
}
