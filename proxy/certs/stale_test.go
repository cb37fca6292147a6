package certs

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

// copying makes the house's managers read through a local copy.
func (h *house) copying() storage.Store {
	h.t.Helper()
	local := storage.NewLocalCopy(h.store, storage.NewMemory(), storage.LocalCopyConfig{}, quiet())
	h.t.Cleanup(func() { _ = local.Close() })
	return local
}

// certsAway is a bucket that does not say what certificates it has, though it does everything else: what comes from the local copy is all there is to see.
func certsAway() storagetest.Fault { return storagetest.Fault{Op: storagetest.Get, Prefix: "certs/"} }

func TestManager_ALocalCopyServesThroughAnOutageAndOrdersNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.ca.life = day
		h.set.Listed = []string{"listed.example.com"}
		store := h.copying()
		h.openOn(store)
		names := []string{"listed.example.com", "a.example.com"}
		for _, name := range names {
			h.must(name)
		}
		time.Sleep(time.Minute)
		h.m.Close()
		h.store.Set(certsAway())
		h.openOn(store) // memory is empty: what serves comes from the copy
		for range 5 {
			for _, name := range names {
				h.must(name)
			}
			time.Sleep(4 * time.Hour)
		}
		time.Sleep(5 * time.Hour)
		for _, name := range names {
			if err := h.refuse(name); !errors.Is(err, storage.ErrStale) {
				t.Errorf("%s after its end: %v", name, err)
			}
		}
		h.wantIssued("", 2)
		h.store.Set()
		time.Sleep(5 * time.Minute)
		for _, name := range names {
			h.must(name)
		}
		h.wantIssued("", 4)
	})
}

func TestManager_TakesWhatAnotherNodeRenewedWhileItHadACopyOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.ca.life = 6 * day
		below := h.store
		h.store = storagetest.NewFaulty(below) // the way of one node to the bucket
		near := h.openOn(h.copying())
		old := h.must("a.example.com")
		time.Sleep(time.Minute)
		h.store.Set(certsAway())
		h.openOn(below)
		h.must("a.example.com")
		time.Sleep(4 * day)
		h.wantIssued("", 2)
		if cert, err := hello(near, "a.example.com", h.ca.pool()); err != nil || !cert.Equal(old) {
			t.Errorf("the node without the bucket serves another certificate than it has: %v", err)
		}
		h.store.Set()
		for hours := 0; ; hours++ { // at once if it has the name's shard, else when it hears of it or the owner's time is over
			cert, err := hello(near, "a.example.com", h.ca.pool())
			if err == nil && !cert.Equal(old) {
				break
			}
			if err != nil || hours == 24 {
				t.Fatalf("the node did not take the new certificate: %v", err)
			}
			time.Sleep(time.Hour)
		}
		h.wantIssued("", 2)
	})
}

func TestManager_RevokesAndRemovesNothingOnTheEvidenceOfACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.openOn(h.copying())
		h.must("a.example.com")
		time.Sleep(time.Minute)
		h.store.Set(certsAway())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := h.m.Compromised(ctx, "a.example.com"); !errors.Is(err, storage.ErrStale) {
			t.Errorf("revoked by a copy: %v", err)
		}
		if n := h.store.Count(storagetest.Delete, "certs/") + h.store.Count(storagetest.DeleteIf, "certs/") + h.store.Count(storagetest.Put, "quarantine/"); n > 0 {
			t.Errorf("%d certificates removed", n)
		}
		h.wantIssued("", 1)
	})
}
