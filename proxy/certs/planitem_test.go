package certs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	"unsafe"
)

func TestPackedItem_TellsWhatItWasTold(t *testing.T) {
	at := time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC)
	id := identity{"shop.example", 1 << 63, "kydGmAOpUWiOmNbEQkjbI79YlNI.BAoMcQ7e_gD_", at, at.Add(90 * day), true}
	said := suggestion{Leaf: id.leaf, Start: 5, End: 9, Renew: 7, Asked: 3, Next: 4, URL: "https://ca.example/why"}
	gone := farewell{1, 2, 3, goneAway, 4}
	it := newPackedItem(id.name)
	if got := it.unpack(); got.ca != "" || got.said != nil || !got.due.IsZero() || !got.ends.IsZero() || got.identity != (identity{name: id.name}) {
		t.Errorf("of a new name: %+v", got)
	}
	it.identify(id, "letsencrypt")
	it.suggest(said)
	it.leave(gone)
	it.setDue(at.Add(time.Nanosecond))
	got := it.unpack()
	if got.identity != id || got.ca != "letsencrypt" || got.gone != gone || got.said == nil || *got.said != said {
		t.Errorf("%+v, said %+v", got, got.said)
	}
	if !got.due.Equal(at.Add(time.Microsecond)) {
		t.Errorf("due at %v", got.due)
	}
	if it.cycle() != 60*day {
		t.Errorf("renewed every %v", it.cycle())
	}
	for _, bad := range []string{"", "noserial", "noserial.", ".c2VyaWFs", "authority.*"} {
		id.id = bad
		if it.identify(id, "x"); it.unpack().id != "" || it.name() != id.name {
			t.Errorf("of %q there is %q left", bad, it.unpack().id)
		}
	}
}

func TestPackedItem_KeepsTimesWithinWhatItCanHold(t *testing.T) {
	for _, c := range []struct {
		time time.Time
		want int64
	}{
		{time.Time{}, 0}, {time.Unix(-1, 0), 0}, {time.Unix(1, 999), 1}, {time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), 1<<32 - 1},
	} {
		if got := secondsOf(c.time).time(); got.IsZero() != (c.want == 0) || c.want != 0 && got.Unix() != c.want {
			t.Errorf("%v became %v", c.time, got)
		}
	}
	it := newPackedItem("x")
	if it.setDue(time.Time{}); it.dueAt().Unix() != 0 {
		t.Errorf("due at %v", it.dueAt())
	}
}

func TestPackedItem_IsSmall(t *testing.T) {
	if got := unsafe.Sizeof(packedItem{}); got != 128 {
		t.Errorf("%d bytes", got)
	}
}

func TestItemTable_DoesAsAMapDoes(t *testing.T) {
	table, model := newItemTable(), map[string]itemID{}
	for i := range 20_000 {
		name := fmt.Sprintf("%d.example", rand.IntN(3000))
		id, known := model[name]
		if table.find(name) != id {
			t.Fatalf("step %d: %s is %d, want %d", i, name, table.find(name), id)
		}
		switch {
		case !known:
			model[name] = table.add(name)
		case rand.IntN(3) == 0:
			table.remove(id)
			delete(model, name)
		}
	}
	all := map[string]itemID{}
	table.each(func(id itemID, it *packedItem) { all[it.name()] = id })
	if !maps.Equal(all, model) || table.count != len(model) || len(table.blocks) > 3000/itemBlock+1 {
		t.Errorf("%d names of %d, counted %d, in %d blocks", len(all), len(model), table.count, len(table.blocks))
	}
}

func TestCalendar_HasTheEarliestOnTop(t *testing.T) {
	table := newItemTable()
	c := calendar{items: table, turn: func(it *packedItem) uint64 { return it.rank }, place: func(it *packedItem) *int32 { return &it.pos }}
	var ids []itemID
	for i := range 500 {
		ids = append(ids, table.add(fmt.Sprint(i)))
	}
	for range 5000 {
		id := ids[rand.IntN(len(ids))]
		if it := table.at(id); it.pos >= 0 && rand.IntN(3) == 0 {
			c.remove(id)
		} else {
			it.rank = rand.Uint64N(1000)
			c.put(id)
		}
	}
	var want, got []uint64
	for _, id := range ids {
		if it := table.at(id); it.pos >= 0 {
			want = append(want, it.rank)
		}
	}
	slices.Sort(want)
	for c.first() != nil {
		first := c.first()
		if got = append(got, first.rank); table.at(c.pop()) != first || first.pos != -1 {
			t.Error("it pops what is not on top")
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
