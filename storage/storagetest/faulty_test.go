package storagetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage"
)

func TestFaulty_FailsAsItsTableSays(t *testing.T) {
	ctx := t.Context()
	disk := errors.New("disk on fire")
	inner := storage.NewMemory()
	f := NewFaulty(inner,
		Fault{Op: Put, Prefix: "certs/", Skip: 1, Times: 2, Err: disk},
		Fault{Op: PutIf, Applied: true},
		Fault{Prefix: "gone/"},
	)
	for i, want := range []error{nil, disk, disk, nil} {
		if _, err := f.Put(ctx, "certs/a", []byte{byte(i)}); !errors.Is(err, want) {
			t.Errorf("put %d: %v, want %v", i, err, want)
		}
	}
	if _, err := f.Put(ctx, "other/a", nil); err != nil {
		t.Errorf("a name that is not meant: %v", err)
	}
	if v, err := f.PutIf(ctx, "certs/b", []byte("b"), ""); !errors.Is(err, ErrInjected) || v != "" {
		t.Errorf("applied: %q, %v", v, err)
	}
	if data, _, err := f.Get(ctx, "certs/b"); string(data) != "b" {
		t.Errorf("after failed but applied: %q, %v", data, err)
	}
	if _, err := f.PutIf(ctx, "certs/b", nil, ""); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("the store's own error: %v", err)
	}
	if _, err := f.Lease(ctx, "gone/a"); !errors.Is(err, ErrInjected) {
		t.Errorf("lease: %v", err)
	}
	f.Set()
	if _, _, err := f.Get(ctx, "gone/a"); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("after Set: %v", err)
	}
	if n := f.Count(Put, "certs/"); n != 4 {
		t.Errorf("%d puts counted", n)
	}
	if n := f.Count("", ""); n != len(f.Calls()) || n != 10 {
		t.Errorf("%d calls counted", n)
	}
}

func TestFaulty_WaitsAndHangsUntilTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var struck int
		f := NewFaulty(storage.NewMemory(),
			Fault{Op: Get, Prefix: "slow/", Latency: time.Minute},
			Fault{Op: Get, Prefix: "stuck/", Hang: true},
			Fault{Op: Get, Prefix: "seen/", Then: func() { struck++ }},
			Fault{Op: Put, Latency: time.Second, Err: ErrInjected},
		)
		timed := func(what string, took time.Duration, want error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			start := time.Now()
			_, _, err := f.Get(ctx, what)
			if got := time.Since(start); got != took || !errors.Is(err, want) {
				t.Errorf("%s took %v with error %v, want %v with %v", what, got, err, took, want)
			}
		}
		timed("slow/a", time.Minute, storage.ErrNotExist)
		timed("stuck/a", time.Hour, context.DeadlineExceeded)
		timed("seen/a", 0, storage.ErrNotExist)
		if struck != 1 {
			t.Errorf("Then was called %d times", struck)
		}
		if _, err := f.Put(t.Context(), "a/b", nil); !errors.Is(err, ErrInjected) {
			t.Errorf("late failure: %v", err)
		}
	})
}

func TestFaulty_LosesLeases(t *testing.T) {
	f := NewFaulty(storage.NewMemory())
	lost := must(f.Lease(t.Context(), "issue/a"))(t)
	kept := must(f.Lease(t.Context(), "other/a"))(t)
	f.LoseLeases("issue/")
	if cause := context.Cause(lost.Context()); cause != storage.ErrLeaseLost {
		t.Errorf("cause %v", cause)
	}
	if kept.Context().Err() != nil {
		t.Error("the other lease was lost too")
	}
	next := must(f.Lease(t.Context(), "issue/a"))(t)
	if next.Fence() <= lost.Fence() {
		t.Errorf("fence %d after %d", next.Fence(), lost.Fence())
	}
	must(0, lost.Release(t.Context()))(t)
	if next.Context().Err() != nil {
		t.Error("releasing a lost lease took it from the next holder")
	}
	must(0, next.Release(t.Context()))(t)
	must(0, kept.Release(t.Context()))(t)
}

func TestFaulty_IsSafeForConcurrentUse(t *testing.T) {
	f := NewFaulty(storage.NewMemory(), Fault{Op: Put, Skip: 100, Times: 50})
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed := 0
	for range 20 {
		wg.Go(func() {
			for range 10 {
				if _, err := f.Put(t.Context(), "a/b", nil); err != nil {
					mu.Lock()
					failed++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if failed != 50 {
		t.Errorf("%d calls failed, want 50", failed)
	}
}
