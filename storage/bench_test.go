package storage_test

import (
	"fmt"
	"testing"

	"gatelodge/storage"
)

func BenchmarkBundleEncode(b *testing.B) {
	bundle := newBundle(b, newKey(b), "a.example")
	b.ReportAllocs()
	for b.Loop() {
		encode(b, bundle)
	}
}

func BenchmarkBundleDecode(b *testing.B) {
	data := encode(b, newBundle(b, newKey(b), "a.example"))
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		decode(b, data)
	}
}

// benchDisk has a thousand certificates.
func benchDisk(b *testing.B) (*storage.Disk, []byte) {
	d, err := storage.OpenDisk(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { d.Close() })
	data := encode(b, newBundle(b, newKey(b), "a.example"))
	for i := range 1000 {
		if _, err := d.Put(b.Context(), certName(i), data); err != nil {
			b.Fatal(err)
		}
	}
	return d, data
}

func certName(i int) string { return fmt.Sprintf("certs/%d.example", i%1000) }

func BenchmarkDisk(b *testing.B) {
	d, data := benchDisk(b)
	ctx := b.Context()
	bench := func(name string, call func(i int) error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := call(i); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	bench("Get", func(i int) error { _, _, err := d.Get(ctx, certName(i)); return err })
	bench("Put", func(i int) error { _, err := d.Put(ctx, certName(i), data); return err })
	bench("PutIf", func(i int) error {
		_, v, err := d.Get(ctx, certName(i))
		if err == nil {
			_, err = d.PutIf(ctx, certName(i), data, v)
		}
		return err
	})
	bench("Lease", func(i int) error {
		l, err := d.Lease(ctx, certName(i))
		if err != nil {
			return err
		}
		return l.Release(ctx)
	})
	bench("List", func(int) error { _, err := d.List(ctx, "certs/", "", 0); return err })
}
