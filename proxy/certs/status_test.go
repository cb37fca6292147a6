package certs

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage/storagetest"
)

func TestStatus_TellsHowANameStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Listed = []string{"listed.example.com"}
		site := h.set.Lookup
		h.set.Lookup = func(name string) (Policy, bool) {
			if strings.HasSuffix(name, ".org") {
				return Policy{}, false
			}
			return site(name)
		}
		h.open()
		cert := h.must("listed.example.com")
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		h.refuse("bad.example.com")
		h.ca.failWith(errors.New("down"))
		h.refuse("waits.example.com")
		for name, want := range map[string]string{
			"listed.example.com": StateServing, "bad.example.com": StateBackingOff, "waits.example.com": StateWaiting,
			"never.example.com": StateAbsent, "other.org": StateNotOurs,
		} {
			s, err := h.m.Status(t.Context(), name)
			if err != nil || s.State != want {
				t.Errorf("%s: %q, want %q, %v", name, s.State, want, err)
			}
		}
		s, err := h.m.Status(t.Context(), "listed.example.com")
		if err != nil || s.CA != "fake" || s.Site != "*" || !s.NotAfter.Equal(cert.NotAfter) || s.RenewAt.IsZero() || s.Notes["order"] != "1" || !slices.Equal(s.MayIssue, []string{"fake"}) {
			t.Errorf("%+v, %v", s, err)
		}
		if got := h.m.Names(); !slices.Equal(got, []string{"bad.example.com", "listed.example.com", "waits.example.com"}) {
			t.Errorf("names %v", got)
		}
		for s := range h.m.List() {
			h.storageAgrees(s)
		}
		if ends := slices.Collect(h.m.Expiries()); len(ends) != 1 || !ends[0].Equal(cert.NotAfter) {
			t.Errorf("expiries %v", ends)
		}
		var decoded map[string]any
		if err := json.Unmarshal(mustJSON(s), &decoded); err != nil || decoded["next_attempt"] != nil {
			t.Errorf("%v, %v", decoded, err)
		}
		time.Sleep(time.Second)
		h.m.Close()
		h.store.Set()
		h.open()
		time.Sleep(time.Second)
		h.m.cache.drop("listed.example.com")
		if s := slices.Collect(h.m.List())[0]; s.State != StateServing || !s.NotAfter.Equal(cert.NotAfter) || s.CA != "fake" {
			t.Errorf("of what is not in memory: %+v", s)
		}
	})
}

// storageAgrees checks that storage tells the same of a name as memory did, but for notes, which only storage has.
func (h *house) storageAgrees(s Status) {
	h.t.Helper()
	full, err := h.m.Status(h.t.Context(), s.Name)
	for other := &full; other != nil; other = other.Second {
		other.Notes = nil
	}
	if err != nil || string(mustJSON(full)) != string(mustJSON(s)) {
		h.t.Errorf("memory says %s, storage %s, %v", mustJSON(s), mustJSON(full), err)
	}
}

// Who asks while storage is away is told what memory knows, and what it does not.
func TestStatus_TellsWhatMemoryKnowsWhileStorageCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.open()
		ends := h.must("hot.example.com").NotAfter
		cold := h.must("cold.example.com").NotAfter
		time.Sleep(time.Second) // the orders tidy up
		h.m.cache.drop("cold.example.com")
		h.store.Set(storagetest.Fault{})
		for name, want := range map[string]struct {
			state string
			ends  time.Time
		}{"hot.example.com": {StateServing, ends}, "cold.example.com": {StateServing, cold}, "new.example.com": {state: StateUnknown}} {
			s, err := h.m.Status(t.Context(), name)
			if err == nil || s.Unread != err.Error() || s.State != want.state || !s.NotAfter.Equal(want.ends) {
				t.Errorf("%s: %+v, %v", name, s, err)
			}
		}
		h.store.Set()
		if s, err := h.m.Status(t.Context(), "new.example.com"); err != nil || s.Unread != "" || s.State != StateAbsent {
			t.Errorf("%+v, %v", s, err)
		}
	})
}
