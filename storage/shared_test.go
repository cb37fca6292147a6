package storage_test

import (
	"testing"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func TestShared_IsAStore(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store {
		s, err := storage.NewShared(storage.NewMemory(), storagetest.QuickLeases(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	})
}
