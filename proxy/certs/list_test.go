package certs

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage/storagetest"
)

func TestListFailing_KnowsTheStoredFailuresAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		h.open()
		var names []string
		for i := range 20 {
			names = append(names, fmt.Sprintf("www.customer%02d.com", i))
			h.refuse(names[i])
		}
		h.m.Close()
		time.Sleep(72 * time.Hour) // memory would have forgotten them, storage has not
		h.open()
		h.store.Set(storagetest.Fault{Op: storagetest.List})
		if got, err := h.failing(); err == nil || len(got) != 0 {
			t.Errorf("without storage %v, %v", got, err)
		}
		h.store.Set(storagetest.Fault{Op: storagetest.Get})
		if _, err := h.failing(); err == nil {
			t.Error("storage cannot be read, and nobody says so")
		}
		h.store.Set()
		if got, err := h.failing(); err != nil || !slices.Equal(got, names) {
			t.Errorf("failing are %v, %v", got, err)
		}
		if s, err := h.m.Status(t.Context(), names[7]); err != nil || !s.OnVisit {
			t.Errorf("a name that only a visitor brings back: %+v, %v", s, err)
		}
		h.ca.failWith(nil)
		h.must(names[7])
		if s, err := h.m.Status(t.Context(), names[7]); err != nil || s.OnVisit {
			t.Errorf("a name that is served: %+v, %v", s, err)
		}
		if got, err := h.failing(); err != nil || !slices.Equal(got, slices.Delete(slices.Clone(names), 7, 8)) {
			t.Errorf("then failing are %v, %v", got, err)
		}
	})
}

func TestListFailing_PassesOverNamesThatNobodyWantsAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		h.open()
		h.refuse("gone.example.com")
		h.m.Close()
		h.set.Lookup = func(string) (Policy, bool) { return Policy{}, false }
		h.open()
		if got, err := h.failing(); err != nil || len(got) != 0 {
			t.Errorf("failing are %v, %v", got, err)
		}
	})
}

// failing returns the names that want attention.
func (h *house) failing() ([]string, error) {
	var names []string
	list, err := h.m.ListFailing(h.t.Context())
	for s := range list {
		names = append(names, s.Name)
	}
	return names, err
}
