package storagetest

import (
	"time"

	"gatelodge/storage"
)

// QuickLeases are times for tests that do not simulate time.
func QuickLeases() storage.LeaseTimes {
	return storage.LeaseTimes{Lease: 3 * time.Second, Beat: time.Second, Poll: 10 * time.Millisecond}
}
