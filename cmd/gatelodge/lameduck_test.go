package main

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestReadiness_WaitsUntilEveryBalancerHasHeardNo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r readiness
		if r.check("10.0.0.1") != nil || r.check("10.0.0.2") != nil {
			t.Fatal("not ready")
		}
		ctx, stop := context.WithCancel(t.Context())
		var balancers sync.WaitGroup
		balancers.Go(func() { // one asks every second, the other every two
			for i := 1; ctx.Err() == nil; i++ {
				time.Sleep(time.Second)
				_ = r.check("10.0.0.1")
				if i%2 == 0 {
					_ = r.check("10.0.0.2")
				}
			}
		})
		begin := time.Now()
		r.leave(t.Context(), 20*time.Second)
		if took := time.Since(begin); took != 6*time.Second {
			t.Errorf("left after %v, want 6 s: three answers to the slower one", took)
		}
		if r.check("10.0.0.3") == nil {
			t.Error("ready while draining")
		}
		stop()
		balancers.Wait()
	})
}

func TestReadiness_WaitsForNobodyWhereNobodyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r readiness
		_ = r.check("10.0.0.1")
		time.Sleep(2 * askerAge) // who asked once is no balancer
		begin := time.Now()
		r.leave(t.Context(), 20*time.Second)
		if took := time.Since(begin); took != 0 {
			t.Errorf("waited %v for nobody", took)
		}
	})
}

func TestReadiness_LeavesAtItsLimitAndWhenItIsToldTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r readiness
		_ = r.check("10.0.0.1") // and never again
		begin := time.Now()
		r.leave(t.Context(), 5*time.Second)
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("left after %v, want 5 s", took)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		begin = time.Now()
		r.leave(ctx, time.Hour)
		if took := time.Since(begin); took != time.Second {
			t.Errorf("a second signal ended it after %v", took)
		}
	})
}

func TestReadiness_RemembersAsManyAsItMay(t *testing.T) {
	var r readiness
	for i := range 10 * maxAskers {
		_ = r.check(string(rune('a' + i)))
	}
	if len(r.asked) > maxAskers {
		t.Errorf("%d are remembered", len(r.asked))
	}
}
