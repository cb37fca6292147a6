package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRoute_Table(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	over := Failover{After: 5, BackAfter: day}
	works := func() *circuit { return &circuit{} }
	open := func() *circuit { return &circuit{open: true, last: now.Add(-time.Second), next: now.Add(time.Second)} }
	due := func() *circuit { return &circuit{open: true, last: now.Add(-time.Hour), next: now.Add(-time.Second)} }
	gone := func() *circuit {
		return &circuit{open: true, away: true, last: now.Add(-time.Second), next: now.Add(time.Second)}
	}
	goneDue := func() *circuit { return &circuit{open: true, away: true, last: now.Add(-8 * time.Second), next: now} }
	goneLong := func() *circuit { return &circuit{open: true, away: true, last: now.Add(-time.Hour), next: now} }
	goneMinutes := func() *circuit { return &circuit{open: true, away: true, last: now.Add(-5 * time.Minute), next: now} }
	back := func() *circuit { return &circuit{away: true, healthy: now.Add(-time.Hour), next: now.Add(time.Minute)} }
	probe := func() *circuit { return &circuit{away: true, healthy: now.Add(-time.Hour), next: now} }
	healthy := func() *circuit { return &circuit{away: true, healthy: now.Add(-day), next: now.Add(time.Minute)} }
	for _, c := range []struct {
		why    string
		a, b   func() *circuit
		order  order
		asked  string
		want   string
		tested bool // as a trial
	}{
		{why: "the first CA, of which nothing is known", want: "a"},
		{why: "the first CA that works", a: works, want: "a"},
		{why: "one that failed a moment ago is waited for", a: open, want: ""},
		{why: "one is let through when a trial is due", a: due, want: "a", tested: true},
		{why: "the order that is the trial goes on with it", a: open, order: order{trial: "a"}, want: "a", tested: true},
		{why: "one that is given up is passed over", a: gone, want: "b"},
		{why: "its trials are few while another stands in", a: goneDue, want: "b"},
		{why: "but there are some", a: goneLong, want: "a", tested: true},
		{why: "fewer with a visitor", a: goneMinutes, order: order{wanted: now}, want: "b"},
		{why: "and more without", a: goneMinutes, want: "a", tested: true},
		{why: "and as many as ever if none stands in", a: goneDue, b: open, want: "a", tested: true},
		{why: "two that fail are waited for", a: gone, b: open, want: ""},
		{why: "two that are given up too", a: gone, b: gone, want: ""},
		{why: "one that is back is passed over for a while", a: back, want: "b"},
		{why: "but for a probe", a: probe, want: "a"},
		{why: "and not for longer", a: healthy, want: "a"},
		{why: "it serves when the other fails", a: back, b: open, want: ""},
		{why: "it serves when the other is given up", a: back, b: gone, want: "a"},
		{why: "after a first failure in this run it waits", a: open, asked: "a", want: ""},
		{why: "after the last failure it goes on", a: gone, asked: "a", want: "b"},
		{why: "after both it waits", a: gone, b: gone, asked: "a b", want: ""},
		{why: "a renewal with time left waits for its CA", a: gone, order: order{loyal: now.Add(day), issuer: "a"}, want: ""},
		{why: "but not without time", a: gone, order: order{loyal: now, issuer: "a"}, want: "b"},
		{why: "it may go to its issuer", a: gone, order: order{loyal: now.Add(day), issuer: "b"}, want: "b"},
		{why: "an issuer that may issue no more is none", a: gone, order: order{loyal: now.Add(day), issuer: "x"}, want: ""},
		{why: "the preferred one goes first", order: order{prefer: "b"}, want: "b"},
		{why: "if it works", b: open, order: order{prefer: "b"}, want: "a"},
		{why: "and may issue", order: order{prefer: "x"}, want: "a"},
		{why: "and is not kept for others", order: order{prefer: "b", loyal: now.Add(day), issuer: "a"}, want: "a"},
	} {
		t.Run(c.why, func(t *testing.T) {
			q := newQueue(quiet())
			q.failover = over
			for name, circuit := range map[string]func() *circuit{"a": c.a, "b": c.b} {
				if circuit != nil {
					q.circuits[name] = circuit()
				}
			}
			c.order.cas = []string{"a", "b"}
			if ca, trial := q.routeLocked(&c.order, strings.Fields(c.asked), now); ca != c.want || trial != c.tested {
				t.Errorf("goes to %q, trial %v; want %q, %v", ca, trial, c.want, c.tested)
			}
		})
	}
}

// twoCAs is a house with a second CA and the failover of the default configuration.
func twoCAs(t testing.TB) (*house, *fakeCA) {
	h, second := newHouse(t), newFakeCA(t, "second")
	h.set.CAs = append(h.set.CAs, CA{Issuer: second})
	h.set.Failover = Failover{After: 5, BackAfter: day}
	return h, second
}

// R17 of facts/peers.md: a CA that fails in whatever way is replaced within five failures, for every kind of name.
func TestManager_NextCATakesOverAfterFiveFailuresForEveryKindOfName(t *testing.T) {
	for _, failure := range []string{"500", "hang", "malformed"} {
		t.Run(failure, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, second := twoCAs(t)
				h.set.Listed = []string{"listed.example.com", "*.wild.example.com"}
				site := h.set.Lookup
				h.set.Lookup = func(name string) (Policy, bool) {
					p, _ := site(name)
					p.OnDemand = !strings.HasSuffix(name, ".wild.example.com")
					return p, true
				}
				switch failure {
				case "500":
					h.ca.failWith(errors.New("500"))
				case "hang":
					h.ca.script(func(ctx context.Context, _ *Request) error {
						time.Sleep(30 * time.Second)
						return errors.New("timeout")
					})
				case "malformed":
					h.ca.change = func(c *x509.Certificate) { c.DNSNames = []string{"other.example"} }
				}
				h.open()
				_, _ = hello(h.m, "demanded.example.com", second.pool())
				time.Sleep(5 * time.Minute)
				for _, name := range []string{"listed.example.com", "a.wild.example.com", "demanded.example.com", "new.example.com"} {
					if _, err := hello(h.m, name, second.pool()); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
				if n := len(h.ca.asked("")); n < 5 || n > 9 {
					t.Errorf("the failing CA was asked %d times", n)
				}
			})
		})
	}
}

func TestManager_WaitsForTheFirstCAUntilItFailedOftenEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, second := twoCAs(t)
		h.ca.failWith(errors.New("503"))
		h.open()
		h.refuse("a.example.com")
		time.Sleep(20 * time.Second)
		if n := len(second.asked("")); n != 0 {
			t.Errorf("the second CA was asked %d times before the first had failed five times", n)
		}
		h.ca.failWith(nil)
		time.Sleep(10 * time.Second)
		h.must("a.example.com")
	})
}

func TestManager_GoesBackToTheFirstCAAfterItHasBeenHealthyForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, second := twoCAs(t)
		h.ca.failWith(errors.New("503"))
		h.open()
		h.refuse("first.example.com")
		time.Sleep(time.Minute)
		visit := func(prefix string, every, span time.Duration) (first, other int) {
			a, b := len(h.ca.asked("")), len(second.asked(""))
			for i := range int(span / every) {
				if cert, err := h.m.GetCertificate((&pipeAt{remote: fmt.Sprintf("10.0.%d.%d", i/200, i%200)}).hello(fmt.Sprintf("%s%d.example.com", prefix, i))); err != nil || cert == nil {
					t.Fatalf("%s%d: %v", prefix, i, err)
				}
				time.Sleep(every)
			}
			return len(h.ca.asked("")) - a, len(second.asked("")) - b
		}
		if a, b := visit("outage", 10*time.Minute, 5*time.Hour); a < 4 || a > 6 || b != 30 {
			t.Errorf("while it fails: %d trials, %d by the other", a, b)
		}
		h.ca.failWith(nil)
		if a, b := visit("recovery", 10*time.Minute, 23*time.Hour); a < 20 || a > 26 || a+b != 138 {
			t.Errorf("while it recovers: %d probes, %d by the other", a, b)
		}
		time.Sleep(2 * time.Hour)
		if a, b := visit("back", 10*time.Minute, 2*time.Hour); a != 12 || b != 0 {
			t.Errorf("afterwards: %d, %d by the other", a, b)
		}
	})
}

func TestManager_GoesBackToTheFirstCAAtOnceWhenTheSecondFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, second := twoCAs(t)
		h.ca.failWith(errors.New("503"))
		h.open()
		h.refuse("a.example.com")
		time.Sleep(time.Minute)
		h.ca.failWith(nil)
		time.Sleep(time.Hour)
		h.must("trial.example.com") // closes the circuit; the CA stands back all the same
		if _, err := hello(h.m, "b.example.com", second.pool()); err != nil {
			t.Fatal(err)
		}
		second.failWith(errors.New("503"))
		for i := range 5 {
			h.must(fmt.Sprintf("c%d.example.com", i))
		}
		if n := len(second.asked("")); n != 3 {
			t.Errorf("the second CA was asked %d times", n)
		}
	})
}

func TestManager_RenewalsWaitForTheirCAWhileThereIsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, second := twoCAs(t)
		h.listing("a.example.com")
		h.ca.life, second.life = 12*day, 12*day
		h.open()
		first := h.must("a.example.com")
		h.ca.failWith(errors.New("down for a week"))
		time.Sleep(10*day - time.Hour)
		if n := len(second.asked("")); n != 0 {
			t.Errorf("%d renewals by the second CA with more than a sixth of the life left", n)
		}
		time.Sleep(2 * time.Hour)
		cert, err := hello(h.m, "a.example.com", second.pool())
		if err != nil {
			t.Fatal(err)
		}
		if left := first.NotAfter.Sub(second.asked("")[0].at); left > 2*day || left < 2*day-time.Hour {
			t.Errorf("renewed by the second CA with %s left", left)
		}
		h.ca.failWith(nil)
		time.Sleep(9 * day)
		if again := h.must("a.example.com"); again.Equal(cert) {
			t.Error("not renewed by the first CA again")
		}
	})
}

func TestManager_LimitsAtOneCALetNewNamesGoToTheNext(t *testing.T) {
	for _, scope := range []string{ScopeAccount, ScopeAddress} {
		t.Run(scope, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, second := twoCAs(t)
				end := time.Now().Add(3 * time.Hour)
				h.ca.failWith(&fakeFailure{scope: scope, retryAt: end})
				h.open()
				for i := range 10 {
					if _, err := hello(h.m, fmt.Sprintf("n%d.example.com", i), second.pool()); err != nil {
						t.Fatal(err)
					}
				}
				h.ca.failWith(nil)
				time.Sleep(time.Until(end) + time.Minute)
				h.must("later.example.com") // a limit that ended is no illness
				h.must("more.example.com")
				if a, b := len(h.ca.asked("")), len(second.asked("")); a != 3 || b != 10 {
					t.Errorf("the first was asked %d times, the second %d times", a, b)
				}
			})
		})
	}
}

func TestManager_ACAThatWantsToBeLeftAloneForLongIsNotWaitedFor(t *testing.T) {
	for _, c := range []struct {
		after  time.Duration
		second int // orders at the second CA within ten seconds
	}{{20 * time.Second, 0}, {10 * time.Minute, 3}, {time.Hour, 3}} {
		t.Run(c.after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, second := twoCAs(t)
				h.ca.failWith(&fakeFailure{scope: ScopeCA, retryAt: time.Now().Add(c.after)})
				h.open()
				for i := range 3 {
					_, _ = h.m.GetCertificate((&pipeAt{}).hello(fmt.Sprintf("n%d.example.com", i)))
				}
				time.Sleep(10 * time.Second)
				if a, b := len(h.ca.asked("")), len(second.asked("")); a != 1 || b != c.second {
					t.Errorf("the first was asked %d times, the second %d times", a, b)
				}
				h.ca.failWith(nil)
				time.Sleep(time.Hour + time.Minute) // visitors are not sent to try it more often
				h.must("later.example.com")
				h.must("more.example.com") // it said itself when it would be back: it need not prove itself for a day
				if b := len(second.asked("")); b != c.second {
					t.Errorf("the second was asked %d times in all", b)
				}
			})
		})
	}
}

func TestManager_RefusedNamesGoToOneMoreCAAnHourAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, second := twoCAs(t)
		third := newFakeCA(t, "third")
		h.set.CAs = append(h.set.CAs, CA{Issuer: third})
		cas := []*fakeCA{h.ca, second, third}
		for _, ca := range cas {
			ca.failWith(&fakeFailure{scope: ScopeName})
		}
		h.open()
		for range 10 * 24 * 60 {
			_, _ = h.m.GetCertificate((&pipeAt{}).hello("bad.example.com"))
			time.Sleep(time.Minute)
		}
		type attempt struct {
			ca string
			at time.Time
		}
		var all []attempt
		for _, ca := range cas {
			for _, c := range ca.asked("") {
				all = append(all, attempt{ca.name, c.at})
			}
			if len(ca.asked("")) < 2 {
				t.Errorf("CA %s was asked %d times", ca.name, len(ca.asked("")))
			}
		}
		for _, a := range all {
			others := map[string]bool{}
			for _, b := range all {
				if gap := b.at.Sub(a.at); b.ca != a.ca && 0 <= gap && gap < time.Hour {
					others[b.ca] = true
				}
			}
			if len(others) > 1 {
				t.Errorf("within an hour of %v the name went to %v", a, others)
			}
		}
		if first := h.ca.asked(""); len(first) < 2 || first[1].at.Sub(first[0].at) > 3*time.Minute {
			t.Errorf("the first CA is given a second chance: %v", first)
		}
		second.failWith(nil)
		time.Sleep(8 * day)
		for range 8 * 24 {
			_, _ = h.m.GetCertificate((&pipeAt{}).hello("bad.example.com"))
			time.Sleep(time.Hour)
		}
		if _, err := hello(h.m, "bad.example.com", second.pool()); err != nil {
			t.Error(err)
		}
	})
}

func TestAttempt_ThatWouldMoveANameTooSoonHoldsItBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, second := twoCAs(t)
		h.set.Failover = Failover{}
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		second.failWith(&fakeFailure{scope: ScopeName})
		h.open()
		start := time.Now()
		for time.Since(start) < 15*time.Minute { // twice by the first, then by the second
			_, _ = h.m.GetCertificate((&pipeAt{}).hello("bad.example.com"))
			time.Sleep(time.Minute)
		}
		if a, b := len(h.ca.asked("")), len(second.asked("")); a != 2 || b != 1 {
			t.Fatalf("asked %d and %d times", a, b)
		}
		rec := *h.m.failures.remembered("bad.example.com")
		rec.Next = time.Now() // as if a person forced it
		h.m.failures.write(t.Context(), "bad.example.com", &rec)
		second.failWith(errors.New("503"))
		for time.Since(start) < time.Hour {
			_, _ = h.m.GetCertificate((&pipeAt{}).hello("bad.example.com"))
			time.Sleep(time.Minute)
		}
		if a, b := len(h.ca.asked("")), len(second.asked("")); a != 2 || b != 2 {
			t.Errorf("back at the first CA within the hour: asked %d and %d times", a, b)
		}
		time.Sleep(30 * time.Minute)
		_, _ = h.m.GetCertificate((&pipeAt{}).hello("bad.example.com"))
		if n := len(h.ca.asked("")); n != 3 {
			t.Errorf("after the hour the first CA was asked %d times", n)
		}
	})
}
