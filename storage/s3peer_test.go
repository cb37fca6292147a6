//go:build peers

package storage_test

import (
	"fmt"
	"testing"
	"time"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func TestS3Peer_KeepsTheContractOnVersitygw(t *testing.T) {
	gateway := storagetest.StartVersitygw(t)
	stores := 0
	storagetest.Run(t, func(t *testing.T) storage.Store {
		stores++
		cfg := gateway.Config()
		cfg.Prefix = fmt.Sprint("store-", stores) // each sentence of the contract has a store of its own
		return openS3(t, cfg)
	})
}

func TestS3Peer_ReadsAfterVersitygwWasAway(t *testing.T) {
	gateway := storagetest.StartVersitygw(t)
	s := openS3(t, gateway.Config())
	v, err := s.PutIf(t.Context(), "certs/a.example", []byte("x"), "")
	if err != nil {
		t.Fatal(err)
	}
	gateway.Stop()
	if _, _, err := s.Get(t.Context(), "certs/a.example"); err == nil {
		t.Error("read from a store that is away")
	}
	gateway.Start()
	wantObject(t, s, "certs/a.example", "x", v)
}

// versitygw obeys conditions on DELETE, so that tombstones of objects can be swept too.
func TestS3Peer_SweepsTombstonesOfObjects(t *testing.T) {
	s := openS3(t, storagetest.StartVersitygw(t).Config())
	v, err := s.PutIf(t.Context(), "certs/a.example", []byte("x"), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteIf(t.Context(), "certs/a.example", v); err != nil {
		t.Fatal(err)
	}
	if n, err := s.SweepTombstones(t.Context(), -time.Hour); n != 1 || err != nil {
		t.Errorf("%d swept, %v", n, err)
	}
	if n, err := s.SweepTombstones(t.Context(), -time.Hour); n != 0 || err != nil {
		t.Errorf("%d swept again, %v", n, err)
	}
}

func BenchmarkS3Peer(b *testing.B) {
	gateway := storagetest.StartVersitygw(b)
	s, err := storage.OpenS3(b.Context(), gateway.Config(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.SelfTest(b.Context()); err != nil {
		b.Fatal(err)
	}
	ctx, data := b.Context(), encode(b, newBundle(b, newKey(b), "a.example"))
	bench := func(name string, call func(i int) error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before, n := s.Stats(), 0
			for ; b.Loop(); n++ {
				if err := call(n); err != nil {
					b.Fatal(err)
				}
			}
			after := s.Stats()
			b.ReportMetric(float64(after.Get+after.Put+after.Delete+after.List-before.Get-before.Put-before.Delete-before.List)/float64(n), "requests/op")
		})
	}
	bench("Put", func(i int) error { _, err := s.Put(ctx, certName(i), data); return err })
	for i := range 1000 { // Put may have run less often
		if _, err := s.Put(ctx, certName(i), data); err != nil {
			b.Fatal(err)
		}
	}
	bench("Get", func(i int) error { _, _, err := s.Get(ctx, certName(i)); return err })
	bench("PutIf", func(i int) error {
		_, v, err := s.Get(ctx, certName(i))
		if err == nil {
			_, err = s.PutIf(ctx, certName(i), data, v)
		}
		return err
	})
	bench("Lease", func(i int) error {
		l, err := s.Lease(ctx, certName(i))
		if err != nil {
			return err
		}
		return l.Release(ctx)
	})
	bench("List", func(int) error { _, err := s.List(ctx, "certs/", "", 0); return err })
}
