// Package storagetest has the contract of storage.Store as tests that every backend passes, and a store that fails on demand. It is for tests only.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatelodge/storage"
)

// Run tests each sentence of the contract on a store of its own, which open makes empty and t.Cleanup closes.
func Run(t *testing.T, open func(t *testing.T) storage.Store) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s storage.Store)
	}{
		{"GetReturnsWhatWasPut", getReturnsWhatWasPut},
		{"AbsentIsErrNotExist", absentIsErrNotExist},
		{"EveryWriteHasItsOwnVersion", everyWriteHasItsOwnVersion},
		{"BytesAreNotShared", bytesAreNotShared},
		{"PutIfWritesOnlyAtTheGivenVersion", putIfWritesOnlyAtVersion},
		{"DeleteRemovesAndToleratesAbsence", deleteRemoves},
		{"NamesAreChecked", namesAreChecked},
		{"NamesOfEveryFormAreKeptApart", namesAreKeptApart},
		{"LargeObjectsUpToTheBound", largeObjects},
		{"ListIsInByteOrderByPages", listByPages},
		{"ListTakesAnyPrefix", listTakesAnyPrefix},
		{"EndedContextDoesNothing", endedContextDoesNothing},
		{"OneWinnerPerVersion", oneWinnerPerVersion},
		{"NoUpdateIsLost", noUpdateIsLost},
		{"ReadersSeeWholeObjects", readersSeeWholeObjects},
		{"LeaseExcludes", leaseExcludes},
		{"LeasesOfDifferentNamesDoNot", leasesOfDifferentNames},
		{"FenceGrows", fenceGrows},
		{"LeaseWaitEndsWithContext", leaseWaitEndsWithContext},
		{"LeaseContextEnds", leaseContextEnds},
		{"ReleaseHandsOver", releaseHandsOver},
		{"SalvagerRemovesOneVersion", salvagerRemovesOneVersion},
		{"QuarantineKeepsTheBytes", quarantineKeepsTheBytes},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func put(t *testing.T, s storage.Store, name, data string) storage.Version {
	t.Helper()
	return must(s.Put(t.Context(), name, []byte(data)))(t)
}

func get(t *testing.T, s storage.Store, name string) (string, storage.Version) {
	t.Helper()
	data, v, err := s.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data), v
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want one that wraps %q", what, err, want)
	}
}

func getReturnsWhatWasPut(t *testing.T, s storage.Store) {
	for _, data := range []string{"first", "", "\x00\xff\n", "third, longer than the others"} {
		v := put(t, s, "certs/a.example", data)
		got, gotV := get(t, s, "certs/a.example")
		if got != data || gotV != v || v == "" {
			t.Errorf("got %q at %q, want %q at %q", got, gotV, data, v)
		}
	}
}

func absentIsErrNotExist(t *testing.T, s storage.Store) {
	put(t, s, "certs/a.example", "x")
	for _, name := range []string{"certs/b.example", "certs/a.exampl", "certs/a.example.", "certs", "other/a.example", "certs/a.example/x"} {
		_, _, err := s.Get(t.Context(), name)
		wantErr(t, "get "+name, err, storage.ErrNotExist)
	}
}

func everyWriteHasItsOwnVersion(t *testing.T, s storage.Store) {
	seen := map[storage.Version]bool{}
	for range 10 {
		v := put(t, s, "a/b", "the same bytes")
		if seen[v] {
			t.Fatalf("version %q twice", v)
		}
		seen[v] = true
	}
	if err := s.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	if v := put(t, s, "a/b", "the same bytes"); seen[v] {
		t.Errorf("version %q again after Delete", v)
	}
}

func bytesAreNotShared(t *testing.T, s storage.Store) {
	mine := []byte("mine")
	must(s.Put(t.Context(), "a/b", mine))(t)
	mine[0] = 'X'
	yours, _, err := s.Get(t.Context(), "a/b")
	if err != nil {
		t.Fatal(err)
	}
	yours[1] = 'X'
	if got, _ := get(t, s, "a/b"); got != "mine" {
		t.Errorf("got %q", got)
	}
}

func putIfWritesOnlyAtVersion(t *testing.T, s storage.Store) {
	ctx := t.Context()
	_, err := s.PutIf(ctx, "a/b", []byte("x"), "no such version")
	wantErr(t, "absent object at a version", err, storage.ErrConflict)
	_, _, err = s.Get(ctx, "a/b")
	wantErr(t, "get after refused write", err, storage.ErrNotExist)

	v1 := must(s.PutIf(ctx, "a/b", []byte("one"), ""))(t)
	_, err = s.PutIf(ctx, "a/b", []byte("x"), "")
	wantErr(t, "create what exists", err, storage.ErrConflict)
	v2 := must(s.PutIf(ctx, "a/b", []byte("two"), v1))(t)
	_, err = s.PutIf(ctx, "a/b", []byte("x"), v1)
	wantErr(t, "stale version", err, storage.ErrConflict)
	if got, v := get(t, s, "a/b"); got != "two" || v != v2 || v1 == v2 {
		t.Errorf("got %q at %q, want two at %q", got, v, v2)
	}

	v3 := put(t, s, "a/b", "two")
	_, err = s.PutIf(ctx, "a/b", []byte("x"), v2)
	wantErr(t, "stale version, same bytes", err, storage.ErrConflict)
	if err := s.Delete(ctx, "a/b"); err != nil {
		t.Fatal(err)
	}
	_, err = s.PutIf(ctx, "a/b", []byte("x"), v3)
	wantErr(t, "version of a deleted object", err, storage.ErrConflict)
	must(s.PutIf(ctx, "a/b", []byte("again"), ""))(t)
}

func deleteRemoves(t *testing.T, s storage.Store) {
	put(t, s, "a/b", "x")
	put(t, s, "a/c", "y")
	for range 2 {
		if err := s.Delete(t.Context(), "a/b"); err != nil {
			t.Fatal(err)
		}
		_, _, err := s.Get(t.Context(), "a/b")
		wantErr(t, "get", err, storage.ErrNotExist)
	}
	if err := s.Delete(t.Context(), "never/was"); err != nil {
		t.Error(err)
	}
	if got, _ := get(t, s, "a/c"); got != "y" {
		t.Errorf("neighbour is %q", got)
	}
}

func namesAreChecked(t *testing.T, s storage.Store) {
	ctx := t.Context()
	for _, name := range []string{"", "/", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a/.b", "a b", "a\x00b", "a\\b", "a,b", "a~b", "ä",
		"a/" + strings.Repeat("x", 256), strings.Repeat("x/", 300)} {
		_, _, err := s.Get(ctx, name)
		wantErr(t, fmt.Sprintf("get %q", name), err, storage.ErrName)
		_, err = s.Put(ctx, name, nil)
		wantErr(t, fmt.Sprintf("put %q", name), err, storage.ErrName)
		_, err = s.PutIf(ctx, name, nil, "")
		wantErr(t, fmt.Sprintf("put-if %q", name), err, storage.ErrName)
		wantErr(t, fmt.Sprintf("delete %q", name), s.Delete(ctx, name), storage.ErrName)
		_, err = s.Lease(ctx, name)
		wantErr(t, fmt.Sprintf("lease %q", name), err, storage.ErrName)
	}
	if names, err := s.List(ctx, "", "", 0); err != nil || len(names) != 0 {
		t.Errorf("list: %q, %v", names, err)
	}
}

// oddNames are names that a backend might confuse, reorder or find too long, in byte order.
func oddNames() []string {
	names := []string{
		"a", "A", "certs/*.example.com", "certs/192.0.2.1", "certs/2001:db8::1", "certs/a.example", "certs/a.example.com", "certs/a-b.example",
		"acme/le/accounts/ops@example.com", "acme/le/orders/x_-=+y", "certs2/a.example",
		"certs/" + strings.Repeat("a", 253), "certs/" + strings.Repeat("a", 252) + "b",
		"acme/some-ca/challenges/" + strings.Repeat("b", 253), "acme/some-ca/challenges/" + strings.Repeat("b", 252) + "c",
		"long/" + strings.Repeat(strings.Repeat("s", 125)+"/", 4) + "e",
	}
	slices.Sort(names)
	return names
}

func namesAreKeptApart(t *testing.T, s storage.Store) {
	for _, name := range oddNames() {
		put(t, s, name, "data of "+name)
	}
	for _, name := range oddNames() {
		if got, _ := get(t, s, name); got != "data of "+name {
			t.Errorf("%s: got %q", name, got)
		}
	}
	if got := must(s.List(t.Context(), "", "", 0))(t); !slices.Equal(got, oddNames()) {
		t.Errorf("list:\n got %q\nwant %q", got, oddNames())
	}
	for _, name := range oddNames() {
		if err := s.Delete(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	if got := must(s.List(t.Context(), "", "", 0))(t); len(got) > 0 {
		t.Errorf("left over: %q", got)
	}
}

func largeObjects(t *testing.T, s storage.Store) {
	data := bytes.Repeat([]byte("0123456789abcdef"), storage.MaxObject/16)
	must(s.Put(t.Context(), "a/large", data))(t)
	if got, _ := get(t, s, "a/large"); got != string(data) {
		t.Errorf("got %d bytes, want %d", len(got), len(data))
	}
	if _, err := s.Put(t.Context(), "a/large", append(data, 'x')); err == nil {
		t.Error("an object beyond the bound was taken")
	}
	if got, _ := get(t, s, "a/large"); got != string(data) {
		t.Error("a refused write changed the object")
	}
}

func listByPages(t *testing.T, s storage.Store) {
	var want []string
	for i := range 25 {
		name := fmt.Sprintf("certs/n%02d.example", i)
		put(t, s, name, "x")
		want = append(want, name)
	}
	put(t, s, "certs-other/a", "x")
	put(t, s, "failures/n01.example", "x")
	for _, limit := range []int{1, 7, 25, 26, 0} {
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			page := must(s.List(t.Context(), "certs/", after, limit))(t)
			if limit > 0 && len(page) > limit {
				t.Fatalf("limit %d: page of %d", limit, len(page))
			}
			if got = append(got, page...); len(page) == 0 {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: got %q", limit, got)
		}
	}
	if got := must(s.List(t.Context(), "certs/", "certs/n23.examplf", 0))(t); !slices.Equal(got, want[24:]) {
		t.Errorf("after a name that is not there: %q", got)
	}
}

func listTakesAnyPrefix(t *testing.T, s storage.Store) {
	for _, name := range []string{"a/b", "a/bc", "a/c/d", "ab/c"} {
		put(t, s, name, "x")
	}
	for prefix, want := range map[string][]string{
		"": {"a/b", "a/bc", "a/c/d", "ab/c"}, "a": {"a/b", "a/bc", "a/c/d", "ab/c"}, "a/": {"a/b", "a/bc", "a/c/d"}, "a/b": {"a/b", "a/bc"},
		"a/c/": {"a/c/d"}, "a/c/d": {"a/c/d"}, "ab": {"ab/c"}, "b": nil, "a/d": nil, "no such/../": nil,
	} {
		if got := must(s.List(t.Context(), prefix, "", 0))(t); !slices.Equal(got, want) {
			t.Errorf("prefix %q: got %q, want %q", prefix, got, want)
		}
	}
}

func endedContextDoesNothing(t *testing.T, s storage.Store) {
	put(t, s, "a/b", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := s.Get(ctx, "a/b")
	wantErr(t, "get", err, context.Canceled)
	_, err = s.Put(ctx, "a/b", []byte("y"))
	wantErr(t, "put", err, context.Canceled)
	_, err = s.PutIf(ctx, "a/c", []byte("y"), "")
	wantErr(t, "put-if", err, context.Canceled)
	wantErr(t, "delete", s.Delete(ctx, "a/b"), context.Canceled)
	_, err = s.List(ctx, "", "", 0)
	wantErr(t, "list", err, context.Canceled)
	_, err = s.Lease(ctx, "a/b")
	wantErr(t, "lease", err, context.Canceled)
	if got, _ := get(t, s, "a/b"); got != "x" {
		t.Errorf("got %q", got)
	}
	_, _, err = s.Get(t.Context(), "a/c")
	wantErr(t, "get", err, storage.ErrNotExist)
}

func oneWinnerPerVersion(t *testing.T, s storage.Store) {
	const racers = 16
	v := storage.Version("")
	for round := range 10 {
		var wg sync.WaitGroup
		var wins atomic.Int32
		var winner atomic.Value
		for i := range racers {
			wg.Go(func() {
				data := fmt.Sprintf("round %d racer %d", round, i)
				is, err := s.PutIf(t.Context(), "race/a", []byte(data), v)
				switch {
				case err == nil:
					wins.Add(1)
					winner.Store([2]string{data, string(is)})
				case !errors.Is(err, storage.ErrConflict):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		data, is := get(t, s, "race/a")
		if n := wins.Load(); n != 1 || winner.Load() != [2]string{data, string(is)} {
			t.Fatalf("round %d: %d winners, the last %q, but the object is %q at %q", round, n, winner.Load(), data, is)
		}
		v = is
	}
}

func noUpdateIsLost(t *testing.T, s storage.Store) {
	const writers, each = 8, 10
	must(s.PutIf(t.Context(), "counter/a", nil, ""))(t)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range each {
				if err := appendByte(t.Context(), s, byte('a'+i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got, _ := get(t, s, "counter/a"); len(got) != writers*each {
		t.Errorf("%d updates in the object, want %d", len(got), writers*each)
	}
}

func appendByte(ctx context.Context, s storage.Store, b byte) error {
	for {
		data, v, err := s.Get(ctx, "counter/a")
		if err != nil {
			return err
		}
		if _, err = s.PutIf(ctx, "counter/a", append(data, b), v); !errors.Is(err, storage.ErrConflict) {
			return err
		}
	}
}

func readersSeeWholeObjects(t *testing.T, s storage.Store) {
	whole := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i%26)}, 1000+i*100) }
	must(s.Put(t.Context(), "a/b", whole(0)))(t)
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !done.Load() {
				data, _, err := s.Get(t.Context(), "a/b")
				if err != nil || len(data) < 1000 || bytes.Count(data, data[:1]) != len(data) || !bytes.Equal(data, whole((len(data)-1000)/100)) {
					t.Errorf("a reader saw %d bytes, error %v", len(data), err)
					return
				}
			}
		})
	}
	for i := range 30 {
		must(s.Put(t.Context(), "a/b", whole(i)))(t)
	}
	done.Store(true)
	wg.Wait()
}

// soon is for what must not happen: long enough to be seen, short enough to wait for.
const soon = 30 * time.Millisecond

func leaseExcludes(t *testing.T, s storage.Store) {
	var inside, total atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				l, err := s.Lease(t.Context(), "issue/a.example")
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d holders at once", n)
				}
				total.Add(1)
				inside.Add(-1)
				if err := l.Release(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := total.Load(); n != 40 {
		t.Errorf("%d holders in all, want 40", n)
	}
}

func leasesOfDifferentNames(t *testing.T, s storage.Store) {
	for _, name := range append(oddNames(), "issue/b", "issue/bc") {
		l := must(s.Lease(t.Context(), name))(t)
		defer l.Release(context.Background())
	}
	if names := must(s.List(t.Context(), "", "", 0))(t); len(names) > 0 {
		t.Errorf("leases are listed as objects: %q", names)
	}
}

func fenceGrows(t *testing.T, s storage.Store) {
	last := map[string]uint64{}
	for range 5 {
		for _, name := range []string{"a/b", "a/c"} {
			l := must(s.Lease(t.Context(), name))(t)
			if l.Fence() <= last[name] {
				t.Errorf("%s: fence %d after %d", name, l.Fence(), last[name])
			}
			last[name] = l.Fence()
			must(0, l.Release(t.Context()))(t)
		}
	}
}

func leaseWaitEndsWithContext(t *testing.T, s storage.Store) {
	l := must(s.Lease(t.Context(), "a/b"))(t)
	defer l.Release(context.Background())
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	_, err := s.Lease(ctx, "a/b")
	wantErr(t, "lease held by another", err, context.DeadlineExceeded)
	if l.Context().Err() != nil {
		t.Errorf("the holder's context ended: %v", context.Cause(l.Context()))
	}
	must(0, l.Release(t.Context()))(t)
	again := must(s.Lease(t.Context(), "a/b"))(t) // who gave up does not stand in the way
	must(0, again.Release(t.Context()))(t)
}

func leaseContextEnds(t *testing.T, s storage.Store) {
	type key struct{}
	parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	l := must(s.Lease(parent, "a/b"))(t)
	if l.Context().Err() != nil || l.Context().Value(key{}) != "value" {
		t.Errorf("a new lease's context: error %v, value %v", l.Context().Err(), l.Context().Value(key{}))
	}
	cancel()
	<-l.Context().Done()
	ctx, stop := context.WithTimeout(t.Context(), soon)
	defer stop()
	_, err := s.Lease(ctx, "a/b")
	wantErr(t, "lease not yet released", err, context.DeadlineExceeded)
	must(0, l.Release(t.Context()))(t)

	l = must(s.Lease(t.Context(), "a/b"))(t)
	for range 2 {
		must(0, l.Release(t.Context()))(t)
		if err := context.Cause(l.Context()); err != context.Canceled {
			t.Errorf("cause after release: %v", err)
		}
	}
	other := must(s.Lease(t.Context(), "a/b"))(t)
	must(0, l.Release(t.Context()))(t) // a second release is not that of the next holder
	ctx, stop = context.WithTimeout(t.Context(), soon)
	defer stop()
	_, err = s.Lease(ctx, "a/b")
	wantErr(t, "lease held by the next holder", err, context.DeadlineExceeded)
	must(0, other.Release(t.Context()))(t)
}

func releaseHandsOver(t *testing.T, s storage.Store) {
	first := must(s.Lease(t.Context(), "a/b"))(t)
	got := make(chan storage.Lease)
	go func() {
		defer close(got)
		if l, err := s.Lease(t.Context(), "a/b"); err != nil {
			t.Error(err)
		} else {
			got <- l
		}
	}()
	select {
	case <-got:
		t.Fatal("two holders")
	case <-time.After(soon):
	}
	must(0, first.Release(t.Context()))(t)
	if first.Context().Err() == nil {
		t.Error("the first holder's context goes on after its release")
	}
	if second := <-got; second != nil {
		if second.Fence() <= first.Fence() {
			t.Errorf("fence %d after %d", second.Fence(), first.Fence())
		}
		must(0, second.Release(t.Context()))(t)
	}
}

func salvagerRemovesOneVersion(t *testing.T, s storage.Store) {
	salvager, ok := s.(storage.Salvager)
	if !ok {
		t.Fatalf("%T is no Salvager", s)
	}
	ctx := t.Context()
	_, _, err := salvager.Salvage(ctx, "a/b")
	wantErr(t, "salvage what is absent", err, storage.ErrNotExist)
	wantErr(t, "delete what is absent", salvager.DeleteIf(ctx, "a/b", ""), storage.ErrConflict)
	v1 := put(t, s, "a/b", "x")
	v2 := put(t, s, "a/b", "x")
	data, v, err := salvager.Salvage(ctx, "a/b")
	if string(data) != "x" || v != v2 || err != nil {
		t.Errorf("salvage: %q at %q, %v", data, v, err)
	}
	wantErr(t, "delete at a stale version", salvager.DeleteIf(ctx, "a/b", v1), storage.ErrConflict)
	wantErr(t, "delete at no version", salvager.DeleteIf(ctx, "a/b", ""), storage.ErrConflict)
	must(0, salvager.DeleteIf(ctx, "a/b", v2))(t)
	_, _, err = s.Get(ctx, "a/b")
	wantErr(t, "get", err, storage.ErrNotExist)
}
