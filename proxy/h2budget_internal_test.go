package proxy

import (
	"testing"
	"testing/synctest"
	"time"
)

// A gRPC stream may wait for news for weeks; its client asks every second whether we are still there.
func TestH2Budget_AllowsAPingEverySecondForEver(t *testing.T) {
	const ping = 9 + 8 + 22 // frame, and the TLS record around it
	synctest.Test(t, func(t *testing.T) {
		b := newH2Budget(time.Now())
		for minute := range 30 * 24 * 60 {
			time.Sleep(time.Minute)
			if err := b.take(60 * ping); err != nil {
				t.Fatalf("after %d minutes: %v", minute, err)
			}
		}
		for range h2Waste {
			if b.take(1500) != nil {
				return
			}
		}
		t.Error("after a month a connection may bring anything")
	})
}
