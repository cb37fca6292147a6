package storage_test

import (
	"context"
	"testing"
	"time"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

// stack is what a node of a fleet has: a bucket, its copy on the own disk, and sealing over both.
func stack(t *testing.T, bucket *storagetest.FakeS3, dir string, key storage.SealKey) *storage.Sealed {
	t.Helper()
	return sealed(t, localCopy(t, openS3(t, bucket.Config()), openDisk(t, dir), storage.LocalCopyConfig{Of: "the bucket"}), true, key)
}

func TestStack_KeepsTheContract(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store {
		return withoutCanary{stack(t, storagetest.NewFakeS3(t), t.TempDir(), sealKey("k"))}
	})
}

func TestStack_StartsAndServesWhileTheBucketHangs(t *testing.T) {
	bucket, dir, key := storagetest.NewFakeS3(t), t.TempDir(), sealKey("k")
	put(t, stack(t, bucket, dir, key), "certs/a.example", "the secret")
	other := stack(t, bucket, t.TempDir(), key)
	if got, v := get(t, other, "certs/a.example"); got != "the secret" || v.Stale() {
		t.Fatalf("%q at %q at another node", got, v)
	}

	bucket.Set(storagetest.Hang(false))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	l := localCopy(t, openS3(t, bucket.Config()), openDisk(t, dir), storage.LocalCopyConfig{Of: "the bucket"})
	s, err := storage.NewSealed(ctx, l, storage.SealConfig{Keys: []storage.SealKey{key}, Require: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	hello, done := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer done()
	data, v, err := s.Get(hello, "certs/a.example")
	if err != nil || string(data) != "the secret" || !v.Stale() {
		t.Errorf("%q at %q, %v", data, v, err)
	}
	if hello.Err() != nil {
		t.Error("the answer came too late for a handshake")
	}
	bucket.Set()
}
