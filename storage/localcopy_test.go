package storage_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func localCopy(t testing.TB, inner, local storage.Store, cfg storage.LocalCopyConfig) *storage.LocalCopy {
	t.Helper()
	l := storage.NewLocalCopy(inner, local, cfg, zaptest.NewLogger(t))
	t.Cleanup(func() { l.Close() })
	return l
}

func TestLocalCopy_KeepsTheContract(t *testing.T) {
	t.Run("Memory", func(t *testing.T) {
		storagetest.Run(t, func(t *testing.T) storage.Store {
			return localCopy(t, storage.NewMemory(), storage.NewMemory(), storage.LocalCopyConfig{Prefixes: []string{""}})
		})
	})
	t.Run("UnderSealedOnDisk", func(t *testing.T) {
		storagetest.Run(t, func(t *testing.T) storage.Store {
			l := localCopy(t, openDisk(t, t.TempDir()), openDisk(t, t.TempDir()), storage.LocalCopyConfig{})
			return withoutCanary{sealed(t, l, true, sealKey("k"))}
		})
	})
	t.Run("OverSealed", func(t *testing.T) {
		storagetest.Run(t, func(t *testing.T) storage.Store {
			key := sealKey("k")
			return localCopy(t, withoutCanary{sealed(t, storage.NewMemory(), true, key)}, sealed(t, storage.NewMemory(), true, key), storage.LocalCopyConfig{})
		})
	})
}

// away is a fault by which everything fails.
var away = storagetest.Fault{Err: errors.New("the bucket is away")}

// settled waits for copies that are written in the background.
func settled(t *testing.T, local storage.Store, name string) {
	t.Helper()
	for range 1000 {
		if _, _, err := local.Get(t.Context(), name); err == nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%s was not copied", name)
}

func TestLocalCopy_ServesInAnOutageWhatWasReadOrWritten(t *testing.T) {
	bucket, local := storagetest.NewFaulty(storage.NewMemory()), storage.NewMemory()
	put(t, bucket, "certs/read.example", "read")
	put(t, bucket, "certs/unread.example", "unread")
	put(t, bucket, "failures/read.example", "not copied")
	l := localCopy(t, bucket, local, storage.LocalCopyConfig{})
	_, v := get(t, l, "certs/read.example")
	get(t, l, "failures/read.example")
	put(t, l, "certs/written.example", "written")
	settled(t, local, "certs/read.example")

	bucket.Set(away)
	again := localCopy(t, bucket, local, storage.LocalCopyConfig{}) // as after a restart
	for _, s := range []storage.Store{l, again} {
		got, stale := get(t, s, "certs/read.example")
		if got != "read" || stale == v || !stale.Stale() || v.Stale() {
			t.Errorf("read.example: %q at %q", got, stale)
		}
		if got, _ := get(t, s, "certs/written.example"); got != "written" {
			t.Errorf("written.example: %q", got)
		}
		for _, name := range []string{"certs/unread.example", "failures/read.example"} {
			if _, _, err := s.Get(t.Context(), name); !errors.Is(err, away.Err) || errors.Is(err, storage.ErrNotExist) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := s.Put(t.Context(), "certs/read.example", []byte("x")); !errors.Is(err, away.Err) {
			t.Errorf("put: %v", err)
		}
		if _, err := s.Lease(t.Context(), "issue/read.example"); !errors.Is(err, away.Err) {
			t.Errorf("lease: %v", err)
		}
		if got, _ := get(t, s, "certs/read.example"); got != "read" {
			t.Errorf("after a write that failed: %q", got)
		}
	}
	bucket.Set()
	if got, v := get(t, l, "certs/read.example"); got != "read" || v.Stale() {
		t.Errorf("back again: %q at %q", got, v)
	}
}

func TestLocalCopy_NothingIsDecidedFromAStaleCopy(t *testing.T) {
	bucket := storagetest.NewFaulty(storage.NewMemory())
	l := localCopy(t, bucket, storage.NewMemory(), storage.LocalCopyConfig{})
	put(t, l, "certs/a.example", "damaged bundle")
	bucket.Set(storagetest.Fault{Op: storagetest.Get, Err: away.Err})
	_, stale := get(t, l, "certs/a.example")
	bucket.Set()
	if _, err := l.PutIf(t.Context(), "certs/a.example", []byte("x"), stale); !errors.Is(err, storage.ErrStale) || errors.Is(err, storage.ErrConflict) {
		t.Errorf("put-if: %v", err)
	}
	if err := l.DeleteIf(t.Context(), "certs/a.example", stale); !errors.Is(err, storage.ErrStale) || errors.Is(err, storage.ErrConflict) {
		t.Errorf("delete-if: %v", err)
	}
	bucket.Set(away)
	_, _, err := storage.LoadBundle(t.Context(), l, "certs/a.example", zap.NewNop())
	if err == nil || errors.Is(err, storage.ErrNotExist) {
		t.Errorf("load: %v", err)
	}
	bucket.Set()
	if got, _ := get(t, l, "certs/a.example"); got != "damaged bundle" {
		t.Errorf("the object: %q", got)
	}
	if names, _ := bucket.List(t.Context(), "quarantine/", "", 0); len(names) > 0 {
		t.Errorf("quarantined because of a copy: %q", names)
	}
}

func TestLocalCopy_NeverBringsBackWhatIsGoneOrReplaced(t *testing.T) {
	const name = "certs/a.example"
	for what, change := range map[string]func(t *testing.T, l *storage.LocalCopy, bucket storage.Store){
		"deleted by us": func(t *testing.T, l *storage.LocalCopy, _ storage.Store) {
			if err := l.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		},
		"deleted by version": func(t *testing.T, l *storage.LocalCopy, _ storage.Store) {
			_, v := get(t, l, name)
			if err := l.DeleteIf(t.Context(), name, v); err != nil {
				t.Fatal(err)
			}
		},
		"seen to be gone": func(t *testing.T, l *storage.LocalCopy, bucket storage.Store) {
			if err := bucket.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			if _, _, err := l.Get(t.Context(), name); !errors.Is(err, storage.ErrNotExist) {
				t.Fatal(err)
			}
		},
		"seen to be another's": func(t *testing.T, l *storage.LocalCopy, bucket storage.Store) {
			_, v := get(t, l, name)
			put(t, bucket, name, "new")
			if _, err := l.PutIf(t.Context(), name, []byte("mine"), v); !errors.Is(err, storage.ErrConflict) {
				t.Fatal(err)
			}
		},
		"replaced by us": func(t *testing.T, l *storage.LocalCopy, _ storage.Store) { put(t, l, name, "new") },
		"seen to be replaced": func(t *testing.T, l *storage.LocalCopy, bucket storage.Store) {
			put(t, bucket, name, "new")
			get(t, l, name)
		},
		"deletion half failed": func(t *testing.T, l *storage.LocalCopy, bucket storage.Store) { bucketFails(t, l, bucket, name) },
	} {
		t.Run(what, func(t *testing.T) {
			bucket, local := storagetest.NewFaulty(storage.NewMemory()), storage.NewMemory()
			l := localCopy(t, bucket, local, storage.LocalCopyConfig{})
			put(t, l, name, "old")
			change(t, l, bucket)
			bucket.Set(away)
			for _, s := range []storage.Store{l, localCopy(t, bucket, local, storage.LocalCopyConfig{})} {
				if data, _, err := s.Get(t.Context(), name); err == nil && string(data) != "new" {
					t.Errorf("%q is served", data)
				}
			}
		})
	}
}

func bucketFails(t *testing.T, l *storage.LocalCopy, bucket storage.Store, name string) {
	bucket.(*storagetest.Faulty).Set(storagetest.Fault{Op: storagetest.Delete, Applied: true})
	if err := l.Delete(t.Context(), name); err == nil {
		t.Fatal("the failure is not told")
	}
}

func TestLocalCopy_ACopyThatCannotBeRemovedIsNotServed(t *testing.T) {
	bucket, local := storagetest.NewFaulty(storage.NewMemory()), storagetest.NewFaulty(storage.NewMemory())
	l := localCopy(t, bucket, local, storage.LocalCopyConfig{})
	put(t, l, "certs/a.example", "old")
	put(t, bucket, "certs/a.example", "new")
	local.Set(storagetest.Fault{Op: storagetest.Put}, storagetest.Fault{Op: storagetest.Delete})
	get(t, l, "certs/a.example")
	bucket.Set(away)
	if data, _, err := l.Get(t.Context(), "certs/a.example"); err == nil {
		t.Errorf("%q is served", data)
	}
	bucket.Set()
	if err := l.Delete(t.Context(), "certs/a.example"); err == nil {
		t.Error("a delete that left the copy is told as done")
	}
}

func TestLocalCopy_TroubleOfTheLocalDiskCostsOnlyCopies(t *testing.T) {
	bucket, local := storagetest.NewFaulty(storage.NewMemory()), storagetest.NewFaulty(storage.NewMemory(), storagetest.Fault{})
	l := localCopy(t, bucket, local, storage.LocalCopyConfig{})
	put(t, l, "certs/a.example", "a")
	if got, v := get(t, l, "certs/a.example"); got != "a" || v.Stale() {
		t.Errorf("%q at %q", got, v)
	}
	if _, _, err := l.Get(t.Context(), "certs/b.example"); !errors.Is(err, storage.ErrNotExist) {
		t.Error(err)
	}
	bucket.Set(away)
	if _, _, err := l.Get(t.Context(), "certs/a.example"); !errors.Is(err, away.Err) {
		t.Errorf("the store's own error: %v", err)
	}
}

func TestLocalCopy_DamagedOrForeignCopiesAreNotUsed(t *testing.T) {
	bucket, local := storagetest.NewFaulty(storage.NewMemory()), storage.NewMemory()
	l := localCopy(t, bucket, local, storage.LocalCopyConfig{Of: "bucket one"})
	put(t, l, "certs/a.example", "a")
	put(t, l, "certs/b.example", "b")
	put(t, local, "certs/b.example", "what is this?")
	bucket.Set(away)
	get(t, l, "certs/a.example")
	if _, _, err := l.Get(t.Context(), "certs/b.example"); !errors.Is(err, away.Err) {
		t.Errorf("damaged: %v", err)
	}
	other := localCopy(t, bucket, local, storage.LocalCopyConfig{Of: "bucket two"})
	if data, _, err := other.Get(t.Context(), "certs/a.example"); !errors.Is(err, away.Err) {
		t.Errorf("another bucket's copy: %q, %v", data, err)
	}
}

func TestLocalCopy_AHangingStoreIsNotWaitedForTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, local := storagetest.NewFaulty(storage.NewMemory()), storage.NewMemory()
		l := localCopy(t, bucket, local, storage.LocalCopyConfig{})
		put(t, l, "certs/a.example", "a")
		put(t, l, "certs/b.example", "b")
		bucket.Set(storagetest.Fault{Hang: true})
		timed := func(name string, most time.Duration, stale bool) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			start := time.Now()
			_, v, err := l.Get(ctx, name)
			if took := time.Since(start); took > most || v.Stale() != stale {
				t.Errorf("%s: %q after %v, %v", name, v, took, err)
			}
		}
		timed("certs/a.example", 400*time.Millisecond, true)
		timed("certs/b.example", 0, true)
		timed("certs/none.example", 400*time.Millisecond, false)
		bucket.Set()
		timed("certs/b.example", 0, true)
		time.Sleep(3 * time.Second) // the bubble's time
		timed("certs/b.example", 0, false)
		l.Close()
	})
}

func TestLocalCopy_IsBoundedByAgeAndNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket, local := storagetest.NewFaulty(storage.NewMemory()), storage.NewMemory()
		l := localCopy(t, bucket, local, storage.LocalCopyConfig{MaxAge: 10 * 24 * time.Hour, MaxObjects: 20})
		put(t, l, "certs/old.example", "old")
		put(t, l, "certs/used.example", "used")
		for day := range 12 {
			time.Sleep(25 * time.Hour)
			get(t, l, "certs/used.example")
			put(t, l, fmt.Sprintf("certs/day%d.example", day), "x")
			synctest.Wait()
		}
		names := func() int {
			all, err := local.List(t.Context(), "", "", 0)
			if err != nil {
				t.Fatal(err)
			}
			return len(all)
		}
		if _, _, err := local.Get(t.Context(), "certs/old.example"); !errors.Is(err, storage.ErrNotExist) {
			t.Errorf("a copy that was not confirmed for 12 days: %v", err)
		}
		for i := range 100 {
			put(t, l, fmt.Sprintf("certs/n%d.example", i), "x")
			time.Sleep(time.Minute)
			synctest.Wait()
			if n := names(); n > 21 {
				t.Fatalf("%d copies", n)
			}
		}
		if n := names(); n < 18 {
			t.Errorf("%d copies, 20 may be", n)
		}
		bucket.Set(away)
		get(t, l, "certs/n99.example")
		l.Close()
	})
}

// farStore answers late: what it read or did may be old by the time that its caller hears of it.
type farStore struct{ *storage.Memory }

func (s farStore) Get(ctx context.Context, name string) ([]byte, storage.Version, error) {
	defer s.travel()
	s.travel()
	return s.Memory.Get(ctx, name)
}

func (s farStore) PutIf(ctx context.Context, name string, data []byte, v storage.Version) (storage.Version, error) {
	defer s.travel()
	s.travel()
	return s.Memory.PutIf(ctx, name, data, v)
}

func (s farStore) Delete(ctx context.Context, name string) error {
	defer s.travel()
	s.travel()
	return s.Memory.Delete(ctx, name)
}

func (farStore) travel() { time.Sleep(rand.N(100 * time.Millisecond)) }

func TestLocalCopy_AgreesWithTheStoreWhateverOverlaps(t *testing.T) {
	for range 300 { // short runs: what comes later would mend what went wrong
		synctest.Test(t, func(t *testing.T) {
			bucket, local := storage.NewMemory(), storage.NewMemory()
			l := storage.NewLocalCopy(farStore{bucket}, farStore{local}, storage.LocalCopyConfig{}, nil)
			var wg sync.WaitGroup
			for w := range 6 {
				wg.Go(func() {
					for i := range 4 {
						actAtRandom(t.Context(), l, bucket, fmt.Sprintf("certs/n%d.example", rand.N(2)), fmt.Sprint(w, i))
					}
				})
			}
			wg.Wait()
			l.Close() // waits for the background
			for _, name := range []string{"certs/n0.example", "certs/n1.example"} {
				checkCopy(t, bucket, local, name)
			}
		})
	}
}

// actAtRandom does something with the object, through the copy, or as another node without it, which the copy then hears of.
func actAtRandom(ctx context.Context, l *storage.LocalCopy, bucket storage.Store, name, data string) {
	switch rand.N(6) {
	case 0, 1:
		_, _, _ = l.Get(ctx, name)
	case 2, 3:
		_, v, _ := l.Get(ctx, name)
		_, _ = l.PutIf(ctx, name, []byte(data), v)
	case 4:
		_ = l.Delete(ctx, name)
	case 5:
		_, _ = bucket.Put(ctx, name, []byte("by another node "+data))
		_, _, _ = l.Get(ctx, name)
	}
}

// checkCopy checks that the copy, if there is one, is the object.
func checkCopy(t *testing.T, bucket, local storage.Store, name string) {
	data, _, err := local.Get(t.Context(), name)
	if err != nil {
		return
	}
	_, copied, _ := strings.Cut(string(data), "\n")
	if now, _, err := bucket.Get(t.Context(), name); err != nil || string(now) != copied {
		t.Errorf("%s: the copy is %q, the object %q, %v", name, copied, now, err)
	}
}

func TestLocalCopy_LetsASealedStoreStartWithoutTheBucket(t *testing.T) {
	bucket, dir, key := storagetest.NewFaulty(storage.NewMemory()), t.TempDir(), sealKey("k")
	disk := openDisk(t, dir)
	l := localCopy(t, bucket, disk, storage.LocalCopyConfig{})
	put(t, sealed(t, l, true, key), "certs/a.example", "the secret")
	settled(t, disk, "keys/canary")
	l.Close()

	bucket.Set(away)
	s := sealed(t, localCopy(t, bucket, disk, storage.LocalCopyConfig{}), true, key)
	if got, v := get(t, s, "certs/a.example"); got != "the secret" || !v.Stale() {
		t.Errorf("%q at %q", got, v)
	}
	if raw, _ := get(t, disk, "certs/a.example"); strings.Contains(raw, "the secret") {
		t.Error("the copy lies in clear")
	}
	wrong := storage.SealConfig{Keys: []storage.SealKey{sealKey("k")}}
	if _, err := storage.NewSealed(t.Context(), localCopy(t, bucket, disk, storage.LocalCopyConfig{}), wrong, nil); err == nil {
		t.Error("a wrong key was taken because the bucket is away")
	}
}
