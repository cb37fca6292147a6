package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

var threeHours = Limit{Count: 250, Per: 3 * time.Hour}

// spendings are the times at which a fleet spent something.
type spendings struct {
	mu    sync.Mutex
	times []time.Time
}

func (s *spendings) note() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times = append(s.times, time.Now())
}

// most is the greatest number in any time of that length.
func (s *spendings) most(per time.Duration) int {
	slices.SortFunc(s.times, time.Time.Compare)
	most := 0
	for i, from := 0, 0; i < len(s.times); i++ {
		for s.times[i].Sub(s.times[from]) >= per {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

// node is one process of a fleet that spends as it likes.
type node struct {
	b    *budgets
	kill context.CancelFunc
	done chan struct{}
}

func startNode(store storage.Store) *node {
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{b: newBudgets(store, quiet()), kill: cancel, done: make(chan struct{})}
	go func() {
		defer close(n.done)
		n.b.giveBack(ctx)
	}()
	return n
}

func (n *node) stop() { n.kill(); <-n.done }

func chargeOf(limit Limit, renewal bool) charge {
	return charge{budget: budgetOrders, account: "ca", subject: "CA ca", limit: limit, reserve: limit.Count * 3 / 10, renewal: renewal}
}

func TestBudgets_AFleetNeverSpendsMoreThanItsLimit(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			store := storagetest.NewFaulty(storage.NewMemory())
			var spent spendings
			var fleet []*node
			for range 1 + seed%5 {
				fleet = append(fleet, startNode(store))
			}
			const days = 2
			for began := time.Now(); time.Since(began) < days*24*time.Hour; time.Sleep(time.Duration(random.IntN(60)) * time.Second) {
				i := random.IntN(len(fleet))
				switch random.IntN(400) {
				case 0: // crashes: what it holds is lost
					store.Set(storagetest.Fault{Prefix: "budget/"})
					fleet[i].stop()
					store.Set()
					fleet[i] = startNode(store)
				case 1:
					store.Set(storagetest.Fault{Prefix: "budget/", Op: storagetest.PutIf, Applied: true, Times: 3})
				case 2:
					store.Set(storagetest.Fault{Prefix: "budget/", Err: storage.ErrConflict, Op: storagetest.PutIf, Times: 2})
				case 3:
					store.Set(storagetest.Fault{Prefix: "budget/", Latency: 3 * time.Second, Times: 20})
				case 4:
					store.Set(storagetest.Fault{Prefix: "budget/", Times: 50})
				}
				for range random.IntN(12) { // twice as much as there is
					r, err := fleet[i].b.pay(t.Context(), chargeOf(threeHours, random.IntN(3) == 0), false)
					if err == nil && random.IntN(20) == 0 {
						r.refund()
					} else if err == nil {
						spent.note()
					}
				}
			}
			store.Set()
			for _, n := range fleet {
				n.stop()
			}
			if most := spent.most(threeHours.Per); most > threeHours.Count {
				t.Errorf("seed %d: %d were spent within %s, the limit is %d", seed, most, threeHours.Per, threeHours.Count)
			}
			if least := days * 8 * threeHours.Count * 6 / 10; len(spent.times) < least {
				t.Errorf("seed %d: %d spent in %d days, %d at least were to be had", seed, len(spent.times), days, least)
			}
		})
	}
}

func TestBudgets_NearlyTheWholeLimitCanBeSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storage.NewMemory()
		fleet := []*node{startNode(store), startNode(store), startNode(store)}
		spent := 0
		for began := time.Now(); time.Since(began) < 30*time.Hour; time.Sleep(30 * time.Second) {
			for _, n := range fleet {
				if _, err := n.b.pay(t.Context(), chargeOf(threeHours, true), false); err == nil {
					spent++
				}
			}
		}
		for _, n := range fleet {
			n.stop()
		}
		if least := 10 * threeHours.Count * 9 / 10; spent < least {
			t.Errorf("%d spent, want %d at least", spent, least)
		}
	})
}

func TestBudgets_ALimitWithinASecondHoldsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(storage.NewMemory())
		defer n.stop()
		var s spendings
		for range 600 {
			if _, err := n.b.pay(t.Context(), chargeOf(Limit{Count: 2, Per: time.Second}, true), false); err == nil {
				s.note()
			}
			time.Sleep(100 * time.Millisecond)
		}
		if most := s.most(time.Second); most != 2 {
			t.Errorf("%d spent within a second, want 2", most)
		}
	})
}

func TestBudgets_NewNamesLeaveTheReserveToRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(storage.NewMemory())
		defer n.stop()
		spend := func(renewal bool) (count int) {
			for range 300 {
				if _, err := n.b.pay(t.Context(), chargeOf(threeHours, renewal), false); err == nil {
					count++
				}
			}
			return count
		}
		if got := spend(false); got != 175 {
			t.Errorf("%d new names, want 70 %% of 250", got)
		}
		if got := spend(true); got != 75 {
			t.Errorf("%d renewals, want the reserve of 75", got)
		}
	})
}

func TestBudgets_WithoutStorageOnlyWhatIsHeldCanBeSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storagetest.NewFaulty(storage.NewMemory())
		n := startNode(store)
		pay := func() error { _, err := n.b.pay(t.Context(), chargeOf(threeHours, true), false); return err }
		if err := pay(); err != nil {
			t.Fatal(err)
		}
		store.Set(storagetest.Fault{})
		held := 0
		for pay() == nil {
			held++
		}
		if want := threeHours.Count/blockPart - 1; held != want {
			t.Errorf("%d spent without storage, the block had %d left", held, want)
		}
		if err := pay(); !isStorage(err) || asBudget(err) != nil {
			t.Errorf("refused with %v, want the trouble with storage", err)
		}
		time.Sleep(time.Hour)
		store.Set()
		if err := pay(); err != nil {
			t.Error(err)
		}
		n.stop()
	})
}

func TestBudgets_WhatAProcessDoesNotSpendOthersGet(t *testing.T) {
	for _, how := range []string{"it ends", "the slot ends"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := storage.NewMemory()
				first, second := startNode(store), startNode(store)
				if _, err := first.b.pay(t.Context(), chargeOf(threeHours, true), false); err != nil {
					t.Fatal(err)
				}
				if how == "it ends" {
					first.stop()
				} else {
					defer first.stop()
					time.Sleep(threeHours.slot() + 2*time.Second)
				}
				got := 0
				for {
					_, err := second.b.pay(t.Context(), chargeOf(threeHours, true), false)
					if err != nil {
						break
					}
					got++
				}
				if want := threeHours.Count - 1; got != want {
					t.Errorf("the other process could spend %d, want %d", got, want)
				}
				second.stop()
			})
		})
	}
}

func TestBudgets_ARefusalSaysWhenThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(storage.NewMemory())
		defer n.stop()
		c := chargeOf(Limit{Count: 3, Per: time.Hour}, true)
		for range 3 {
			if _, err := n.b.pay(t.Context(), c, false); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
		}
		began := time.Now()
		_, err := n.b.pay(t.Context(), c, false)
		e := asBudget(err)
		if e == nil || e.Budget != budgetOrders || e.Limit != c.limit {
			t.Fatalf("refused with %v", err)
		}
		if wait := e.Next.Sub(began); wait < 30*time.Minute || wait > 36*time.Minute {
			t.Errorf("there is room in %s, the first was spent half an hour ago", wait)
		}
		time.Sleep(time.Until(e.Next))
		if _, err := n.b.pay(t.Context(), c, false); err != nil {
			t.Error(err)
		}
		if _, err := n.b.pay(t.Context(), c, true); err != nil {
			t.Errorf("what replaces a compromised key was refused: %v", err)
		}
	})
}

// widest is the greatest number of orders within any time of that length.
func (h *house) widest(per time.Duration) int {
	var s spendings
	for _, c := range h.ca.asked("") {
		s.times = append(s.times, c.at)
	}
	return s.most(per)
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
		"orders": {Orders: Limit{6, time.Hour}}, "domain": {Domain: Limit{6, time.Hour}}, "tenant": {Tenant: Limit{6, time.Hour}},
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
		h.set.Budget = Budget{Orders: Limit{2, time.Hour}}
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
		h.set.Budget = Budget{Orders: Limit{1, time.Hour}, Domain: Limit{1, time.Hour}, Tenant: Limit{1, time.Hour}}
		h.open()
		for i := range 4 {
			h.must(fmt.Sprintf("n%d.example.com", i))
		}
	})
}

func TestManager_ARenewalThatTheCAInvitedIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newInformed(t)
		h.set.Budget = Budget{Orders: Limit{1, 1000 * time.Hour}, Tenant: Limit{1, 1000 * time.Hour}}
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
		h.set.Budget = Budget{Failures: Limit{4, time.Hour}}
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

func (p *tenants) Told(name string) (Answer, bool) {
	return Answer{Allowed: true, Tenant: p.of(name)}, true
}

func TestManager_ATenantsNamesCountTogetherWhateverTheirDomains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Permission = &tenants{of: func(name string) string { return name[:4] }}
		h.set.Budget = Budget{Tenant: Limit{2, time.Hour}}
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

func TestManager_SaysForWhichBudgetANameWaitsUntilItIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).listing("a.example.com", "b.example.com", "c.example.com")
		h.set.Budget = Budget{Domain: Limit{2, 7 * day}}
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

func FuzzLedger(f *testing.F) {
	f.Add([]byte(`{"accounts":{"ca":[{"end":946684800000,"new":3,"renewal":-1},{"end":-5,"new":99999999999}]}}`))
	f.Add([]byte(`{"accounts":{"ca":null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		store := storage.NewMemory()
		if _, err := store.Put(t.Context(), ledgerObject(budgetOrders, "ca"), data); err != nil {
			t.Fatal(err)
		}
		b, paid := newBudgets(store, quiet()), 0
		for range 2 * threeHours.Count {
			if _, err := b.pay(t.Context(), chargeOf(threeHours, true), false); err == nil {
				paid++
			}
		}
		if paid > threeHours.Count {
			t.Errorf("%d paid", paid)
		}
	})
}

func BenchmarkBudgets_PayAndRefund(b *testing.B) {
	budgets := newBudgets(storage.NewMemory(), quiet())
	c := chargeOf(Limit{Count: 1 << 20, Per: 30 * 24 * time.Hour}, true)
	b.ReportAllocs()
	for b.Loop() {
		r, err := budgets.pay(b.Context(), c, false)
		if err != nil {
			b.Fatal(err)
		}
		r.refund()
	}
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
