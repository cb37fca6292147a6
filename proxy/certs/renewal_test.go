package certs

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage/storagetest"
)

func TestManager_RenewsListedAndOnDemandNamesInTimeForEveryLifetime(t *testing.T) {
	for _, c := range []struct {
		name     string
		life     time.Duration
		run      time.Duration
		renewals int // each name, at least
		most     int
	}{
		{"90 days", 90 * day, 365 * day, 5, 7},
		{"64 days", 64 * day, 365 * day, 8, 10},
		{"45 days", 45 * day, 365 * day, 11, 14},
		{"160 hours", 160 * time.Hour, 90 * day, 25, 30},
		{"24 hours", day, 14 * day, 26, 31},
		{"60 seconds", time.Minute, time.Hour, 110, 140},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				h.set.Listed = []string{"listed.example.com"}
				h.ca.life = c.life
				h.open()
				h.must("visited.example.com")
				h.must("idle.example.com") // nobody comes back to this one
				end := time.Now().Add(c.run)
				for time.Now().Before(end) {
					time.Sleep(c.life / 5)
					for _, name := range []string{"listed.example.com", "visited.example.com"} {
						if left := time.Until(h.must(name).NotAfter); left < c.life/4 {
							t.Fatalf("%s has %s left of %s", name, left, c.life)
						}
					}
				}
				for _, name := range []string{"listed.example.com", "visited.example.com", "idle.example.com"} {
					if n := len(h.ca.asked(name)) - 1; n < c.renewals || n > c.most {
						t.Errorf("%s was renewed %d times in %s, want %d to %d", name, n, c.run, c.renewals, c.most)
					}
					if last := h.ca.asked(name); !last[len(last)-1].pred {
						t.Errorf("%s was renewed without naming its predecessor", name)
					}
				}
			})
		})
	}
}

func TestManager_RenewsIdleNamesAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.open()
		for i := range 20 {
			h.must(fmt.Sprintf("n%d.example.com", i))
		}
		time.Sleep(time.Second)
		h.m.Close()
		time.Sleep(30 * day)
		h.open()
		time.Sleep(40 * day)
		h.wantIssued("", 40)
		if n := h.store.Count(storagetest.List, ""); n != 0 {
			t.Errorf("%d listings", n)
		}
	})
}

func TestManager_ARenewalReadsItsCertificateOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.open()
		h.must("a.example.com")
		h.m.cache.drop("a.example.com") // as if others had been visited more
		before := h.store.Count(storagetest.Get, certObject("a.example.com"))
		time.Sleep(75 * day)
		h.wantIssued("a.example.com", 2)
		if n := h.store.Count(storagetest.Get, certObject("a.example.com")) - before; n != 1 {
			t.Errorf("read %d times", n)
		}
	})
}

func TestManager_RenewsWhenTheCASays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).listing("a.example.com")
		h.ca.window = Window{time.Now().Add(10 * day), time.Now().Add(11 * day)}
		h.open()
		time.Sleep(9 * day)
		h.wantIssued("", 1)
		time.Sleep(2 * day)
		h.wantIssued("", 2)
	})
}

func TestManager_DoesNotOrderInACircle(t *testing.T) {
	for _, c := range []struct {
		name   string
		window Window // of each certificate
		back   time.Duration
	}{
		{"a window that lies in the past", Window{time.Unix(1, 0), time.Unix(2, 0)}, 0},
		{"certificates dated far back", Window{}, 80 * day},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t).listing("a.example.com")
				h.ca.window, h.ca.backdate, h.ca.life = c.window, c.back, 10*day
				h.open()
				time.Sleep(10 * day)
				if n := len(h.ca.asked("")); n > 11 {
					t.Errorf("%d orders in 10 days", n)
				}
				h.must("a.example.com")
			})
		})
	}
}

func TestManager_KeepsServingOldCertificateWhenRenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).listing("a.example.com")
		h.open()
		old := h.must("a.example.com")
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		for time.Until(old.NotAfter) > 5*time.Hour {
			if !h.must("a.example.com").Equal(old) {
				t.Fatal("another certificate")
			}
			time.Sleep(4 * time.Hour)
		}
		tries := h.ca.asked("")
		if n := len(tries); n < 50 || n > 120 {
			t.Errorf("%d attempts; the last days are urgent, but not that urgent", n)
		}
		for i, c := range tries[2:] {
			gap := c.at.Sub(tries[i+1].at)
			if left := old.NotAfter.Sub(tries[i+1].at); left < day && gap > lastEvery+10*time.Minute || left < 3*day && gap > urgentEvery+40*time.Minute {
				t.Errorf("with %s left the pause was %s", left, gap)
			}
		}
		time.Sleep(5 * time.Hour)
		if err := h.refuse("a.example.com"); err == nil {
			t.Error("an ended certificate is served")
		}
		h.ca.failWith(nil)
		time.Sleep(7 * time.Hour)
		h.must("a.example.com")
	})
}

func TestManager_CAOutageAcrossExpiryRecoversWithin15Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.life = day
		h.open()
		old := h.must("a.example.com")
		time.Sleep(time.Until(old.NotAfter) - 5*time.Minute)
		if h.must("a.example.com").Equal(old) {
			t.Fatal("not renewed in time")
		}
		old = h.must("a.example.com")
		time.Sleep(time.Until(h.m.cache.cert("a.example.com").renewAt) - time.Minute)
		h.ca.failWith(errors.New("down"))
		time.Sleep(time.Until(old.NotAfter) - time.Minute)
		h.must("a.example.com")
		time.Sleep(time.Minute)
		for range 10 {
			began := time.Now()
			h.refuse("a.example.com")
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("a handshake with an ended certificate hung for %s", took)
			}
			time.Sleep(time.Second)
		}
		h.ca.failWith(nil)
		back := time.Now()
		for _, err := h.hello("a.example.com"); err != nil; _, err = h.hello("a.example.com") {
			time.Sleep(time.Second)
		}
		if took := time.Since(back); took > 15*time.Second {
			t.Errorf("recovery took %s", took)
		}
	})
}

func TestManager_90DaysWithOutagesEveryHandshakeIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.life = 160 * time.Hour
		h.set.Listed = []string{"a.example.com", "b.example.com", "c.example.com"}
		h.open()
		time.Sleep(time.Second)
		for d := range 90 {
			switch {
			case d%10 == 3:
				h.ca.failWith(errors.New("down for a day"))
			case d%10 == 6:
				h.store.Set(storagetest.Fault{Prefix: "certs/"})
			case d%10 == 8 && d%20 != 8:
				h.store.Set(storagetest.Fault{Op: storagetest.Lease})
			default:
				h.ca.failWith(nil)
				h.store.Set()
			}
			for _, name := range h.set.Listed {
				h.must(name)
			}
			time.Sleep(day)
		}
		for _, name := range h.set.Listed {
			if n := h.ca.orderCount(); n > 110 {
				t.Errorf("%d orders", n)
			}
			h.must(name)
		}
	})
}

func TestManager_NamesThatNoSiteClaimsAreNotRenewedUntilOneDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.open()
		h.must("a.example.com")
		site := h.set.Lookup
		h.set.Lookup = func(string) (Policy, bool) { return Policy{}, false }
		if err := h.m.Apply(h.set); err != nil {
			t.Fatal(err)
		}
		time.Sleep(70 * day)
		h.wantIssued("", 1)
		h.set.Lookup = site
		if err := h.m.Apply(h.set); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		h.wantIssued("", 2)
	})
}

func TestManager_AbandonsOnDemandNamesThatCannotBeRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.open()
		h.must("gone.example.com")
		time.Sleep(day)
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		time.Sleep(120 * day)
		n := len(h.ca.asked(""))
		time.Sleep(60 * day)
		if more := len(h.ca.asked("")) - n; more != 0 {
			t.Errorf("%d orders for a name that ended a month ago and nobody visits", more)
		}
	})
}

func TestPlanner_KnowsManyNamesAndTakesThemInOrder(t *testing.T) {
	p := newPlanner()
	now := time.Now()
	for i := range 1000 {
		p.plan(fmt.Sprintf("n%d", i), now.Add(time.Duration(hash64(fmt.Sprint(i))%1000)*time.Second))
	}
	p.forget("n7")
	p.plan("n8", now.Add(-time.Hour))
	last := time.Time{}
	for i := range 999 {
		name, _ := p.next(now.Add(time.Hour))
		it, _ := p.get(name)
		if it.due.Before(last) || i == 0 && name != "n8" || name == "n7" {
			t.Fatalf("%s at %s after %s", name, it.due, last)
		}
		last = it.due
	}
	if name, wait := p.next(now.Add(time.Hour)); name != "" || wait <= 0 {
		t.Errorf("%q is left, wait %s", name, wait)
	}
}
