package acmeclient

import (
	"strings"
	"testing"
	"time"
)

func withProfile(profile string, required bool) func(*Config) {
	return func(cfg *Config) { cfg.Profile, cfg.ProfileRequired = profile, required }
}

func TestObtain_AsksForTheProfile(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{}, withProfile("minute", false))
	payloads := p.payloads(pathOrder)
	if cert := obtain(t, c, newRequest(t, "www.example.test")); cert.Profile != "minute" {
		t.Errorf("profile is %q", cert.Profile)
	}
	r := newRequest(t, "www.example.test")
	r.Profile = "hour"
	if cert := obtain(t, c, r); cert.Profile != "hour" {
		t.Errorf("profile is %q", cert.Profile)
	}
	if got := payloads(); !strings.Contains(got[0], `"profile":"minute"`) || !strings.Contains(got[1], `"profile":"hour"`) {
		t.Errorf("orders are %q", got)
	}
}

func TestObtain_AProfileThatTheCADoesNotOffer(t *testing.T) {
	t.Run("is left out", func(t *testing.T) {
		c, p, _, _ := setup(t, pebbleOptions{}, withProfile("century", false))
		payloads := p.payloads(pathOrder)
		if cert := obtain(t, c, newRequest(t, "www.example.test")); cert.Profile != "" {
			t.Errorf("profile is %q", cert.Profile)
		}
		if got := payloads(); len(got) != 1 || strings.Contains(got[0], "profile") {
			t.Errorf("orders are %q", got)
		}
	})
	t.Run("is an error if it is required", func(t *testing.T) {
		c, p, _, _ := setup(t, pebbleOptions{}, withProfile("century", true))
		_, err := c.Obtain(t.Context(), newRequest(t, "www.example.test"))
		if problem := problemOf(t, err, ScopeCA); kind(problem.Type) != "invalidProfile" || p.count(pathOrder) != 0 {
			t.Errorf("problem is %v after %d orders", problem, p.count(pathOrder))
		}
	})
	t.Run("is left out if the CA has taken it away since", func(t *testing.T) {
		c, p, _, _ := setup(t, pebbleOptions{}, withProfile("minute", false))
		payloads := p.payloads(pathOrder)
		p.fail(append(p.faults, times(1, problemReply(pathOrder, 400, "invalidProfile", "no such profile")))...)
		before := p.count("/dir")
		obtain(t, c, newRequest(t, "www.example.test"))
		if got := payloads(); len(got) != 2 || strings.Contains(got[1], "profile") {
			t.Errorf("orders are %q", got)
		}
		obtain(t, c, newRequest(t, "www.example.test"))
		if got := p.count("/dir") - before; got != 2 {
			t.Errorf("the directory was read %d times, the last to see what there is now", got)
		}
	})
	t.Run("is asked for as soon as the CA has it", func(t *testing.T) {
		c, p, _, _ := setup(t, pebbleOptions{}, withProfile("minute", true))
		p.rewrite(editDirectory(func(dir map[string]any) { delete(dir["meta"].(map[string]any), "profiles") }))
		r := newRequest(t, "www.example.test")
		_, err := c.Obtain(t.Context(), r)
		problemOf(t, err, ScopeCA)
		p.rewrite()
		before := p.count("/dir")
		_, err = c.Obtain(t.Context(), r)
		if problemOf(t, err, ScopeCA); p.count("/dir") != before {
			t.Error("the directory is read for each order")
		}
		cache := &c.wire.directory
		cache.mu.Lock()
		cache.fetched = time.Now().Add(-directoryRefresh - time.Second)
		cache.mu.Unlock()
		if cert := obtain(t, c, r); cert.Profile != "minute" {
			t.Errorf("profile is %q", cert.Profile)
		}
	})
}

func TestObtain_AnOrderThatIsContinuedKeepsItsProfile(t *testing.T) {
	for _, tt := range []struct {
		name    string
		later   func(*Config)
		profile string
		orders  int
	}{
		{"none is configured any more", withProfile("", false), "minute", 1},
		{"another is preferred by now", withProfile("hour", false), "minute", 1},
		{"another is required by now", withProfile("hour", true), "hour", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, p, n, store := setup(t, pebbleOptions{}, withProfile("minute", false))
			orders := p.orders()
			p.fail(problemReply(pathFinalize, 500, "serverInternal", "boom"))
			r := newRequest(t, "www.example.test")
			_, err := c.Obtain(t.Context(), r)
			problemOf(t, err, ScopeCA)
			p.fail()
			cert := obtain(t, newClient(t, p, n, store, tt.later), r)
			if cert.Profile != tt.profile || orders.get() != tt.orders {
				t.Errorf("profile is %q after %d orders", cert.Profile, orders.get())
			}
		})
	}
}
