package acmeclient

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/acmeclient/devca"
)

// TestDevCA_TakesEverythingOfV2: the second CA that the client is held to in each run, with the rules of RFC 9773 that pebble does not keep.
func TestDevCA_TakesEverythingOfV2(t *testing.T) {
	c, ca, n, store := oldSetup(t, devca.Config{
		Protocols: devca.ProtocolsV2, Lifetime: 24 * time.Hour, RetryAfter: time.Second, ProcessingTime: 100 * time.Millisecond,
		Profiles: map[string]devca.Profile{"short": {Description: "an hour", Lifetime: time.Hour}},
	}, withProfile("short", true))

	first := obtain(t, c, newRequest(t, "www.example.test"))
	leaf := leafOf(t, first)
	if life := leaf.NotAfter.Sub(leaf.NotBefore).Round(time.Minute); first.Profile != "short" || life != time.Hour {
		t.Errorf("profile %q, lives for %v", first.Profile, life)
	}
	info, err := c.RenewalInfo(t.Context(), first.Chain)
	if err != nil || info.Start.Before(leaf.NotBefore) || !info.End.Before(leaf.NotAfter) || info.NextCheck.Before(time.Now().Add(5*time.Hour)) {
		t.Errorf("renewal information is %+v, error %v", info, err)
	}

	r, key := withKey(t, "www.example.test")
	r.Predecessor = first.Chain
	orders := ca.count("/new-order")
	second := obtain(t, c, r)
	if got := ca.count("/new-order") - orders; got != 1 {
		t.Errorf("%d orders for a renewal", got)
	}
	r = newRequest(t, "www.example.test")
	r.Predecessor = first.Chain // which is replaced already
	orders = ca.count("/new-order")
	obtain(t, c, r)
	if got := ca.count("/new-order") - orders; got != 2 {
		t.Errorf("%d orders to replace what is replaced; wanted the refused one and another", got)
	}

	before, err := c.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old := c.accounts.get().key
	if after, err := c.RollKey(t.Context()); err != nil || after.URL != before.URL || sameKey(c.accounts.get().key, old) {
		t.Errorf("account was %s, is %+v, error %v", before.URL, after, err)
	}
	contact := []string{"mailto:new@example.test"}
	changed := newOldClient(t, ca, n, store, func(cfg *Config) { cfg.Contact = contact })
	if acct, err := changed.Account(t.Context()); err != nil || !slices.Equal(acct.Contact, contact) {
		t.Errorf("account is %+v, error %v", acct, err)
	}

	if err := changed.Revoke(t.Context(), first.Chain, nil, ReasonSuperseded); err != nil {
		t.Errorf("revoke by the account: %v", err)
	}
	if err := changed.Revoke(t.Context(), second.Chain, key, ReasonKeyCompromise); err != nil {
		t.Errorf("revoke by the key: %v", err)
	}
	if info, err := changed.RenewalInfo(t.Context(), second.Chain); err != nil || !info.End.Before(time.Now()) {
		t.Errorf("renewal information of a revoked certificate is %+v, error %v", info, err)
	}
}

// TestObtain_PlacesNoOrderBeforeTheLimitEnds: nor does any other name of the account, nor another node.
func TestObtain_PlacesNoOrderBeforeTheLimitEnds(t *testing.T) {
	synctest.Test(t, testLimit)
}

func testLimit(t *testing.T) {
	var limited atomic.Bool
	ca := newBubble(t, devca.Config{Protocols: devca.ProtocolsV2, RateLimit: func(endpoint string, _ []string) *devca.Limit {
		if endpoint != "newOrder" || limited.Swap(true) {
			return nil
		}
		return &devca.Limit{Detail: "too many new orders (300) from this account in the last 3h0m0s", RetryAfter: 2 * time.Minute}
	}})
	c, other := ca.client(t), ca.client(t)
	began := time.Now()
	_, err := c.Obtain(t.Context(), newRequest(t, "a.example.test"))
	until := problemAt(t, err, "old", ScopeAccount).RetryAt()
	if d := until.Sub(began); d < 2*time.Minute || d > 2*time.Minute+time.Second {
		t.Errorf("retry in %v, the CA said 2 min", d)
	}
	for i := 0; time.Until(until) > time.Second; i++ {
		for _, client := range []*Client{c, other} {
			_, err := client.Obtain(t.Context(), newRequest(t, fmt.Sprintf("b%d.example.test", i)))
			if got := problemAt(t, err, "old", ScopeAccount).RetryAt(); !got.Equal(until) {
				t.Errorf("retry at %v, wanted %v", got, until)
			}
		}
		time.Sleep(time.Second)
	}
	if got := ca.count("/new-order"); got != 1 {
		t.Errorf("%d orders before the limit ended", got)
	}
	time.Sleep(time.Until(until))
	for i, client := range []*Client{c, other} {
		obtain(t, client, newRequest(t, strings.Repeat("c", i+1)+".example.test"))
	}
}
