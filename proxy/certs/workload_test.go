package certs

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestWorkload_CountsOrdersAndWhatTheyWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.set.InFlight = 2
		h.set.MaxWait = time.Second
		h.set.Budget = Budget{Orders: Limit{Count: 7, Per: 10 * time.Hour}, Domain: Limit{Count: 1, Per: 10 * time.Hour}}
		h.ca.fault = func(ctx context.Context, _ *Request) error {
			select {
			case <-time.After(time.Minute):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		h.open()
		want := func(when string, queued, running, parked, orders, domain int) {
			t.Helper()
			w := h.m.Workload()
			if w.Queued != queued || w.Running != running || w.Parked != parked || w.Withheld[budgetOrders] != orders || w.Withheld[budgetDomain] != domain {
				t.Errorf("%s: %+v", when, w)
			}
		}
		want("at first", 0, 0, 0, 0, 0)
		for i := range 5 {
			h.refuse(fmt.Sprintf("www.customer%d.com", i)) // nobody waits so long
		}
		want("when the CA is slow", 3, 2, 0, 0, 0)
		time.Sleep(time.Hour)
		want("when all are issued", 0, 0, 0, 0, 0)

		h.ca.failWith(nil)
		h.refuse("shop.customer0.com")
		want("when one's domain has had its share", 0, 0, 0, 0, 1)
		for i := range 4 {
			_, _ = h.hello(fmt.Sprintf("www.later%d.com", i))
		}
		want("when the account has had its share", 0, 0, 0, 2, 1)

		h.ca.failWith(&fakeFailure{scope: ScopeCA})
		time.Sleep(11 * time.Hour)
		if w := h.m.Workload(); w.Parked+w.Running != 3 || w.Withheld[budgetOrders] != 0 {
			t.Errorf("when the CA fails: %+v", w)
		}
	})
}
