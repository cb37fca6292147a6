//go:build peers

package storage_test

import (
	"testing"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func TestS3Peer_KeepsTheContractOnVersitygw(t *testing.T) {
	gateway := storagetest.StartVersitygw(t)
	n := 0
	storagetest.Run(t, func(t *testing.T) storage.Store {
		n++
		cfg := gateway.Config()
		cfg.Prefix = "store-" + string(rune('a'+n)) // each sentence of the contract has a store of its own
		return openS3(t, cfg)
	})
}
