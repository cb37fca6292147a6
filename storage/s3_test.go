package storage_test

import (
	"testing"

	"go.uber.org/zap/zaptest"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func openS3(t testing.TB, cfg storage.S3Config) *storage.S3 {
	t.Helper()
	s, err := storage.OpenS3(t.Context(), cfg, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestS3_KeepsTheContract(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store { return openS3(t, storagetest.NewFakeS3(t).Config()) })
}
