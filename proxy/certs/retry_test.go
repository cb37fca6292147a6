package certs

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/proxy/certs/permission"
)

func TestRetry_AnOperatorForcesAnEarlierAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.failWith(&fakeFailure{scope: ScopeName, retryAt: time.Now().Add(24 * time.Hour)})
		h.open()
		h.refuse("bad.example.com")
		time.Sleep(time.Minute)
		h.ca.failWith(nil)
		h.refuse("bad.example.com")
		done, err := h.m.Retry(t.Context(), "bad.example.com")
		if err != nil || done != (Retried{}) {
			t.Fatalf("%+v, %v", done, err)
		}
		synctest.Wait()
		h.must("bad.example.com")
		h.wantIssued("bad.example.com", 2)
	})
}

func TestRetry_FindsAllStoredFailuresAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.failWith(&fakeFailure{scope: ScopeName, retryAt: time.Now().Add(24 * time.Hour)})
		h.open()
		var names []string
		for i := range 20 {
			names = append(names, fmt.Sprintf("www.customer%d.com", i))
			h.refuse(names[i])
		}
		h.m.Close()
		h.ca.failWith(nil)
		h.open()
		n, err := h.m.RetryAll(t.Context())
		if err != nil || n != len(names) {
			t.Errorf("%d names, %v", n, err)
		}
		time.Sleep(time.Second)
		for _, name := range names {
			if h.m.cache.cert(name) == nil {
				t.Errorf("%s was not tried again", name)
			}
		}
		if n, err := h.m.RetryAll(t.Context()); err != nil || n != 0 {
			t.Errorf("then %d names, %v", n, err)
		}
	})
}

func TestRetry_KeepsToTheBudgetOfFailuresAndToPermission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Budget = Budget{Failures: Limit{Count: 2, Per: time.Hour}}
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		h.open()
		h.refuse("bad.example.com")
		for range 5 {
			if _, err := h.m.Retry(t.Context(), "bad.example.com"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		h.wantIssued("", 2)
		done, err := h.m.Retry(t.Context(), "bad.example.com")
		if wait := time.Until(done.Next); err != nil || wait < 59*time.Minute || wait > time.Hour {
			t.Errorf("tried in %s, %v", wait, err)
		}
		time.Sleep(2 * time.Hour)
		h.gate.allow = deny
		if _, err := h.m.Retry(t.Context(), "bad.example.com"); !errors.Is(err, permission.ErrDenied) {
			t.Errorf("retried without permission: %v", err)
		}
		h.wantIssued("", 2)
	})
}

func TestRetry_RefusesNamesThatAreNotOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).listing("www.example.com")
		h.open()
		if _, err := h.m.Retry(t.Context(), "other.example.com"); !errors.Is(err, ErrNotManaged) {
			t.Errorf("%v", err)
		}
	})
}

// pausingFailure is what a CA answers that has paused the name.
type pausingFailure struct{ fakeFailure }

func (*pausingFailure) Paused() bool { return true }

func TestFailures_KeepThePauseAndOurOwnView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.failWith(&pausingFailure{fakeFailure{scope: ScopeName, retryAt: time.Now().Add(24 * time.Hour)}})
		h.view = func(_ context.Context, _, name string, _ error) string { return name + " has 192.0.2.1" }
		h.open()
		h.refuse("bad.example.com")
		h.m.Close()
		h.open()
		s, err := h.m.Status(t.Context(), "bad.example.com")
		if f := s.LastFailure; err != nil || f == nil || !f.Paused || f.View != "bad.example.com has 192.0.2.1" {
			t.Errorf("%+v, %v", s.LastFailure, err)
		}
		for range 7 * 24 * 6 { // a week, visited every ten minutes
			_, _ = h.m.GetCertificate((&pipeAt{}).hello("bad.example.com"))
			time.Sleep(10 * time.Minute)
		}
		if n := len(h.ca.asked("")); n > 11 {
			t.Errorf("a paused name was ordered %d times in a week", n)
		}
	})
}

func TestRetry_SaysWhenThereIsNothingToTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Abandon = Abandon{Idle: 30 * day}
		h.open()
		ends := h.must("a.example.com").NotAfter
		healthy := func() {
			t.Helper()
			done, err := h.m.Retry(t.Context(), "a.example.com")
			if err != nil || !done.Serves.Equal(ends) || !done.Renews.After(time.Now()) || !done.Renews.Before(ends) {
				t.Errorf("%+v, %v", done, err)
			}
			if n, err := h.m.RetryAll(t.Context()); err != nil || n != 0 {
				t.Errorf("%d names, %v", n, err)
			}
		}
		healthy()
		h.m.Close()
		h.open() // it is in no memory now
		healthy()
		time.Sleep(70 * day) // it is due, and has been idle for long
		if done, err := h.m.Retry(t.Context(), "a.example.com"); err != nil || done != (Retried{Abandoned: goneIdle}) {
			t.Errorf("%+v, %v", done, err)
		}
		time.Sleep(time.Minute)
		h.wantIssued("a.example.com", 1)
	})
}

// The operator asks one node, and seldom the one that has the name's share of the work.
func TestRetry_IsDoneByTheProcessThatIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		fleet := []*Manager{h.open(), h.open()}
		h.must("a.example.com")
		time.Sleep(day)
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		time.Sleep(64 * day) // its renewal fails
		h.ca.failWith(nil)
		tried := len(h.ca.asked("a.example.com"))
		if tried < 2 {
			t.Fatal("no renewal was tried")
		}
		it, _ := fleet[0].planner.get("a.example.com")
		asked := fleet[0]
		if asked.members.owns(int(it.shard)) {
			asked = fleet[1]
		}
		if asked.members.owns(int(it.shard)) {
			t.Fatal("both processes own the share")
		}
		if done, err := asked.Retry(t.Context(), "a.example.com"); err != nil || done != (Retried{}) {
			t.Fatalf("%+v, %v", done, err)
		}
		time.Sleep(time.Second)
		h.wantIssued("a.example.com", tried+1)
		if cert := asked.cache.cert("a.example.com"); !asked.fresh(cert, time.Now()) {
			t.Error("it was not renewed")
		}
	})
}

func TestRetry_AsksACAThatIsOutOfOrderButNotOneThatLimitsUs(t *testing.T) {
	for _, c := range []struct {
		scope string
		asked int
	}{{ScopeCA, 2}, {ScopeAccount, 1}, {ScopeAddress, 1}} {
		t.Run(c.scope, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				end := time.Now().Add(time.Hour)
				h.ca.failWith(&fakeFailure{scope: c.scope, retryAt: end})
				h.open()
				h.refuse("a.example.com")
				h.ca.failWith(nil)
				time.Sleep(time.Minute)
				done, err := h.m.Retry(t.Context(), "a.example.com")
				want := Retried{Limited: end}
				if c.asked > 1 {
					want = Retried{}
				}
				if err != nil || !done.Limited.Equal(want.Limited) || done.Next != want.Next {
					t.Errorf("%+v, %v; want %+v", done, err, want)
				}
				time.Sleep(2 * time.Second)
				if n := len(h.ca.asked("")); n != c.asked {
					t.Errorf("the CA was asked %d times, want %d", n, c.asked)
				}
				if c.asked > 1 {
					h.must("a.example.com")
				}
			})
		})
	}
}

func TestReload_AsksACAThatIsOutOfOrderButNotOneThatLimitsUs(t *testing.T) {
	for scope, want := range map[string]int{ScopeCA: 2, ScopeAccount: 1, ScopeAddress: 1} {
		t.Run(scope, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				h.ca.failWith(&fakeFailure{scope: scope, retryAt: time.Now().Add(10 * time.Minute)})
				h.open()
				h.refuse("a.example.com")
				h.ca.failWith(nil)
				time.Sleep(time.Minute)
				if err := h.m.Apply(h.set); err != nil { // it may say now what the CA had missed
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				if n := len(h.ca.asked("")); n != want {
					t.Errorf("the CA was asked %d times, want %d", n, want)
				}
			})
		})
	}
}
