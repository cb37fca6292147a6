package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/proxy/certs/permission"
	"gatelodge/storage/storagetest"
)

// widest is the greatest number of orders within any time of that length.
func (h *house) widest(per time.Duration) (most int) {
	all := h.ca.asked("")
	for _, first := range all {
		within := 0
		for _, c := range all {
			if d := c.at.Sub(first.at); 0 <= d && d < per {
				within++
			}
		}
		most = max(most, within)
	}
	return most
}

func TestManager_KeepsToTheBudgetOfOrdersAndServesEveryNameInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Budget = Budget{Orders: Limit{Count: 4, Per: time.Hour}}
		h.open()
		h.openOn(h.store)
		var names []string
		for i := range 10 {
			names = append(names, fmt.Sprintf("www.customer%d.com", i))
		}
		for i, name := range names {
			began := time.Now()
			_, err := h.hello(name)
			if held := asBudget(errorsIn(err)); i < 4 && err != nil || i >= 4 && held == nil {
				t.Errorf("%s: %v", name, err)
			}
			if time.Since(began) > 2*time.Second {
				t.Errorf("%s waited %s", name, time.Since(began))
			}
		}
		s, err := h.m.Status(t.Context(), names[9])
		if err != nil || s.State != StateWithheld || s.Budget != "new_orders" || s.NextAttempt.IsZero() || s.Position != 6 || s.Expected.Before(s.NextAttempt) {
			t.Errorf("status %+v, %v", s, err)
		}
		time.Sleep(3*time.Hour + 30*time.Minute)
		for _, name := range names { // nobody came by meanwhile
			if h.m.cache.cert(name) == nil {
				t.Errorf("%s has no certificate", name)
			}
		}
		h.wantIssued("", 10)
		if got := h.widest(time.Hour); got > 4 {
			t.Errorf("%d orders within an hour", got)
		}
	})
}

func TestManager_AReloadThatRaisesABudgetLetsNamesGoOnAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Budget = Budget{Orders: Limit{Count: 1, Per: 30 * day}}
		h.open()
		h.must("a.example.com")
		h.refuse("b.example.org")
		if s := h.m.remembered("b.example.org"); s.State != StateWithheld {
			t.Fatalf("%+v", s)
		}
		h.set.Budget.Orders.Count = 10
		if err := h.m.Apply(h.set); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if h.m.cache.cert("b.example.org") == nil {
			t.Errorf("still waits: %+v", h.m.remembered("b.example.org"))
		}
	})
}

func TestPlanner_ANameThatWaitsForABudgetIsNotLookedAtAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Budget = Budget{Orders: Limit{Count: 1, Per: 30 * day}}
		h.open()
		h.must("a.example.com")
		h.refuse("b.example.org")
		h.m.planner.plan("b.example.org", time.Now()) // as news of it would
		before := h.store.Count(storagetest.Get, certObject("b.example.org"))
		time.Sleep(12 * time.Hour)
		if n := h.store.Count(storagetest.Get, certObject("b.example.org")) - before; n > 2 {
			t.Errorf("read %d times in 12 hours", n)
		}
	})
}

// errorsIn unpacks what the house's hello joined.
func errorsIn(err error) error {
	if all, ok := err.(interface{ Unwrap() []error }); ok && len(all.Unwrap()) > 0 {
		return all.Unwrap()[0]
	}
	return err
}

func TestManager_TwoProcessesShareTheBudgets(t *testing.T) {
	for name, budget := range map[string]Budget{
		"orders": {Orders: Limit{Count: 6, Per: time.Hour}}, "domain": {Domain: Limit{Count: 6, Per: time.Hour}}, "tenant": {Tenant: Limit{Count: 6, Per: time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				h.set.Budget = budget
				var fleet []*Manager
				for range 2 {
					fleet = append(fleet, h.openOn(h.store))
				}
				for i := range 20 {
					_, _ = hello(fleet[i%2], fmt.Sprintf("n%d.example.com", i), h.ca.pool())
				}
				h.wantIssued("", 6)
				if budget.Orders.Count > 0 {
					return
				}
				if _, err := hello(fleet[0], "www.example.net", h.ca.pool()); err != nil {
					t.Errorf("another domain has to wait too: %v", err)
				}
			})
		})
	}
}

func TestManager_TheNextCATakesOverWhereABudgetIsUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		second := newFakeCA(t, "second")
		h.set.CAs = append(h.set.CAs, CA{Issuer: second})
		h.set.Budget = Budget{Orders: Limit{Count: 2, Per: time.Hour}}
		h.open()
		for i := range 5 {
			pool := h.ca.pool()
			pool.AddCert(second.cert)
			if _, err := hello(h.m, fmt.Sprintf("www.customer%d.com", i), pool); (err != nil) != (i == 4) {
				t.Errorf("name %d: %v", i, err)
			}
		}
		if a, b := len(h.ca.asked("")), len(second.asked("")); a != 2 || b != 2 {
			t.Errorf("%d and %d orders", a, b)
		}
	})
}

func TestManager_CAsWithNamesOfTheirOwnHaveNoBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.CAs[0].Names = []string{"*.example.com"}
		h.set.Budget = Budget{Orders: Limit{Count: 1, Per: time.Hour}, Domain: Limit{Count: 1, Per: time.Hour}, Tenant: Limit{Count: 1, Per: time.Hour}}
		h.open()
		for i := range 4 {
			h.must(fmt.Sprintf("n%d.example.com", i))
		}
	})
}

func TestManager_ARenewalThatTheCAInvitedIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		h.set.Budget = Budget{Orders: Limit{Count: 1, Per: 1000 * time.Hour}, Tenant: Limit{Count: 1, Per: 1000 * time.Hour}}
		ca.say(func(_ context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
			return RenewalInfo{Window: Window{leaf.NotBefore.Add(10 * 24 * time.Hour), leaf.NotBefore.Add(12 * 24 * time.Hour)}}, nil
		})
		h.open()
		h.must("www.example.com")
		if err := h.refuse("other.example.com"); asBudget(errorsIn(err)) == nil {
			t.Errorf("a new name: %v", err)
		}
		time.Sleep(13 * 24 * time.Hour)
		h.wantIssued("www.example.com", 2)
	})
}

func TestManager_FailuresOfANameAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Backoff = []time.Duration{time.Second}
		h.set.Budget = Budget{Failures: Limit{Count: 4, Per: time.Hour}}
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		h.open()
		for range 6 * 60 * 6 {
			_, _ = h.m.GetCertificate((&pipeAt{}).hello("bad.example.com"))
			time.Sleep(10 * time.Second)
		}
		if got := h.widest(time.Hour); got != 4 {
			t.Errorf("%d attempts within an hour, 4 are allowed", got)
		}
	})
}

func TestQueue_TenantsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.InFlight = 1
		h.ca.script(func(ctx context.Context, _ *Request) error {
			if !sleep(ctx, time.Second) {
				return errors.New("interrupted")
			}
			return nil
		})
		h.open()
		const many = 2000
		for i := range many {
			if _, err := h.m.queue.want(wish{name: fmt.Sprintf("n%d.big.com", i), kind: kindNew, visitor: true}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		began := time.Now()
		round, err := h.m.queue.want(wish{name: "www.small.org", kind: kindNew, visitor: true})
		if err != nil {
			t.Fatal(err)
		}
		if s := h.m.queue.standing("www.small.org"); s.position != 1 && s.position != 2 {
			t.Errorf("position %d behind a tenant with %d names", s.position, many)
		}
		if _, err := h.m.queue.wait(t.Context(), round); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("waited %s, behind more than one name of the other tenant", took)
		}
	})
}

func TestQueue_OneTenantNeverTakesAllTheRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.script(func(ctx context.Context, _ *Request) error { <-ctx.Done(); return ctx.Err() })
		h.open()
		want := func(name string) error {
			_, err := h.m.queue.want(wish{name: name, kind: kindNew})
			return err
		}
		taken := 0
		for ; want(fmt.Sprintf("n%d.big.com", taken)) == nil; taken++ {
		}
		if taken != maxOrders/2 {
			t.Errorf("one tenant has %d places of %d", taken, maxOrders)
		}
		for i := range 1000 {
			if err := want(fmt.Sprintf("www.small%d.com", i)); err != nil {
				t.Fatalf("no room for tenant %d: %v", i, err)
			}
		}
	})
}

// tenants is a gate that says whose names are.
type tenants struct {
	gate
	of func(name string) string
}

func (p *tenants) Told(name string) (permission.Answer, bool) {
	return permission.Answer{Allowed: true, Tenant: p.of(name)}, true
}

func TestManager_ATenantsNamesCountTogetherWhateverTheirDomains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Permission = &tenants{of: func(name string) string { return name[:4] }}
		h.set.Budget = Budget{Tenant: Limit{Count: 2, Per: time.Hour}}
		h.open()
		for i, name := range []string{"acme1.com", "acme2.net", "acme3.org"} {
			if _, err := h.hello(name); (err != nil) != (i == 2) {
				t.Errorf("%s: %v", name, err)
			}
		}
		h.must("other.org")
		s, err := h.m.Status(t.Context(), "acme3.org")
		if err != nil || s.Tenant != "acme" || s.Budget != "per_tenant" || s.NextAttempt.IsZero() {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

func TestManager_ANewNameThatWaitsForTheBudgetOfItsTenantGoesOnWithoutAVisitorIfItIsStillAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		var denied atomic.Bool
		gate := &gate{allow: func(name string) error {
			if denied.Load() && name == "d.example.com" {
				return permission.ErrDenied
			}
			return nil
		}}
		h.set.Permission = gate
		h.set.Budget = Budget{Domain: Limit{Count: 2, Per: time.Hour}}
		h.open()
		h.must("a.example.com")
		h.must("b.example.com")
		for _, name := range []string{"c.example.com", "d.example.com"} {
			h.refuse(name)
			if s, err := h.m.Status(t.Context(), name); err != nil || s.State != StateWithheld || s.Budget != "per_registered_domain" {
				t.Errorf("%+v, %v", s, err)
			}
		}
		denied.Store(true)
		time.Sleep(3 * time.Hour)
		h.wantIssued("c.example.com", 1)
		h.wantIssued("d.example.com", 0)
		if h.m.planner.knows("d.example.com") {
			t.Error("a name that was denied meanwhile is kept")
		}
	})
}

func TestManager_SaysForWhichBudgetANameWaitsUntilItIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).listing("a.example.com", "b.example.com", "c.example.com")
		h.set.Budget = Budget{Domain: Limit{Count: 2, Per: 7 * day}}
		h.open()
		for range 7 {
			time.Sleep(day - time.Hour)
			var waiting []string
			for _, name := range h.set.Listed {
				s, err := h.m.Status(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				if s.State != StateServing {
					waiting = append(waiting, name)
				}
				if s.State != StateServing && (s.Budget != "per_registered_domain" || !s.NextAttempt.After(time.Now())) {
					t.Errorf("%+v", s)
				}
			}
			if len(waiting) != 1 {
				t.Fatalf("%v wait for certificates, one should", waiting)
			}
		}
		time.Sleep(2 * day)
		for _, name := range h.set.Listed {
			if s, err := h.m.Status(t.Context(), name); err != nil || s.State != StateServing || s.Budget != "" || !s.NextAttempt.IsZero() {
				t.Errorf("%+v, %v", s, err)
			}
		}
	})
}

func BenchmarkFairQueue_PushAndPop(b *testing.B) {
	q := newFairQueue()
	for i := range maxOrders {
		q.push(&order{name: fmt.Sprint(i), tenant: fmt.Sprint(i % 100)})
	}
	b.ReportAllocs()
	for b.Loop() {
		o := q.pop()
		o.seq = 0
		q.push(o)
	}
}
