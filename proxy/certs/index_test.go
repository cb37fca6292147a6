package certs

import (
	"testing"
	"time"

	"gatelodge/storage"
)

// What is told of a name is looked up when it is written; it neither brings back a name that was taken out nor hides a certificate that is newer.
func TestIndex_WritesWhatThePlannerKnowsThen(t *testing.T) {
	now := time.Unix(1_800_000_000, 0).UTC()
	entry := func(leaf leafID, asked int64) indexEntry {
		e := indexEntry{CA: "x", NotAfter: now.Add(90 * day), RenewAt: now.Add(60 * day), Leaf: leaf, Issued: now.Add(time.Duration(leaf) * time.Hour)}
		if asked != 0 {
			e.Said, e.Gone = &suggestion{Leaf: leaf, Asked: asked, Renew: 5}, farewell{Seen: 7}
		}
		return e
	}
	known := map[string]indexEntry{}
	x := newIndex(storage.NewMemory(), quiet(), "", func() int { return 0 })
	x.planned = func(name string) (indexEntry, bool) { e, ok := known[name]; return e, ok }
	names := []string{"told.example", "new-and-told.example", "renewed.example", "removed.example", "forgotten.example"}
	for _, name := range names {
		e := entry(1, 0)
		x.change(name, &e, time.Hour)
		if _, _, err := x.sync(t.Context(), indexShard(name), false); err != nil {
			t.Fatal(err)
		}
		known[name] = entry(1, 10)
		x.told(name)
	}
	known["told.example"] = entry(1, 11) // later than it was told of
	known["new.example"] = entry(3, 12)
	two, three := entry(2, 0), entry(3, 0)
	x.change("renewed.example", &two, time.Hour) // known is what was said of the one before
	three.RenewAt = now.Add(50 * day)
	x.change("new-and-told.example", &three, time.Hour)
	known["new-and-told.example"] = entry(3, 12)
	x.change("removed.example", nil, time.Hour)
	x.told("removed.example")
	delete(known, "forgotten.example")

	got := map[string]indexEntry{}
	for _, name := range names {
		changes := x.take(indexShard(name))
		x.giveBack(indexShard(name), changes) // as after an error of storage
		if _, _, err := x.sync(t.Context(), indexShard(name), false); err != nil {
			t.Fatal(err)
		}
		file, _, err := x.load(t.Context(), indexShard(name))
		if err != nil {
			t.Fatal(err)
		}
		if e, there := file.Names[name]; there {
			got[name] = e
		}
	}
	if e := got["told.example"]; e.Said == nil || e.Said.Asked != 11 || e.Gone.Seen != 7 {
		t.Errorf("told: %+v", e)
	}
	if e := got["new-and-told.example"]; e.Leaf != 3 || e.Said == nil || e.Said.Asked != 12 || !e.RenewAt.Equal(three.RenewAt) {
		t.Errorf("new and told: %+v", e)
	}
	if e := got["renewed.example"]; e.Leaf != 2 || e.Said != nil {
		t.Errorf("renewed: %+v", e)
	}
	if e, there := got["removed.example"]; there {
		t.Errorf("removed: %+v", e)
	}
	if e := got["forgotten.example"]; e.Leaf != 1 || e.Said != nil {
		t.Errorf("forgotten: %+v", e)
	}
}
