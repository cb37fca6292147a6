package certs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

// ear hears the events of a house.
type ear struct {
	mu    sync.Mutex
	heard []Event
}

func (e *ear) hear(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = append(e.heard, event)
}

// of returns the events of that kind.
func (e *ear) of(kind EventKind) []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(e.heard), func(event Event) bool { return event.Kind != kind })
}

// listen makes the house's managers, from now on, tell the ear.
func (h *house) listen() *ear {
	e := &ear{}
	h.events = e.hear
	return e
}

func TestEvents_TellOfAPausedNameOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		e := h.listen()
		h.open()
		h.ca.script(func(context.Context, *Request) error {
			return &pausingFailure{fakeFailure{scope: ScopeName, retryAt: time.Now().Add(24 * time.Hour)}}
		})
		for range 5 {
			h.refuse("bad.example.com")
			time.Sleep(25 * time.Hour)
		}
		got := e.of(EventPaused)
		if len(got) != 1 || got[0].Subject != "bad.example.com" || got[0].CA != "fake" || got[0].Advice == "" || got[0].Next.IsZero() {
			t.Errorf("%+v", got)
		}
	})
}

func TestEvents_TellOfABudgetThatIsUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Budget = Budget{Orders: Limit{Count: 2, Per: time.Hour}}
		e := h.listen()
		h.open()
		for i := range 6 {
			_, _ = h.hello(fmt.Sprintf("www.customer%d.com", i))
		}
		if got := e.of(EventBudget); len(got) != 1 || got[0].Subject != "new_orders of CA fake" || got[0].Next.IsZero() {
			t.Errorf("%+v", got)
		}
	})
}

func TestEvents_TellOfStorageThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		e := h.listen()
		h.open()
		h.store.Set(storagetest.Fault{Op: storagetest.PutIf}, storagetest.Fault{Op: storagetest.Put})
		for i := range 3 {
			h.refuse(fmt.Sprintf("www.customer%d.com", i))
		}
		if got := e.of(EventStorage); len(got) != 1 || got[0].Reason == "" || got[0].Advice == "" {
			t.Errorf("%+v", got)
		}
		h.store.Set()
	})
}

// Nobody comes and nothing is due, but what comes next could not be stored.
func TestEvents_TellOfStorageThatIsAwayWhileNothingIsToBeDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		e := h.listen()
		h.open() // it beats once an hour
		time.Sleep(90 * time.Minute)
		h.store.Set(storagetest.Fault{})
		time.Sleep(90 * time.Minute)
		if got := e.of(EventStorage); len(got) != 0 {
			t.Errorf("after the first beat that failed: %+v", got)
		}
		time.Sleep(time.Hour)
		if got := e.of(EventStorage); len(got) != 1 || got[0].Reason == "" || got[0].Advice == "" {
			t.Errorf("%+v", got)
		}
		h.store.Set()
	})
}

func TestEvents_TellOfACAThatFailsForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		e := h.listen()
		h.open()
		h.ca.failWith(errors.New("500 from newOrder"))
		h.refuse("www.example.com")
		time.Sleep(5 * time.Minute)
		if got := e.of(EventCADown); len(got) != 0 {
			t.Errorf("too early: %+v", got)
		}
		time.Sleep(50 * time.Minute)
		if got := e.of(EventCADown); len(got) != 1 || got[0].CA != "fake" {
			t.Errorf("%+v", got)
		}
	})
}

func TestEvents_TellOfLateRenewalsAndOfCertificatesNearTheirEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		h := newHouse(t)
		h.set.ExpiryFloor = 1.0 / 6
		e := h.listen()
		h.open()
		var names []string
		for i := range 15 {
			names = append(names, fmt.Sprintf("www.customer%02d.com", i))
			h.must(names[i])
		}
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		time.Sleep(64 * day) // 60 is their time
		if late, near := e.of(EventLate), e.of(EventFloor); len(late)+len(near) != 0 {
			t.Errorf("too early: %+v, %+v", late, near)
		}
		time.Sleep(8 * day)
		late := e.of(EventLate)
		if len(late) == 0 || len(e.of(EventFloor)) != 0 {
			t.Fatalf("after 72 days: %+v", e.heard)
		}
		if last := late[len(late)-1]; last.Count != 15 || len(last.Names) != lateExamples || last.Subject != "" {
			t.Errorf("%+v", last)
		}
		time.Sleep(4 * day)
		if near := e.of(EventFloor); len(near) == 0 || near[len(near)-1].Count != 15 {
			t.Errorf("after 76 days: %+v", near)
		}
		h.ca.failWith(nil)
		time.Sleep(2 * day)
		e.mu.Lock()
		e.heard = nil
		e.mu.Unlock()
		time.Sleep(day)
		if len(e.heard) != 0 {
			t.Errorf("after all were renewed: %+v", e.heard)
		}
	})
}

func TestEvents_OnlyTheOwnerOfAShardTellsOfItsCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		e := h.listen()
		store := storage.NewMemory()
		fleet := []*Manager{h.openOn(store), h.openOn(store)}
		time.Sleep(10 * time.Hour) // beats
		var names []string
		for i := range 12 {
			names = append(names, fmt.Sprintf("www.customer%02d.com", i))
			if _, err := hello(fleet[i%2], names[i], h.ca.pool()); err != nil {
				t.Fatal(err)
			}
		}
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		time.Sleep(80*24*time.Hour + lateEvery/2)
		e.mu.Lock()
		e.heard = nil
		e.mu.Unlock()
		time.Sleep(lateEvery) // each process looks once
		count := 0
		for _, event := range e.of(EventFloor) {
			count += event.Count
		}
		if count != len(names) {
			t.Errorf("%d certificates were told of, there are %d", count, len(names))
		}
	})
}
