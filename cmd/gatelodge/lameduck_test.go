package main

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// asks makes somebody ask so often, at that pause.
func (r *readiness) asks(from string, times int, pause time.Duration) {
	for range times {
		_ = r.check(from)
		time.Sleep(pause)
	}
}

func TestReadiness_WaitsUntilEveryBalancerHasHeardNo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r readiness
		var balancers sync.WaitGroup
		balancers.Go(func() { r.asks("10.0.0.1", 40, time.Second) })
		balancers.Go(func() { r.asks("10.0.0.2", 20, 2*time.Second) })
		time.Sleep(10*time.Second + time.Millisecond)
		begin := time.Now()
		r.leave(t.Context(), 20*time.Second)
		if took := time.Since(begin); took < 5*time.Second || took > 7*time.Second {
			t.Errorf("left after %v, want three answers to the slower one", took)
		}
		if r.check("10.0.0.3") == nil {
			t.Error("ready while draining")
		}
		balancers.Wait()
	})
}

func TestReadiness_WaitsForNobodyWhereNobodyAsks(t *testing.T) {
	for what, before := range map[string]func(r *readiness){
		"nobody asked":                   func(*readiness) {},
		"somebody asked once":            func(r *readiness) { _ = r.check("10.0.0.1") },
		"a script waited for the start":  func(r *readiness) { r.asks("10.0.0.1", 30, 100*time.Millisecond); time.Sleep(5 * time.Second) },
		"a balancer went away some time": func(r *readiness) { r.asks("10.0.0.1", 30, 2*time.Second); time.Sleep(10 * time.Second) },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r readiness
				before(&r)
				begin := time.Now()
				r.leave(t.Context(), 20*time.Second)
				if took := time.Since(begin); took != 0 {
					t.Errorf("waited %v for nobody", took)
				}
			})
		})
	}
}

func TestReadiness_LeavesWhenTheBalancerAsksNoMoreAndAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r readiness
		r.asks("10.0.0.1", 10, time.Second) // and never again
		begin := time.Now()
		r.leave(t.Context(), 20*time.Second)
		if took := time.Since(begin); took > missedToGo*time.Second {
			t.Errorf("left after %v, want to have noticed that nobody asks any more", took)
		}
		r = readiness{}
		r.asks("10.0.0.1", 3, 30*time.Second)
		begin = time.Now()
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
