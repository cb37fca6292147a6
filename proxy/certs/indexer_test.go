package certs

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

// entries returns what the index says, past all faults.
func (h *house) entries() map[string]indexEntry {
	h.t.Helper()
	h.store.Set()
	all := map[string]indexEntry{}
	for shard := range indexShards {
		file, _, err := newIndex(h.store, quiet(), "", func() int { return 0 }).load(context.Background(), shard)
		if err != nil {
			h.t.Fatal(err)
		}
		for name, e := range file.Names {
			all[name] = e
		}
	}
	return all
}

// loseIndex removes the index, as if the certificates had come by a restored backup.
func (h *house) loseIndex() {
	h.t.Helper()
	for shard := range indexShards {
		if err := h.store.Delete(context.Background(), indexObject(shard)); err != nil {
			h.t.Fatal(err)
		}
	}
}

func TestIndex_HasWhatIsIssuedWhileTheManagerCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.ca.script(func(ctx context.Context, _ *Request) error {
			<-ctx.Done()
			time.Sleep(time.Second) // the CA has just issued
			return nil
		})
		h.open()
		go h.hello("a.example.com")
		time.Sleep(time.Second)
		h.m.Close()
		_, indexed := h.entries()["a.example.com"]
		if stored := h.has(certObject("a.example.com")); !stored || !indexed {
			t.Errorf("stored %v, in the index %v", stored, indexed)
		}
	})
}

func TestReindex_BringsEveryCertificateBackIntoRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.open()
		names := []string{"a.example.com", "b.example.com", "c.example.com"}
		for _, name := range names {
			h.must(name)
		}
		time.Sleep(time.Second)
		h.m.Close()
		before := h.entries()
		h.loseIndex()
		if _, err := h.store.Put(t.Context(), "certs/torn.example.com", []byte("torn")); err != nil {
			t.Fatal(err)
		}
		report, err := Reindex(t.Context(), h.store, 0, quiet())
		if err != nil || *report != (ReindexReport{Certificates: 3, Damaged: 1}) {
			t.Fatalf("%+v, %v", report, err)
		}
		after := h.entries()
		for _, name := range names {
			if a, b := before[name], after[name]; a.CA != b.CA || !a.NotAfter.Equal(b.NotAfter) || !a.RenewAt.Equal(b.RenewAt) || b.CA == "" {
				t.Errorf("%s: the index says %+v, and said %+v", name, b, a)
			}
		}
		lists := h.store.Count(storagetest.List, "")
		h.open()
		time.Sleep(70 * day)
		for _, name := range names {
			if n := len(h.ca.asked(name)); n != 2 {
				t.Errorf("%s was ordered %d times in 70 days without a visitor, want 2", name, n)
			}
		}
		if n := h.store.Count(storagetest.List, "") - lists; n > 0 {
			t.Errorf("the manager listed %d times", n)
		}
	})
}

func TestReindex_TakesOutWhatHasNoCertificateAndKeepsWhatCAsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.open()
		h.must("a.example.com")
		h.must("gone.example.com")
		time.Sleep(time.Second)
		h.m.Close()
		x := newIndex(h.store, quiet(), "", func() int { return 0 })
		cert, _, err := h.m.fetch(t.Context(), "a.example.com")
		if err != nil {
			t.Fatal(err)
		}
		e := entryOf(cert, cert.renewAt)
		e.Said = &suggestion{Leaf: cert.leaf(), Asked: 7, Next: 8, Renew: 9}
		x.planned = func(string) (indexEntry, bool) { return *e, true }
		x.told(cert.name)
		if _, _, err := x.sync(t.Context(), indexShard(cert.name), false); err != nil {
			t.Fatal(err)
		}
		if err := h.store.Delete(t.Context(), certObject("gone.example.com")); err != nil {
			t.Fatal(err)
		}
		report, err := Reindex(t.Context(), h.store, 0, quiet())
		if err != nil || *report != (ReindexReport{Certificates: 1, Removed: 1}) {
			t.Fatalf("%+v, %v", report, err)
		}
		all := h.entries()
		if said := all["a.example.com"].Said; len(all) != 1 || said == nil || said.Renew != 9 {
			t.Errorf("the index says %v", all)
		}
	})
}

func TestReindex_AnErrorOfStorageTakesNothingOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.open()
		h.must("a.example.com")
		h.must("b.example.com")
		time.Sleep(time.Second)
		h.m.Close()
		for _, fault := range []storagetest.Fault{
			{Op: storagetest.List}, {Op: storagetest.Get, Prefix: "certs/a"}, {Op: storagetest.Get, Prefix: "index/"}, {Op: storagetest.PutIf},
			{Op: storagetest.Get, Prefix: "certs/", Err: &storage.KeyError{Name: "certs/a.example.com", ID: "other"}},
		} {
			h.loseIndex()
			h.store.Set(fault)
			if _, err := Reindex(t.Context(), h.store, 0, quiet()); err == nil {
				t.Errorf("%+v was not noticed", fault)
			}
			if _, err := Reindex(t.Context(), withoutFaults(h), 0, quiet()); err != nil || len(h.entries()) != 2 {
				t.Errorf("after %+v: %v, %v", fault, h.entries(), err)
			}
		}
	})
}

func withoutFaults(h *house) storage.Store {
	h.store.Set()
	return h.store
}

func TestIndexer_EntersWildcardsAndSecondsUnderTheirOwnNames(t *testing.T) {
	for name, object := range map[string]string{
		"a.example.com": "certs/a.example.com", "*.example.com": "certs/_.example.com", "a.example.com+rsa": "certs/a.example.com+rsa", "192.0.2.1": "certs/192.0.2.1",
	} {
		if got, ok := nameOfCert(object); got != name || !ok || certObject(name) != object {
			t.Errorf("%s is the object of %s, %v; want %s", object, got, ok, name)
		}
	}
	if name, ok := nameOfCert("failures/a.example.com"); ok {
		t.Errorf("a failure is the certificate of %s", name)
	}
}

func TestIndexer_LeavesOutWhatIsNoCertificateOfTheName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.open()
		h.must("a.example.com")
		time.Sleep(time.Second)
		h.m.Close()
		data, _, err := h.store.Get(t.Context(), certObject("a.example.com"))
		if err != nil {
			t.Fatal(err)
		}
		h.loseIndex()
		x := NewIndexer(h.store, 0.5, quiet())
		for object, data := range map[string][]byte{
			"certs/a.example.com": data, "certs/b.example.com": data, "certs/c.example.com": []byte("{"), "failures/a.example.com": data, "index/00": data,
		} {
			if err := x.StoredObject(t.Context(), object, data); err != nil {
				t.Error(err)
			}
		}
		if err := x.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		all := h.entries()
		e, ok := all["a.example.com"]
		if !ok || len(all) != 1 {
			out, err := json.Marshal(all)
			t.Fatalf("the index says %s, %v", out, err)
		}
		if half := e.NotAfter.Add(-45 * day); e.RenewAt.Sub(half).Abs() > 2*day {
			t.Errorf("to be renewed at %v, want about %v", e.RenewAt, half)
		}
		h.store.Set(storagetest.Fault{Op: storagetest.PutIf, Prefix: "index/"})
		if err := x.StoredObject(t.Context(), "certs/a.example.com", data); err != nil {
			t.Fatal(err)
		}
		h.loseIndex()
		if err := x.Flush(t.Context()); !errors.Is(err, storagetest.ErrInjected) {
			t.Errorf("an index that cannot be written: %v", err)
		}
	})
}
