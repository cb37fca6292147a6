package acmeclient

import (
	"fmt"
	"testing"
	"time"
)

func TestNoncePool_GivesTheYoungestFirstAndNoOldOnes(t *testing.T) {
	var p noncePool
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for i := range maxNonces + 10 {
		p.put(fmt.Sprintf("n%d", i), now)
	}
	for _, bad := range []string{"", "a b", "ä", "a=", "a\nb"} {
		p.put(bad, now)
	}
	for i := maxNonces + 9; i >= 10; i-- {
		if got, ok := p.take(now.Add(maxNonceAge)); !ok || got != fmt.Sprintf("n%d", i) {
			t.Fatalf("got %q, %v, wanted n%d", got, ok, i)
		}
	}
	if got, ok := p.take(now); ok {
		t.Errorf("the pool of %d still has %q", maxNonces, got)
	}
	p.put("old", now)
	if got, ok := p.take(now.Add(maxNonceAge + time.Second)); ok {
		t.Errorf("%q is too old", got)
	}
}
