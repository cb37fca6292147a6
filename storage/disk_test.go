package storage_test

import (
	"testing"

	"go.uber.org/zap/zaptest"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func openDisk(t *testing.T, dir string) *storage.Disk {
	t.Helper()
	d, err := storage.OpenDisk(dir, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestDisk_KeepsTheContract(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store { return openDisk(t, t.TempDir()) })
}

func TestMemory_KeepsTheContract(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store { return storage.NewMemory() })
}

func TestFaulty_KeepsTheContractWithoutFaults(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store { return storagetest.NewFaulty(storage.NewMemory()) })
}
