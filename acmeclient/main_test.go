package acmeclient

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// What pebble takes from the environment when it is made; tests that want other values set them and are not parallel.
	for name, value := range map[string]string{
		"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "5", "PEBBLE_AUTHZREUSE": "0",
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m,
		// pebble's va.New starts one goroutine that nothing can stop.
		goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"),
		// net/http waits for half a second in it before it closes a connection whose client may still be sending, longer than goleak waits.
		goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}
