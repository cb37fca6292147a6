package certs

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

// fleetOf starts processes that share a store, and returns how to end each.
func fleetOf(t *testing.T, store storage.Store, n int) (all []*members, leave []func()) {
	for range n {
		x := newMembers(store, quiet(), 0)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			x.beat(ctx, func([]int) {})
		}()
		end := func() { cancel(); <-done }
		t.Cleanup(end)
		all, leave = append(all, x), append(leave, end)
	}
	return all, leave
}

// wantShared checks that every shard has exactly one owner, and that each process has its part.
func wantShared(t *testing.T, all []*members) {
	t.Helper()
	parts := make([]int, len(all))
	for shard := range indexShards {
		owners := 0
		for i, x := range all {
			if x.owns(shard) {
				owners++
				parts[i]++
			}
		}
		if owners != 1 {
			t.Errorf("shard %d has %d owners", shard, owners)
		}
	}
	for i, n := range parts {
		if n == 0 || n > 3*indexShards/len(all) {
			t.Errorf("process %d has %d of %d shards", i, n, indexShards)
		}
	}
}

func TestMembers_ShareTheShardsAndTakeOverFromTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storagetest.NewFaulty(storage.NewMemory())
		all, leave := fleetOf(t, store, 3)
		time.Sleep(3 * time.Minute)
		wantShared(t, all)
		leave[0]()
		time.Sleep(2 * time.Minute)
		wantShared(t, all[1:])

		// One that cannot write is taken for dead, and knows it.
		deaf := storagetest.NewFaulty(store)
		more, _ := fleetOf(t, deaf, 1)
		time.Sleep(3 * time.Minute)
		wantShared(t, append(more, all[1:]...))
		deaf.Set(storagetest.Fault{})
		time.Sleep(6 * time.Minute)
		wantShared(t, all[1:])
		for shard := range indexShards {
			if more[0].owns(shard) {
				t.Fatal("a process that others take for dead owns a shard")
			}
		}
		deaf.Set()
		time.Sleep(3 * time.Minute)
		wantShared(t, append(more, all[1:]...))

		before, lists := len(store.Calls()), store.Count(storagetest.List, "")
		time.Sleep(24 * time.Hour)
		if n := len(store.Calls()) - before; n > 9000 || store.Count(storagetest.List, "") != lists {
			t.Errorf("%d requests for a day's beats of three processes", n)
		}
	})
}

func TestMembers_AProcessThatOwnedNothingForAMomentGainsItsShardsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storagetest.NewFaulty(storage.NewMemory())
		x := newMembers(store, quiet(), 10*time.Second) // dead after 35 s
		gained := 0
		once := func() {
			if err := x.once(t.Context(), false, func(shards []int) { gained = len(shards) }); err != nil {
				t.Fatal(err)
			}
		}
		once()
		time.Sleep(34 * time.Second)
		store.Set(storagetest.Fault{Op: storagetest.PutIf, Latency: 5 * time.Second})
		go func() {
			time.Sleep(3 * time.Second)
			if x.owns(0) {
				t.Error("others have taken over by now")
			}
		}()
		once()
		if gained != indexShards || !x.owns(0) {
			t.Errorf("%d shards gained", gained)
		}
	})
}

func TestMembers_ADamagedListIsWrittenAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storage.NewMemory()
		all, _ := fleetOf(t, store, 2)
		time.Sleep(3 * time.Minute)
		if _, err := store.Put(t.Context(), membersObject, []byte("{torn")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		wantShared(t, all)
	})
}

func TestManager_OthersRenewWhatTheOwnerOfAShardDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.ca.life = 24 * time.Hour
		var names []string
		for i := range 20 {
			names = append(names, fmt.Sprintf("n%d.example.com", i))
		}
		h.listing(names...)
		h.open()
		time.Sleep(time.Hour)

		// Somebody beats, so that it has half of the shards, and does nothing else.
		idle, _ := fleetOf(t, h.store, 1)
		time.Sleep(20 * time.Hour)
		owned := 0
		for _, name := range names {
			if idle[0].owns(indexShard(name)) {
				owned++
			}
			if n := len(h.ca.asked(name)); n != 2 {
				t.Errorf("%s was ordered %d times in 21 hours", name, n)
			}
		}
		if owned == 0 {
			t.Error("the idle process owns none of the names, the test says nothing")
		}
	})
}
