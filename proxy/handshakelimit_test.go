package proxy

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestClientRate_GivesBackWhatTimeBrings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l clientRate
		client := netip.MustParseAddr("192.0.2.1")
		count := func(n int) (ok int) {
			for range n {
				if l.take(client, 10) {
					ok++
				}
			}
			return ok
		}
		if got := count(30); got != 10 {
			t.Errorf("at once: %d, want 10", got)
		}
		time.Sleep(300 * time.Millisecond)
		if got := count(30); got != 3 {
			t.Errorf("after 300 ms: %d, want 3", got)
		}
		for range 50 { // at the rate, over many generations
			time.Sleep(100 * time.Millisecond)
			if !l.take(client, 10) {
				t.Fatal("the rate itself is too much")
			}
			if l.take(client, 10) {
				t.Fatal("more than the rate went through")
			}
		}
		time.Sleep(time.Hour)
		if got := count(30); got != 10 {
			t.Errorf("after an hour: %d, want 10", got)
		}
		if !l.take(client, 0) || !l.take(netip.Addr{}, 0.001) {
			t.Error("no limit limits")
		}
	})
}

func TestClientRate_BelowOnePerSecondStillLetsOneIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l clientRate
		client := netip.MustParseAddr("192.0.2.1")
		if !l.take(client, 0.1) || l.take(client, 0.1) {
			t.Error("want one and no more")
		}
		time.Sleep(9 * time.Second)
		if l.take(client, 0.1) {
			t.Error("too early")
		}
		time.Sleep(time.Second)
		if !l.take(client, 0.1) {
			t.Error("too late")
		}
	})
}

func TestClientRate_RemembersAsManyClientsAsItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which no time passes
		var l clientRate
		addr := netip.MustParseAddr("10.0.0.0")
		for range 5 * maxRateClients {
			l.take(addr, 1)
			addr = addr.Next()
		}
		if n := len(l.young) + len(l.old); n > 2*maxRateClients {
			t.Errorf("%d clients are remembered", n)
		}
	})
}
