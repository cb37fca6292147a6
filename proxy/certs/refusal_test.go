package certs

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pickyFailure is what a CA says that lacks something, or does not like the key.
type pickyFailure struct {
	fakeFailure
	lacks, key bool
}

func (f *pickyFailure) Elsewhere() bool  { return f.lacks }
func (f *pickyFailure) RefusesKey() bool { return f.key }

var (
	_ LackFailure = (*pickyFailure)(nil)
	_ KeyFailure  = (*pickyFailure)(nil)
)

func TestIssue_ACAThatLacksSomethingIsPassedOverAndNothingIsHeldAgainstTheName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		old := newFakeCA(t, "old")
		old.script(func(_ context.Context, r *Request) error {
			if strings.HasPrefix(r.Names[0], "*.") {
				return &pickyFailure{fakeFailure{scope: ScopeName}, true, false}
			}
			return nil
		})
		h.set.CAs = []CA{{Issuer: old}, {Issuer: h.ca}}
		h.listing("*.example.com", "plain.example.com")
		h.open()
		time.Sleep(time.Second)
		h.wantIssued("*.example.com", 1)
		if n := len(old.asked("plain.example.com")); n != 1 {
			t.Errorf("the CA that lacks wildcards was asked %d times for a plain name", n)
		}
		if rec := h.m.failures.remembered("*.example.com"); rec != nil || h.has(failureObject("*.example.com")) {
			t.Errorf("held against the name: %+v", rec)
		}
		time.Sleep(65 * day) // a renewal is as loyal to the second CA as to the first
		h.wantIssued("*.example.com", 2)
	})
}

func TestIssue_ANameThatEveryCALacksSomethingForHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		other := newFakeCA(t, "other")
		for _, ca := range []*fakeCA{h.ca, other} {
			ca.failWith(&pickyFailure{fakeFailure{scope: ScopeName}, true, false})
		}
		h.set.CAs = append(h.set.CAs, CA{Issuer: other})
		h.open()
		h.refuse("a.example.com")
		s, err := h.m.Status(t.Context(), "a.example.com")
		if err != nil || s.State != StateBackingOff || s.LastFailure == nil || s.LastFailure.Advice == "" {
			t.Fatalf("%+v, %v", s, err)
		}
		if n := len(h.ca.asked("")) + len(other.asked("")); n != 2 {
			t.Errorf("%d questions", n)
		}
		h.ca.failWith(nil)
		time.Sleep(2 * time.Minute)
		h.must("a.example.com")
	})
}

func TestIssue_ACAThatLacksSomethingDoesNotStandInForOneThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		old := newFakeCA(t, "old")
		old.failWith(&pickyFailure{fakeFailure{scope: ScopeName}, true, false})
		h.ca.failWith(&fakeFailure{scope: ScopeCA})
		h.set.CAs = []CA{{Issuer: old}, {Issuer: h.ca}}
		h.open()
		h.refuse("a.example.com")
		if h.has(failureObject("a.example.com")) {
			t.Error("an outage is held against the name")
		}
		h.ca.failWith(nil)
		time.Sleep(time.Minute)
		h.must("a.example.com")
	})
}

// TestIssue_ACAThatLacksWhatItsAccountNeedsIsNotHeldAgainstNames: a binding over v1, say, which is nothing that a name can do about.
func TestIssue_ACAThatLacksWhatItsAccountNeedsIsNotHeldAgainstNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.ca.failWith(&pickyFailure{fakeFailure{scope: ScopeCA}, true, false})
		h.open()
		h.refuse("a.example.com")
		time.Sleep(time.Hour)
		if h.has(failureObject("a.example.com")) {
			t.Error("held against the name")
		}
		if n := len(h.ca.asked("")); n > 600 {
			t.Errorf("asked %d times in an hour", n)
		}
		h.ca.failWith(nil)
		time.Sleep(10 * time.Minute)
		h.must("a.example.com")
	})
}

func TestIssue_ARefusedKeyIsReplacedOnceAtOnce(t *testing.T) {
	for refusals, want := range map[int]string{1: "", 9: "scripted failure"} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t)
			h.log = quiet()
			keys := map[string]bool{}
			h.ca.script(func(_ context.Context, r *Request) error {
				keys[string(r.CSR)] = true
				if len(keys) <= refusals {
					return &pickyFailure{fakeFailure{scope: ScopeName}, false, true}
				}
				return nil
			})
			h.open()
			if want == "" {
				h.must("a.example.com")
			} else if err := h.refuse("a.example.com"); !strings.Contains(err.Error(), want) {
				t.Error(err)
			}
			if len(keys) != 2 || len(h.ca.asked("")) != 2 {
				t.Errorf("%d keys in %d questions", len(keys), len(h.ca.asked("")))
			}
		})
	}
}
