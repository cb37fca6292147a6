package storage_test

import (
	"errors"
	"strings"
	"testing"

	"go.uber.org/zap/zaptest"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func TestLeaseHolder_TellsWhoHasALease(t *testing.T) {
	disk, err := storage.OpenDisk(t.TempDir(), zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	bucket, err := storage.OpenS3(t.Context(), storagetest.NewFakeS3(t).Config(), zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	for name, tt := range map[string]struct {
		store storage.Store
		want  string
	}{"disk": {disk, "this host"}, "bucket": {bucket, "/"}} {
		t.Run(name, func(t *testing.T) {
			holder := func() string {
				t.Helper()
				who, err := storage.LeaseHolder(t.Context(), tt.store, "issue/a.example.com")
				if err != nil {
					t.Fatal(err)
				}
				return who
			}
			if who := holder(); who != "" {
				t.Errorf("before: %q", who)
			}
			lease, err := tt.store.Lease(t.Context(), "issue/a.example.com")
			if err != nil {
				t.Fatal(err)
			}
			if who := holder(); !strings.Contains(who, tt.want) {
				t.Errorf("while it is held: %q", who)
			}
			if err := lease.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
			if who := holder(); who != "" {
				t.Errorf("after: %q", who)
			}
		})
	}
	if _, err := storage.LeaseHolder(t.Context(), storage.NewMemory(), "a"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a store that cannot tell: %v", err)
	}
}
