package storage_test

import (
	"testing"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// BenchmarkSealed compares with BenchmarkBundleDecode and BenchmarkDisk what sealing costs.
func BenchmarkSealed(b *testing.B) {
	data := encode(b, newBundle(b, newKey(b), "a.example"))
	bench := func(name string, s storage.Store, call func(s storage.Store) error) {
		b.Run(name, func(b *testing.B) {
			put(b, s, "certs/a.example", string(data))
			b.ReportAllocs()
			for b.Loop() {
				if err := call(s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	seal := func(s storage.Store) error { _, err := s.Put(b.Context(), "certs/a.example", data); return err }
	open := func(s storage.Store) error { _, _, err := s.Get(b.Context(), "certs/a.example"); return err }
	load := func(s storage.Store) error {
		_, _, err := storage.LoadBundle(b.Context(), s, "certs/a.example", zap.NewNop())
		return err
	}
	disk, err := storage.OpenDisk(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { disk.Close() })
	bench("Seal", sealed(b, storage.NewMemory(), true, sealKey("k")), seal)
	bench("Open", sealed(b, storage.NewMemory(), true, sealKey("k")), open)
	bench("LoadFromMemory", storage.NewMemory(), load)
	bench("LoadFromMemorySealed", sealed(b, storage.NewMemory(), true, sealKey("k")), load)
	bench("LoadFromDisk", disk, load)
	bench("LoadFromDiskSealed", sealed(b, disk, true, sealKey("k")), load)
	copied := storage.NewLocalCopy(storage.NewMemory(), disk, storage.LocalCopyConfig{}, nil)
	b.Cleanup(func() { copied.Close() })
	bench("LoadThroughLocalCopy", copied, load)
}
