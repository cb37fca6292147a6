package acmeclient

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"gatelodge/storage"
)

// sealedMemory is a store whose objects can be torn in the one below it: then it answers with a CorruptError, as disks and buckets do.
func sealedMemory(t *testing.T) (sealed *storage.Sealed, below *storage.Memory) {
	t.Helper()
	below = storage.NewMemory()
	sealed, err := storage.NewSealed(t.Context(), below, storage.SealConfig{Keys: []storage.SealKey{{ID: "1", Secret: [32]byte{1}}}}, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	return sealed, below
}

// tear leaves half of each object that begins so, and returns their names.
func tear(t *testing.T, below *storage.Memory, prefix string) []string {
	t.Helper()
	names, err := below.List(t.Context(), prefix, "", 0)
	if err != nil || len(names) == 0 {
		t.Fatalf("nothing to tear below %s: %v", prefix, err)
	}
	for _, name := range names {
		data, _, err := below.Get(t.Context(), name)
		if err == nil {
			_, err = below.Put(t.Context(), name, data[:len(data)/2])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// An order whose record is damaged is one more order, not a name that waits until its key is too old.
func TestObtain_PlacesANewOrderWhereTheStoredOneIsDamaged(t *testing.T) {
	store, below := sealedMemory(t)
	n := newNode(t, store)
	p := newPebble(t, n, pebbleOptions{})
	orders := &counter{}
	ctx, crash := context.WithCancel(t.Context())
	p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
		switch {
		case r.URL.Path == pathOrder && resp.Code == http.StatusCreated:
			orders.add()
		case strings.HasPrefix(r.URL.Path, pathChallenge):
			crash()
		}
	})
	r := newRequest(t, "www.example.test")
	if _, err := newClient(t, p, n, store).Obtain(ctx, r); err == nil {
		t.Fatal("it was to be interrupted")
	}
	tear(t, below, "acme/pebble/orders/")
	obtain(t, newClient(t, p, n, store), r)
	if got := orders.get(); got != 2 {
		t.Errorf("%d orders, one of them lost; want 2", got)
	}
	if left, _ := store.List(t.Context(), "acme/pebble/orders/", "", 0); len(left) != 0 {
		t.Errorf("orders left behind: %v", left)
	}
}

func TestLimitBook_BeginsAnewWhereTheStoredLimitsAreDamaged(t *testing.T) {
	store, below := sealedMemory(t)
	b := limitBook{ca: "ca", store: store, log: zaptest.NewLogger(t)}
	note := func(until time.Duration) {
		b.note(t.Context(), &Problem{CA: "ca", scope: ScopeAccount, Detail: "no", Advice: "wait", retryAt: time.Now().Add(until)}, []string{"a.test"})
	}
	note(time.Hour)
	tear(t, below, b.name())
	note(2 * time.Hour)
	other := limitBook{ca: "ca", store: store, log: zaptest.NewLogger(t)}
	if other.check(t.Context(), []string{"a.test"}) == nil {
		t.Error("another process does not hear of a limit that came after the damage")
	}
}

func TestDNSSolver_ForgetsRecordsWhoseObjectIsDamaged(t *testing.T) {
	w := newDNSWorld(t, "crash.test.")
	store, below := sealedMemory(t)
	s := newSolver(t, store, w.zone(t, "crash.test"))
	crashed(t, s, "*.crash.test", 2*time.Hour)
	tear(t, below, dnsPrefix)
	crashed(t, s, "*.crash.test", 2*time.Hour) // what is damaged keeps nobody from making it again
	tear(t, below, dnsPrefix)
	if err := s.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if left, _ := store.List(t.Context(), dnsPrefix, "", 0); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
