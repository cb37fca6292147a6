package certs

import (
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

// leftOver counts what storage has of the name.
func (h *house) leftOver(name string) (n int) {
	for _, object := range []string{certObject(name), pendingObject(name), failureObject(name)} {
		if h.has(object) {
			n++
		}
	}
	if _, ok := h.entries()[name]; ok {
		n++
	}
	return n
}

func TestSweep_RemovesWhatEndedTwoWeeksAgoAndListsNothing(t *testing.T) {
	for _, c := range []struct {
		name  string
		leave func(h *house) // how the name leaves
	}{
		{"the CA refuses to renew it", func(h *house) { h.ca.failWith(&fakeFailure{scope: ScopeName}) }},
		{"nobody has visited it for long", func(h *house) {
			h.set.Abandon = Abandon{Idle: day}
			if err := h.m.Apply(h.set); err != nil {
				h.t.Fatal(err)
			}
		}},
		{"no site claims it any more", func(h *house) {
			h.set.Lookup = func(string) (Policy, bool) { return Policy{}, false }
			if err := h.m.Apply(h.set); err != nil {
				h.t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				h.log = quiet()
				h.ca.life = 6 * day
				h.open()
				end := h.must("a.example.com").NotAfter
				time.Sleep(time.Second)
				c.leave(h)
				time.Sleep(time.Until(end.Add(forgetAfter - day)))
				if n := h.leftOver("a.example.com"); n < 2 {
					t.Errorf("a day too early, only %d objects are left", n)
				}
				h.store.Set()
				time.Sleep(4 * day)
				if n := h.leftOver("a.example.com"); n > 0 {
					t.Errorf("%d objects are left", n)
				}
				if n := h.store.Count(storagetest.List, ""); n > 0 {
					t.Errorf("%d listings", n)
				}
			})
		})
	}
}

func TestSweep_NoOtherProcessOrdersWhatOneHasRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.ca.life = 6 * day
		h.open()
		h.open()
		end := h.must("a.example.com").NotAfter
		time.Sleep(8 * time.Hour) // both know of it
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		time.Sleep(time.Until(end.Add(forgetAfter + time.Second)))
		h.ca.failWith(nil)
		asked := len(h.ca.asked(""))
		time.Sleep(30 * day)
		if n := h.leftOver("a.example.com"); n > 0 {
			t.Errorf("%d objects are left", n)
		}
		if n := len(h.ca.asked("")) - asked; n > 0 {
			t.Errorf("%d orders for a name that has left", n)
		}
	})
}

func TestSweep_RemovesNothingOnErrorsNorWhatSomebodyRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.ca.life = 6 * day
		h.open()
		h.must("a.example.com")
		time.Sleep(time.Second)
		h.m.Close()
		old, _, err := h.store.Get(t.Context(), certObject("a.example.com"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * day)
		h.store.Set(storagetest.Fault{Op: storagetest.DeleteIf, Prefix: "certs/", Err: storage.ErrConflict})
		if gone, err := h.m.removeEnded(t.Context(), "a.example.com"); gone || err != nil {
			t.Errorf("replaced in this moment: gone %v, %v", gone, err)
		}
		for _, op := range []storagetest.Op{storagetest.Lease, storagetest.Get, storagetest.DeleteIf} {
			h.store.Set(storagetest.Fault{Op: op})
			if gone, err := h.m.removeEnded(t.Context(), "a.example.com"); gone || err == nil || !h.has(certObject("a.example.com")) {
				t.Errorf("%s fails: gone %v, %v", op, gone, err)
			}
		}
		h.store.Set()
		h.open() // orders anew, since a visitor comes
		h.must("a.example.com")
		if gone, err := h.m.removeEnded(t.Context(), "a.example.com"); gone || err != nil || !h.has(certObject("a.example.com")) {
			t.Errorf("one that serves: gone %v, %v", gone, err)
		}
		h.m.Close()
		if _, err := h.store.Put(t.Context(), certObject("a.example.com"), old); err != nil {
			t.Fatal(err)
		}
		if gone, err := h.m.removeEnded(t.Context(), "a.example.com"); !gone || err != nil || h.has(certObject("a.example.com")) {
			t.Errorf("one that ended: gone %v, %v", gone, err)
		}
		if gone, err := h.m.removeEnded(t.Context(), "a.example.com"); !gone || err != nil {
			t.Errorf("one that is not there: gone %v, %v", gone, err)
		}
	})
}
