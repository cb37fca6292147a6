package certs

import (
	"crypto/x509"
	"encoding/binary"
	"math/big"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestAbandon_AnIdleNameIsNotRenewedUntilItsVisitorComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.set.Abandon = Abandon{Idle: 30 * day}
		h.open()
		first := h.must("idle.example.com")
		h.must("busy.example.com")
		for range 70 {
			time.Sleep(day)
			h.must("busy.example.com")
		}
		h.wantIssued("idle.example.com", 1)
		h.wantIssued("busy.example.com", 2)
		if s, err := h.m.Status(t.Context(), "idle.example.com"); err != nil || s.State != StateAbandoned || s.Abandoned == nil || s.Abandoned.Reason != goneIdle || s.Abandoned.Since.IsZero() {
			t.Errorf("%+v, %v", s, err)
		}
		h.m.Close() // it stays known across a restart
		h.open()
		time.Sleep(2 * day)
		h.wantIssued("idle.example.com", 1)
		if !h.must("idle.example.com").Equal(first) {
			t.Error("the visitor who came back got another certificate")
		}
		time.Sleep(time.Minute)
		h.wantIssued("idle.example.com", 2)
		if s, err := h.m.Status(t.Context(), "idle.example.com"); err != nil || s.State != StateServing || s.Abandoned != nil {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

func TestAbandon_ADeniedNameIsGivenUpAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.set.Abandon = Abandon{Denied: 7 * day}
		h.open()
		h.must("left.example.com")
		time.Sleep(50 * day)
		h.gate.allow = deny
		for range 30 {
			time.Sleep(day)
			h.must("left.example.com") // a stored certificate is served whatever ask says
		}
		h.wantIssued("left.example.com", 1)
		if s, err := h.m.Status(t.Context(), "left.example.com"); err != nil || s.State != StateAbandoned || s.Abandoned.Reason != goneDenied {
			t.Errorf("%+v, %v", s, err)
		}
		h.gate.mu.Lock()
		h.gate.allow = nil
		h.gate.mu.Unlock()
		time.Sleep(2 * day)
		h.wantIssued("left.example.com", 2)
	})
}

func TestAbandon_APermissionThatCannotTellChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.set.Abandon = Abandon{Denied: 7 * day}
		h.open()
		h.must("a.example.com")
		h.gate.mu.Lock()
		h.gate.allow = func(string) error { return errGateDown }
		h.gate.mu.Unlock()
		time.Sleep(80 * day)
		h.wantIssued("a.example.com", 2)
	})
}

func TestAbandon_ANameThatNoCACanValidateIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.set.Abandon = Abandon{Away: 14 * day}
		h.open()
		h.must("moved.example.com")
		time.Sleep(50 * day)
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		time.Sleep(35 * day)
		orders := len(h.ca.asked("moved.example.com"))
		time.Sleep(10 * day)
		if n := len(h.ca.asked("moved.example.com")); n != orders || n > 40 {
			t.Errorf("%d orders, %d of them after it was given up", n, n-orders)
		}
		h.ca.failWith(nil)
		h.must("moved.example.com") // it has ended by now, and resolves to us again
	})
}

func TestAbandon_ANameThatNoSiteClaimsIsNotOrderedAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.listing("a.example.com")
		h.open()
		h.must("a.example.com")
		h.listing()
		if err := h.m.Apply(h.set); err != nil {
			t.Fatal(err)
		}
		time.Sleep(80 * day)
		h.wantIssued("a.example.com", 1)
		if s, err := h.m.Status(t.Context(), "a.example.com"); err != nil || s.Abandoned == nil || s.Abandoned.Reason != goneSite {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

func TestVisits_KnowTheLastHourOfAName(t *testing.T) {
	v := new(visits)
	now := time.Date(2026, 11, 21, 12, 34, 0, 0, time.UTC)
	for range 300 {
		v.note("a.example.com", now)
	}
	v.note("b.example.com", now.Add(time.Hour))
	if at, n := v.last("a.example.com"); at != now.Truncate(time.Hour).Unix() || n != visitMost {
		t.Errorf("a: %v, %d", unixTime(at), n)
	}
	if at, n := v.last("b.example.com"); at != now.Add(time.Hour).Truncate(time.Hour).Unix() || n != 1 {
		t.Errorf("b: %v, %d", unixTime(at), n)
	}
	if at, n := v.last("c.example.com"); at != 0 || n != 0 {
		t.Errorf("c: %v, %d", unixTime(at), n)
	}
	if n := testing.AllocsPerRun(100, func() { v.note("a.example.com", now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Sixty thousand names obtained in one day, by a CA without renewal information.
func TestSpread_NoHourHasMoreThanThreeTimesTheMean(t *testing.T) {
	const names = 60_000
	synctest.Test(t, func(t *testing.T) {
		p, begin, serial := newPlanner(), time.Now(), uint64(0)
		obtain := func(i int) {
			now := time.Now()
			leaf := &x509.Certificate{NotBefore: now, NotAfter: now.Add(90 * day), SerialNumber: big.NewInt(int64(i))}
			c := &certificate{name: "n" + strconv.Itoa(i) + ".example.com", ca: "x", tls: tlsOf(leaf), issued: now}
			serial++
			binary.BigEndian.PutUint64(c.sum[:], serial)
			at := p.levelOnce(c, renewAt(leaf.NotBefore, leaf.NotAfter, 2.0/3, fraction(c.name, now.String())))
			p.note(c, at)
			p.plan(c.name, at)
		}
		for i := range names {
			obtain(i)
			if i%(names/24) == 0 {
				time.Sleep(time.Hour)
			}
		}
		hours, all, worst := 0, 0, 0
		for time.Since(begin) < 200*day {
			n := 0
			for {
				name, _ := p.next(time.Now())
				if name == "" {
					break
				}
				i, err := strconv.Atoi(name[1 : len(name)-len(".example.com")])
				if err != nil {
					t.Fatal(err)
				}
				obtain(i)
				n++
			}
			if time.Since(begin) > 35*day {
				hours, all, worst = hours+1, all+n, max(worst, n)
			}
			time.Sleep(time.Hour)
		}
		mean := float64(all) / float64(hours)
		t.Logf("busiest hour %d, mean %.1f, %d renewals", worst, mean, all)
		if float64(worst) > 3*mean {
			t.Errorf("busiest hour %d, mean %.1f", worst, mean)
		}
	})
}
