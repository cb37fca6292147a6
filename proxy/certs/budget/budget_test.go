package budget

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

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
	b    *Purses
	kill context.CancelFunc
	done chan struct{}
}

func startNode(store storage.Store) *node {
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{b: New(store, zap.NewNop(), func(*Error) {}), kill: cancel, done: make(chan struct{})}
	go func() {
		defer close(n.done)
		n.b.GiveBack(ctx)
	}()
	return n
}

func (n *node) stop() { n.kill(); <-n.done }

func chargeOf(limit Limit, renewal bool) Charge {
	return Charge{Budget: "new_orders", Account: "ca", Subject: "CA ca", Object: "budget/new_orders/ca", Limit: limit, Reserve: limit.Count * 3 / 10, Renewal: renewal}
}

func TestPurses_AFleetNeverSpendsMoreThanItsLimit(t *testing.T) {
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
					r, err := fleet[i].b.Pay(t.Context(), chargeOf(threeHours, random.IntN(3) == 0), false)
					if err == nil && random.IntN(20) == 0 {
						r.Refund()
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

func TestPurses_NearlyTheWholeLimitCanBeSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storage.NewMemory()
		fleet := []*node{startNode(store), startNode(store), startNode(store)}
		spent := 0
		for began := time.Now(); time.Since(began) < 30*time.Hour; time.Sleep(30 * time.Second) {
			for _, n := range fleet {
				if _, err := n.b.Pay(t.Context(), chargeOf(threeHours, true), false); err == nil {
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

func TestPurses_ALowerLimitHoldsAtOnceThoughMoreWasTakenBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(storage.NewMemory())
		defer n.stop()
		if _, err := n.b.Pay(t.Context(), chargeOf(threeHours, false), false); err != nil {
			t.Fatal(err)
		}
		paid := 0
		for range 5 {
			if _, err := n.b.Pay(t.Context(), chargeOf(Limit{Count: 2, Per: time.Minute}, false), false); err == nil {
				paid++
			}
		}
		if paid > 2 {
			t.Errorf("%d spent under a limit of 2", paid)
		}
		time.Sleep(2 * time.Minute)
		if _, err := n.b.Pay(t.Context(), chargeOf(Limit{Count: 2, Per: time.Minute}, false), false); err != nil {
			t.Errorf("after the limit's time: %v", err)
		}
	})
}

func TestPurses_ALimitWithinASecondHoldsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(storage.NewMemory())
		defer n.stop()
		var s spendings
		for range 600 {
			if _, err := n.b.Pay(t.Context(), chargeOf(Limit{Count: 2, Per: time.Second}, true), false); err == nil {
				s.note()
			}
			time.Sleep(100 * time.Millisecond)
		}
		if most := s.most(time.Second); most != 2 {
			t.Errorf("%d spent within a second, want 2", most)
		}
	})
}

func TestPurses_NewNamesLeaveTheReserveToRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(storage.NewMemory())
		defer n.stop()
		spend := func(renewal bool) (count int) {
			for range 300 {
				if _, err := n.b.Pay(t.Context(), chargeOf(threeHours, renewal), false); err == nil {
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

func TestPurses_WithoutStorageOnlyWhatIsHeldCanBeSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storagetest.NewFaulty(storage.NewMemory())
		n := startNode(store)
		pay := func() error { _, err := n.b.Pay(t.Context(), chargeOf(threeHours, true), false); return err }
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
		err := pay()
		if _, refused := errors.AsType[*Error](err); err == nil || refused {
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

func TestPurses_WhatAProcessDoesNotSpendOthersGet(t *testing.T) {
	for _, how := range []string{"it ends", "the slot ends"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := storage.NewMemory()
				first, second := startNode(store), startNode(store)
				if _, err := first.b.Pay(t.Context(), chargeOf(threeHours, true), false); err != nil {
					t.Fatal(err)
				}
				if how == "it ends" {
					first.stop()
				} else {
					defer first.stop()
					time.Sleep(threeHours.Slot() + 2*time.Second)
				}
				got := 0
				for {
					_, err := second.b.Pay(t.Context(), chargeOf(threeHours, true), false)
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

func TestPurses_ARefusalSaysWhenThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := startNode(storage.NewMemory())
		defer n.stop()
		c := chargeOf(Limit{Count: 3, Per: time.Hour}, true)
		for range 3 {
			if _, err := n.b.Pay(t.Context(), c, false); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
		}
		began := time.Now()
		_, err := n.b.Pay(t.Context(), c, false)
		e, refused := errors.AsType[*Error](err)
		if !refused || e.Budget != c.Budget || e.Limit != c.Limit {
			t.Fatalf("refused with %v", err)
		}
		if wait := e.Next.Sub(began); wait < 30*time.Minute || wait > 36*time.Minute {
			t.Errorf("there is room in %s, the first was spent half an hour ago", wait)
		}
		time.Sleep(time.Until(e.Next))
		if _, err := n.b.Pay(t.Context(), c, false); err != nil {
			t.Error(err)
		}
		if _, err := n.b.Pay(t.Context(), c, true); err != nil {
			t.Errorf("what replaces a compromised key was refused: %v", err)
		}
	})
}

func FuzzLedger(f *testing.F) {
	f.Add([]byte(`{"accounts":{"ca":[{"end":946684800000,"new":3,"renewal":-1},{"end":-5,"new":99999999999}]}}`))
	f.Add([]byte(`{"accounts":{"ca":null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		store := storage.NewMemory()
		if _, err := store.Put(t.Context(), chargeOf(threeHours, true).Object, data); err != nil {
			t.Fatal(err)
		}
		b, paid := New(store, zap.NewNop(), func(*Error) {}), 0
		for range 2 * threeHours.Count {
			if _, err := b.Pay(t.Context(), chargeOf(threeHours, true), false); err == nil {
				paid++
			}
		}
		if paid > threeHours.Count {
			t.Errorf("%d paid", paid)
		}
	})
}

func BenchmarkPurses_PayAndRefund(b *testing.B) {
	purses := New(storage.NewMemory(), zap.NewNop(), func(*Error) {})
	c := chargeOf(Limit{Count: 1 << 20, Per: 30 * 24 * time.Hour}, true)
	b.ReportAllocs()
	for b.Loop() {
		r, err := purses.Pay(b.Context(), c, false)
		if err != nil {
			b.Fatal(err)
		}
		r.Refund()
	}
}
