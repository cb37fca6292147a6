package storage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func rekey(t *testing.T, s *storage.Sealed, o storage.RekeyOptions) *storage.RekeyReport {
	t.Helper()
	report, err := s.Rekey(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestRekey_RotatesWhileOthersReadAndWrite(t *testing.T) {
	memory := storage.NewMemory()
	old, fresh := sealKey("old"), sealKey("fresh")
	before := sealed(t, memory, false, old)
	const names = 1200 // more than a page
	for i := range names {
		put(t, before, fmt.Sprintf("certs/n%d.example", i), "0")
	}
	put(t, memory, "failures/x.example", "in clear")
	put(t, before, "acme/challenges/00", "public")
	s := sealed(t, memory, false, fresh, old)
	if r := rekey(t, s, storage.RekeyOptions{Check: true}); r.Keys["old"] != names || r.Plaintext != 1 || r.Clear != 2 || r.Rewritten != 0 || r.Done() {
		t.Fatalf("check before:\n%v", r)
	}

	var wg sync.WaitGroup
	stop := make(chan struct{})
	writes := make([]int, 4)
	for w := range writes {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := addOne(t.Context(), s, fmt.Sprintf("certs/n%d.example", i%names)); err != nil {
					t.Error(err)
					return
				}
				writes[w]++
			}
		})
	}
	r := rekey(t, s, storage.RekeyOptions{Parallel: 4})
	close(stop)
	wg.Wait()
	if r.Keys["fresh"] != names+1 || len(r.Keys) != 1 || r.Plaintext != 0 || !r.Done() {
		t.Errorf("after:\n%v", r)
	}
	if r := rekey(t, s, storage.RekeyOptions{Check: true}); !r.Done() || r.Rewritten != 0 {
		t.Errorf("check after:\n%v", r)
	}

	only := sealed(t, memory, true, fresh) // the old key is no longer needed
	sum := 0
	for i := range names {
		data, _ := get(t, only, fmt.Sprintf("certs/n%d.example", i))
		n := 0
		fmt.Sscan(data, &n)
		sum += n
	}
	if want := writes[0] + writes[1] + writes[2] + writes[3]; sum != want {
		t.Errorf("%d writes are in the objects, %d were made", sum, want)
	}
}

func addOne(ctx context.Context, s storage.Store, name string) error {
	for {
		data, v, err := s.Get(ctx, name)
		if err != nil {
			return err
		}
		n := 0
		fmt.Sscan(string(data), &n)
		if _, err = s.PutIf(ctx, name, fmt.Append(nil, n+1), v); !errors.Is(err, storage.ErrConflict) {
			return err
		}
	}
}

func TestRekey_ReportsWhatItCannotOpenAndLeavesIt(t *testing.T) {
	memory := storage.NewMemory()
	lost, key := sealKey("lost"), sealKey("k")
	put(t, sealed(t, memory, false, lost), "certs/lost.example", "x")
	s := sealed(t, memory, false, key)
	put(t, s, "certs/a.example", "x")
	stored, _ := get(t, memory, "certs/a.example")
	put(t, memory, "certs/damaged.example", stored[:len(stored)-1])
	r := rekey(t, s, storage.RekeyOptions{})
	if r.Done() || r.Keys["lost"] != 1 || fmt.Sprint(r.Unknown, r.Damaged) != "[certs/lost.example] [certs/damaged.example]" {
		t.Errorf("report:\n%v", r)
	}
	if out := r.String(); !strings.Contains(out, "damaged: certs/damaged.example") || !strings.Contains(out, "key not in the ring: certs/lost.example") {
		t.Errorf("report:\n%s", out)
	}
	if err := memory.Delete(t.Context(), "certs/lost.example"); err != nil {
		t.Fatal(err)
	}
	if err := memory.Delete(t.Context(), "certs/damaged.example"); err != nil {
		t.Fatal(err)
	}
	if r := rekey(t, s, storage.RekeyOptions{}); !r.Done() {
		t.Errorf("report:\n%v", r)
	}
	if canary, _ := get(t, memory, "keys/canary"); strings.Contains(canary, "lost") {
		t.Error("the canary still knows a key that seals nothing")
	}
}

func TestRekey_EndsWithTheFirstOutageAndGoesOnWhenCalledAgain(t *testing.T) {
	memory := storage.NewMemory()
	old, fresh := sealKey("old"), sealKey("fresh")
	before := sealed(t, memory, false, old)
	for i := range 50 {
		put(t, before, fmt.Sprintf("certs/n%d.example", i), "x")
	}
	faulty := storagetest.NewFaulty(memory)
	s := sealed(t, faulty, false, fresh, old)
	faulty.Set(storagetest.Fault{Op: storagetest.PutIf, Skip: 20})
	if _, err := s.Rekey(t.Context(), storage.RekeyOptions{}); !errors.Is(err, storagetest.ErrInjected) {
		t.Fatalf("error %v", err)
	}
	faulty.Set()
	if r := rekey(t, s, storage.RekeyOptions{}); r.Rewritten != 30 || !r.Done() {
		t.Errorf("report:\n%v", r)
	}
	if _, err := sealed(t, storage.NewMemory(), false).Rekey(t.Context(), storage.RekeyOptions{}); err == nil {
		t.Error("rekey without a key")
	}
}
