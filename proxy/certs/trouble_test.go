package certs

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage/storagetest"
)

func TestManager_BacksOffFromANameThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		h.open()
		for range 7 * 24 * 60 { // a week, visited every minute
			began := time.Now()
			if _, err := h.m.GetCertificate((&pipeAt{}).hello("bad.example.com")); err == nil || time.Since(began) > time.Second {
				t.Fatalf("refused after %s with %v", time.Since(began), err)
			}
			time.Sleep(time.Minute)
		}
		tries := h.ca.asked("bad.example.com")
		if len(tries) > 11 {
			t.Errorf("%d orders in a week for one failing name, 11 are allowed", len(tries))
		}
		for i, step := range []time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, 24 * time.Hour, 24 * time.Hour} {
			if gap := tries[i+1].at.Sub(tries[i].at); gap < step || gap > step+step/10+time.Minute {
				t.Errorf("pause %d was %s, want %s and up to a tenth and a visitor's minute more", i+1, gap, step)
			}
		}
		if n := h.gate.count(); n > 20 {
			t.Errorf("permission was asked %d times for a name in back-off", n)
		}
	})
}

func TestManager_ASuccessThatWasUnderWayDoesNotEndARetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		slow := make(chan struct{})
		end := time.Now().Add(time.Hour)
		h.ca.script(func(_ context.Context, r *Request) error {
			switch r.Names[0] {
			case "slow.example.com":
				<-slow
				return nil
			case "limited.example.org":
				if time.Now().Before(end) {
					return &fakeFailure{scope: ScopeAccount, retryAt: end}
				}
			}
			return nil
		})
		h.open()
		h.refuse("slow.example.com") // goes on
		h.refuse("limited.example.org")
		close(slow)
		time.Sleep(time.Minute)
		h.must("slow.example.com")
		h.refuse("other.example.net")
		time.Sleep(time.Hour)
		h.must("limited.example.org")
		h.must("other.example.net")
		early := 0
		for _, c := range h.ca.asked("") {
			if c.name != "slow.example.com" && c.at.Before(end) {
				early++
			}
		}
		if early != 1 {
			t.Errorf("%d orders before the account's Retry-After was over, want the one that heard of it", early)
		}
	})
}

func TestManager_RemembersFailuresAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		h.open()
		h.refuse("bad.example.com")
		time.Sleep(2 * time.Minute)
		h.refuse("bad.example.com")
		h.m.Close()

		h.open()
		time.Sleep(time.Minute)
		var backoff *BackoffError
		if err := h.refuse("bad.example.com"); !errors.As(err, &backoff) {
			t.Errorf("refused with %v", err)
		}
		h.wantIssued("", 2)
		s, err := h.m.Status(t.Context(), "bad.example.com")
		if err != nil || s.State != StateBackingOff || s.Attempts != 2 || s.LastFailure.Detail != "detail of name" || s.LastFailure.Advice == "" {
			t.Errorf("status %+v, %v", s, err)
		}
		h.ca.failWith(nil)
		time.Sleep(11 * time.Minute)
		h.must("bad.example.com")
		if h.has(failureObject("bad.example.com")) {
			t.Error("the failure outlives the success")
		}
	})
}

func TestManager_ObeysRetryAfterToTheSecond(t *testing.T) {
	for _, scope := range []string{ScopeName, ScopeDomain, ScopeAccount, ScopeAddress, ScopeCA} {
		t.Run(scope, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				end := time.Now().Add(3*time.Hour + 17*time.Second)
				h.ca.failWith(&fakeFailure{scope: scope, retryAt: end})
				h.open()
				h.refuse("a.example.com")
				h.ca.failWith(nil)
				others := map[string]bool{"b.example.com": scope != ScopeName, "c.example.net": scope != ScopeName && scope != ScopeDomain}
				for time.Now().Before(end) {
					h.refuse("a.example.com")
					for name, wait := range others {
						if wait {
							h.refuse(name)
						}
					}
					time.Sleep(min(10*time.Minute, time.Until(end)))
				}
				time.Sleep(3 * time.Second)
				h.must("a.example.com")
				for name := range others {
					h.must(name)
				}
				if first := h.ca.asked("")[1].at; first.Before(end) {
					t.Errorf("came back %s early", end.Sub(first))
				}
			})
		})
	}
}

func TestManager_CARetryAfterIsObeyedWithoutVisitors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		end := time.Now().Add(time.Hour)
		h.ca.failWith(&fakeFailure{scope: ScopeAccount, retryAt: end})
		h.open()
		h.refuse("a.example.com")
		h.ca.failWith(nil)
		time.Sleep(time.Hour + 5*time.Second)
		tries := h.ca.asked("")
		if len(tries) != 2 || tries[1].at.Before(end) || tries[1].at.After(end.Add(resumeInterval)) {
			t.Errorf("tried at %v, the pause ended at %s", tries, end)
		}
		h.must("a.example.com")
		h.wantIssued("", 2)
	})
}

func TestManager_CAOutageFailsFastAndRecoversWithin10Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.open()
		h.must("old.example.com")
		h.ca.failWith(errors.New("500 from newOrder"))
		h.refuse("first.example.com")
		before := len(h.ca.asked(""))
		const outage = 2 * time.Minute
		for range int(outage / time.Second) { // two names, visited every second
			for _, name := range []string{"first.example.com", "second.example.com"} {
				began := time.Now()
				err := h.refuse(name)
				var down *UnavailableError
				if !errors.As(err, &down) && !strings.Contains(err.Error(), "500") || time.Since(began) > 2*time.Second {
					t.Fatalf("%s refused after %s with %v", name, time.Since(began), err)
				}
			}
			h.must("old.example.com") // other names are untouched
			time.Sleep(time.Second)
		}
		if trials := len(h.ca.asked("")) - before; trials < 13 || trials > 16 {
			t.Errorf("%d trials in %s, want one every %s", trials, outage, trialEvery)
		}
		if h.has(failureObject("first.example.com")) {
			t.Error("the CA's failure is held against a name")
		}
		synctest.Wait()
		if s, err := h.m.Status(t.Context(), "first.example.com"); err != nil || s.State != StateWaiting || s.NextAttempt.IsZero() || s.LastFailure == nil {
			t.Errorf("status %+v, %v", s, err)
		}
		back := time.Now()
		h.ca.failWith(nil)
		for _, err := h.hello("first.example.com"); err != nil; _, err = h.hello("first.example.com") {
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(back); took > 10*time.Second {
			t.Errorf("a certificate %s after the CA's return", took)
		}
		time.Sleep(time.Second)
		h.must("second.example.com")
	})
}

func TestManager_NamesWaitForTheCAWithoutVisitors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.failWith(errors.New("connection refused"))
		h.open()
		for i := range 300 {
			h.refuse(fmt.Sprintf("n%d.example.com", i))
		}
		time.Sleep(5 * time.Minute)
		h.ca.failWith(nil)
		before := len(h.ca.asked(""))
		time.Sleep(10 * time.Second)
		if got := len(h.ca.asked("")) - before; got != 300 {
			t.Errorf("%d of 300 names came up within 10 s of the CA's return", got)
		}
		for i := range 300 {
			h.must(fmt.Sprintf("n%d.example.com", i))
		}
	})
}

func TestManager_TrialsSlowDownAfterTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.failWith(errors.New("down"))
		h.open()
		h.refuse("a.example.com")
		time.Sleep(30 * time.Minute)
		tries := h.ca.asked("")
		last := tries[len(tries)-1].at.Sub(tries[len(tries)-2].at)
		if len(tries) > 75+25 || last < trialSlowest || last > trialSlowest+2*resumeInterval {
			t.Errorf("%d trials in 30 minutes, the last two %s apart", len(tries), last)
		}
	})
}

func TestManager_TriesTheMostRecentlyWantedName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.failWith(errors.New("down"))
		h.open()
		for i := range 5 {
			h.refuse(fmt.Sprintf("n%d.example.com", i))
			time.Sleep(time.Second)
		}
		h.refuse("n2.example.com")
		time.Sleep(4 * time.Second)
		if tries := h.ca.asked(""); len(tries) != 2 || tries[1].name != "n2.example.com" {
			t.Errorf("tried %v", tries)
		}
	})
}

func TestManager_ReloadThatMendsACATriesItAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).listing("a.example.com")
		h.log = quiet()
		cas := h.set.CAs
		h.set.CAs = nil
		h.open()
		time.Sleep(time.Hour)
		if h.has(failureObject("a.example.com")) {
			t.Error("a configuration without a CA is held against the name")
		}
		h.ca.failWith(errors.New("wrong directory"))
		h.set.CAs = cas
		if err := h.m.Apply(h.set); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		h.ca.failWith(nil)
		if err := h.m.Apply(h.set); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		h.must("a.example.com")
	})
}

func TestManager_StorageThatAnIssuerMissesIsHeldAgainstNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		e := h.listen()
		h.open()
		h.ca.failWith(&fakeFailure{scope: ScopeStorage})
		for i := range 5 {
			h.refuse(fmt.Sprintf("www.customer%d.com", i))
		}
		if got := e.of(EventCADown); len(got) != 0 {
			t.Errorf("%+v", got)
		}
		h.ca.failWith(nil)
		h.must("other.com") // no circuit is open, nobody waits for a trial
		h.must("www.customer1.com")
	})
}

func TestManager_OneBadNameCannotKeepACircuitOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.script(func(_ context.Context, r *Request) error { // a failure that we do not understand, always for one name
			if r.Names[0] == "poison.example.com" {
				return errors.New("malformed: something about this name")
			}
			return nil
		})
		h.open()
		served := 0
		for i := range 60 {
			h.refuse("poison.example.com")
			for j := range 12 {
				if _, err := h.hello(fmt.Sprintf("n%d.example.com", i)); err == nil {
					served++
					break
				} else if j == 11 {
					t.Errorf("name %d waits since 12 s: %v", i, err)
				}
				time.Sleep(time.Second)
			}
		}
		if n := len(h.ca.asked("poison.example.com")); n > 10 {
			t.Errorf("the bad name was tried %d times", n)
		}
		if !h.has(failureObject("poison.example.com")) {
			t.Error("the bad name is not in back-off")
		}
	})
}

func TestManager_HangingCAKeepsNeitherHandshakesNorOtherNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		second := newFakeCA(t, "second")
		h.set.CAs = []CA{{Issuer: h.ca, Names: []string{"*.hang.example"}}, {Issuer: second}}
		h.ca.script(func(ctx context.Context, _ *Request) error {
			select {
			case <-ctx.Done():
			case <-time.After(60 * time.Second):
			}
			return errors.New("the CA does not answer")
		})
		h.open()
		began := time.Now()
		h.refuse("a.hang.example")
		if took := time.Since(began); took > 21*time.Second {
			t.Errorf("the handshake hung for %s", took)
		}
		if _, err := hello(h.m, "b.example.com", second.pool()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		began = time.Now()
		h.refuse("other.hang.example")
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("with the circuit open the handshake hung for %s", took)
		}
	})
}

func TestManager_HangingTrialsInAllPlacesDoNotLetVisitorsHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.set.InFlight = 1
		h.ca.failWith(errors.New("down"))
		h.open()
		h.refuse("a.example.com") // opens the circuit
		h.ca.script(func(ctx context.Context, _ *Request) error { <-ctx.Done(); return ctx.Err() })
		time.Sleep(trialEvery + 2*resumeInterval) // its trial has the only place, and hangs
		h.wantIssued("a.example.com", 2)
		for _, name := range []string{"b.example.com", "c.example.com", "b.example.com"} {
			began := time.Now()
			if err := h.refuse(name); time.Since(began) > 2*time.Second {
				t.Errorf("the visitor of %s hung for %s: %v", name, time.Since(began), err)
			}
		}
	})
}

func TestManager_ACAThatTakesAllTheTimeOfAnOrderIsNotHeldAgainstTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		second := newFakeCA(t, "second")
		h.set.CAs = append(h.set.CAs, CA{Issuer: second})
		h.set.Failover = Failover{After: 1, BackAfter: day}
		h.ca.script(func(ctx context.Context, _ *Request) error { <-ctx.Done(); return ctx.Err() })
		second.script(func(ctx context.Context, _ *Request) error { return ctx.Err() })
		h.open()
		h.refuse("a.example.com")
		time.Sleep(orderTimeout + trialEvery + 2*resumeInterval)
		if calls := second.asked(""); len(calls) != 1 || calls[0].err != nil {
			t.Errorf("the second CA was asked %+v", calls)
		}
		if _, err := hello(h.m, "a.example.com", second.pool()); err != nil {
			t.Error(err)
		}
	})
}

func TestQueue_NobodyWaitsForAPlaceWhenTheirOnlyCABeginsToFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(quiet())
		q.cas = func(string) []string { return []string{"one"} }
		q.run = func(ctx context.Context, _ *order) (*certificate, error) { <-ctx.Done(); return nil, ctx.Err() }
		ctx, stop := context.WithCancel(t.Context())
		defer q.close()
		defer stop()
		q.start(ctx)
		q.apply(1, Failover{})
		var rounds []*round
		for _, name := range []string{"hangs.example", "a.example", "b.example"} {
			r, err := q.want(wish{name: name, kind: kindNew, visitor: true})
			if err != nil {
				t.Fatal(err)
			}
			rounds = append(rounds, r)
		}
		q.failed(q.orders["hangs.example"], "one", errors.New("down"))
		if _, err := q.want(wish{name: "c.example", kind: kindNew, visitor: true}); err == nil {
			t.Error("one that comes now is to wait")
		}
		for _, r := range rounds[1:] {
			if _, err := q.wait(ctx, r); err == nil {
				t.Error("one that waited got no error")
			}
		}
	})
}

func TestManager_FailsOverToTheNextCAAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		second := newFakeCA(t, "second")
		h.set.CAs = append(h.set.CAs, CA{Issuer: second})
		h.ca.failWith(errors.New("503"))
		h.open()
		for i := range 20 {
			if _, err := hello(h.m, fmt.Sprintf("n%d.example.com", i), second.pool()); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(h.ca.asked("")); n != 1 {
			t.Errorf("the failing CA was asked %d times within a trial's pause", n)
		}
		h.ca.failWith(nil)
		time.Sleep(trialEvery)
		h.must("back.example.com")
		if n := len(second.asked("")); n != 20 {
			t.Errorf("the second CA was asked %d times", n)
		}
	})
}

func TestManager_RefusalByOneCAIsNotTakenToAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		second := newFakeCA(t, "second")
		h.set.CAs = append(h.set.CAs, CA{Issuer: second})
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		h.open()
		h.refuse("a.example.com")
		if n := len(second.asked("")); n != 0 {
			t.Errorf("the second CA was asked %d times", n)
		}
	})
}

func TestManager_RenewalsGoBeforeNewNamesWithinThePlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.InFlight = 2
		h.open()
		h.must("old.example.com")
		renewAt := h.m.cache.cert("old.example.com").renewAt
		time.Sleep(time.Until(renewAt) - 5*time.Second)
		h.ca.script(func(context.Context, *Request) error { time.Sleep(10 * time.Second); return nil })
		for i := range 6 {
			go h.hello(fmt.Sprintf("n%d.example.com", i))
		}
		time.Sleep(2 * time.Minute)
		tries := h.ca.asked("")[1:]
		for i, c := range tries {
			if i >= 2 && c.at.Before(tries[i-2].at.Add(10*time.Second)) {
				t.Errorf("more than 2 orders at a time: %v", tries)
			}
			if c.name == "old.example.com" && i > 3 {
				t.Errorf("the renewal waited for %d new names", i)
			}
		}
		if len(tries) != 7 {
			t.Errorf("tried %v", tries)
		}
	})
}

func TestManager_CheckedCertificatesOnly(t *testing.T) {
	h := newHouse(t)
	h.ca.change = func(c *x509.Certificate) { c.DNSNames = []string{"evil.example.com"} }
	h.open()
	h.refuse("a.example.com")
	if h.has(certObject("a.example.com")) {
		t.Error("a certificate for another name was stored")
	}
	if n := h.store.Count(storagetest.PutIf, "certs/"); n != 0 {
		t.Errorf("%d writes", n)
	}
}

func TestFailures_DamagedRecordIsAClearSlate(t *testing.T) {
	h := newHouse(t)
	if _, err := h.store.Put(t.Context(), failureObject("a.example.com"), []byte("{torn")); err != nil {
		t.Fatal(err)
	}
	h.open()
	h.must("a.example.com")
}

func FuzzFailureRecord(f *testing.F) {
	f.Add([]byte(`{"ca":"x","scope":"name","reason":"r","problem":{"sub":[{"type":"t"}]},"count":3,"next":"2026-11-21T00:00:00Z"}`))
	f.Add([]byte(`{"count":-1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		rec := new(failureRecord)
		if json.Unmarshal(data, rec) != nil {
			return
		}
		next := nextAttempt(time.Now(), []time.Duration{time.Minute}, rec.Count+1, time.Time{}, 0)
		if next.Before(time.Now()) {
			t.Fatalf("count %d leads to %s", rec.Count, next)
		}
	})
}
