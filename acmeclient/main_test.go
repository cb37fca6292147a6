package acmeclient

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// pebble's va.New starts one goroutine that nothing can stop.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"))
}
