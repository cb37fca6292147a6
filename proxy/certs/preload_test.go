package certs

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage/storagetest"
)

// visitMany opens a manager and lets somebody visit the names.
func (h *house) visitMany(names ...string) {
	h.t.Helper()
	h.open()
	for _, name := range names {
		h.must(name)
	}
}

func (h *house) loadedAhead() []string {
	var names []string
	h.m.cache.names(func(name string) { names = append(names, name) })
	slices.Sort(names)
	return names
}

func TestPreload_BringsBackWhatVisitorsUsedInTheLastHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Preload = PreloadHot
		h.visitMany("early.example.com")
		time.Sleep(90 * time.Minute)
		for _, name := range []string{"a.example.com", "b.example.com"} {
			h.must(name)
		}
		h.m.Close() // writes what five minutes have not
		time.Sleep(5 * time.Hour)
		h.open()
		time.Sleep(time.Second)
		if got := h.loadedAhead(); !slices.Equal(got, []string{"a.example.com", "b.example.com"}) {
			t.Errorf("in memory after the restart: %v", got)
		}
		before := h.store.Count(storagetest.Get, "certs/")
		if h.must("a.example.com"); h.store.Count(storagetest.Get, "certs/") != before {
			t.Error("a handshake reads storage for what was loaded ahead")
		}
	})
}

func TestPreload_KnowsOfTheVisitorsOfOtherProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Preload = PreloadHot
		other := h.open()
		h.open()
		h.must("a.example.com")
		if _, err := hello(other, "b.example.com", h.ca.pool()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * hotEvery)
		file, _, err := readHot(t.Context(), h.store, h.log)
		if names := slices.Sorted(maps.Keys(file.Names)); err != nil || !slices.Equal(names, []string{"a.example.com", "b.example.com"}) {
			t.Errorf("%v, %v", names, err)
		}
		before := h.store.Count("", hotObject)
		time.Sleep(6 * hotEvery)
		if n := h.store.Count("", hotObject) - before; n != 0 {
			t.Errorf("%d calls without visitors", n)
		}
	})
}

func TestPreload_OfAllTakesEveryNameOfTheIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		var names []string
		for i := range 30 {
			names = append(names, fmt.Sprintf("n%02d.example.com", i))
		}
		h.visitMany(names...)
		time.Sleep(time.Minute)
		h.m.Close()
		h.set.Preload = PreloadAll
		h.open()
		time.Sleep(time.Second)
		if got := h.loadedAhead(); !slices.Equal(got, names) {
			t.Errorf("in memory after the restart: %v", got)
		}
		h.m.Close()
		h.set.CacheBytes = 12 << 10
		h.open()
		time.Sleep(time.Second)
		if got := len(h.loadedAhead()); got < 5 || got > 20 {
			t.Errorf("%d names where not all fit", got)
		}
		h.m.Close()
		h.set.Preload, h.set.CacheBytes = PreloadNone, 0
		h.open()
		time.Sleep(time.Second)
		if got := h.loadedAhead(); len(got) != 0 {
			t.Errorf("in memory without preloading: %v", got)
		}
	})
}

// TestPreload_DelaysNoHandshake lets storage hang on what is loaded ahead.
func TestPreload_DelaysNoHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Preload = PreloadHot
		h.visitMany("a.example.com", "b.example.com")
		h.m.Close()
		h.store.Set(storagetest.Fault{Op: storagetest.Get, Prefix: hotObject, Hang: true})
		h.open()
		began := time.Now()
		if h.must("a.example.com"); time.Since(began) > time.Second {
			t.Errorf("it took %v", time.Since(began))
		}
	})
}

func TestPreload_GivesUpWhenStorageIsInTroubleAndMakesADamagedListAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Preload = PreloadHot
		var names []string
		for i := range 50 {
			names = append(names, fmt.Sprintf("n%02d.example.com", i))
		}
		h.visitMany(names...)
		h.m.Close()
		h.log = quiet()
		h.store.Set(storagetest.Fault{Op: storagetest.Get, Prefix: "certs/"})
		before := h.store.Count(storagetest.Get, "certs/")
		h.open()
		time.Sleep(time.Second)
		if n := h.store.Count(storagetest.Get, "certs/") - before; n < preloadFails || n > preloadFails+preloaders {
			t.Errorf("%d reads", n)
		}
		h.m.Close()
		h.store.Set()
		if _, err := h.store.Put(t.Context(), hotObject, []byte("{")); err != nil {
			t.Fatal(err)
		}
		h.visitMany(names[0])
		h.m.Close()
		file, _, err := readHot(t.Context(), h.store, h.log)
		if err != nil || len(file.Names) != 1 {
			t.Errorf("%v, %v", file, err)
		}
	})
}

func TestHotList_IsBounded(t *testing.T) {
	now := time.Now()
	used := map[string]int64{}
	for i := range hotMost + 1000 {
		used[fmt.Sprintf("n%d.example.com", i)] = now.Unix() - int64(i%3000)
	}
	list := hotFile{Names: map[string]int64{"old.example.com": now.Add(-2 * time.Hour).Unix(), "mine.example.com": now.Unix()}}.with(used, now)
	if _, old := list.Names["old.example.com"]; len(list.Names) != hotMost || old || list.Names["mine.example.com"] == 0 {
		t.Errorf("%d names", len(list.Names))
	}
	if first := list.latest()[0]; list.Names[first] != now.Unix() {
		t.Errorf("%s is the first", first)
	}
}
