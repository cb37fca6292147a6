package acmeclient

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

func TestOrderBook_SweepsWhatNobodyComesBackFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storage.NewMemory()
		b := newOrderBook("test", store, zap.NewNop())
		place := func(csr string) string {
			name := b.name([]byte(csr))
			if err := b.save(t.Context(), name, orderRecord{URL: "https://ca.test/" + csr, Placed: time.Now()}); err != nil {
				t.Fatal(err)
			}
			return name
		}
		place("old")
		time.Sleep(leftOrderAge - time.Hour)
		young := place("young")
		if _, err := store.Put(t.Context(), "acme/other/orders/x", []byte("{}")); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Put(t.Context(), "acme/test/orders/odd", []byte("no record")); err != nil {
			t.Fatal(err)
		}
		left := func() []string {
			if err := b.sweep(context.Background()); err != nil {
				t.Fatal(err)
			}
			names, err := store.List(t.Context(), "acme/", "", 0)
			if err != nil {
				t.Fatal(err)
			}
			return names
		}
		if got := left(); len(got) != 4 {
			t.Errorf("an hour too early there are %q", got)
		}
		time.Sleep(time.Hour)
		want := []string{"acme/other/orders/x", young, "acme/test/orders/odd"}
		slices.Sort(want)
		if got := left(); !slices.Equal(got, want) {
			t.Errorf("left are %q, not %q", got, want)
		}
	})
}
