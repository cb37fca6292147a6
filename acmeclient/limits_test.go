package acmeclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zaptest"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func TestLimitBook_CoversWhatTheScopeSays(t *testing.T) {
	for _, tt := range []struct {
		limit Limit
		names []string
		want  bool
	}{
		{Limit{Scope: ScopeName, Subject: "a.test"}, []string{"a.test"}, true},
		{Limit{Scope: ScopeName, Subject: "a.test"}, []string{"a.test", "b.test"}, true},
		{Limit{Scope: ScopeName, Subject: "a.test"}, []string{"aa.test"}, false},
		{Limit{Scope: ScopeName, Subject: "a.test,b.test"}, []string{"a.test", "b.test"}, true},
		{Limit{Scope: ScopeName, Subject: "a.test,b.test"}, []string{"a.test"}, false},
		{Limit{Scope: ScopeDomain, Subject: "example.com"}, []string{"example.com"}, true},
		{Limit{Scope: ScopeDomain, Subject: "example.com"}, []string{"x.y.example.com"}, true},
		{Limit{Scope: ScopeDomain, Subject: "example.com"}, []string{"notexample.com"}, false},
		{Limit{Scope: ScopeAccount}, []string{"a.test"}, true},
		{Limit{Scope: ScopeAddress}, nil, true},
		{Limit{Scope: ScopeCA}, nil, true},
		{Limit{Scope: ScopeName, Subject: "a.test"}, nil, false},
	} {
		if got := tt.limit.covers(tt.names); got != tt.want {
			t.Errorf("%+v covers %v: %v", tt.limit, tt.names, got)
		}
	}
}

func TestLimitBook_IsSharedButForTheAddressAndObeyedToTheSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storage.NewMemory()
		mine := limitBook{ca: "ca", store: store, log: zaptest.NewLogger(t)}
		other := limitBook{ca: "ca", store: store, log: zaptest.NewLogger(t)}
		ctx, names := context.Background(), []string{"a.test"}
		problem := func(scope string) *Problem {
			return &Problem{CA: "ca", scope: scope, Detail: "no", Advice: "wait", retryAt: time.Now().Add(2 * time.Minute)}
		}
		for _, tt := range []struct {
			scope  string
			shared bool
		}{{ScopeName, true}, {ScopeAccount, true}, {ScopeAddress, false}, {ScopeCA, false}} {
			mine.note(ctx, problem(tt.scope), names)
			time.Sleep(limitsRefresh)
			for node, book := range map[string]*limitBook{"mine": &mine, "other": &other} {
				var p *Problem
				if err := book.check(ctx, names); errors.As(err, &p) != (tt.shared || node == "mine") {
					t.Errorf("%s: node %s: %v", tt.scope, node, err)
				} else if p != nil && (p.Scope() != tt.scope || p.Detail != "no") {
					t.Errorf("%s: node %s: %+v", tt.scope, node, p)
				}
			}
			time.Sleep(2*time.Minute - limitsRefresh - time.Second)
			if mine.check(ctx, names) == nil {
				t.Errorf("%s: let go a second early", tt.scope)
			}
			time.Sleep(time.Second)
			if err := mine.check(ctx, names); err != nil {
				t.Errorf("%s: still held: %v", tt.scope, err)
			}
		}
	})
}

func TestLimitBook_IsBoundedAndNeedsNoStore(t *testing.T) {
	store := storagetest.NewFaulty(storage.NewMemory(), storagetest.Fault{})
	b := limitBook{ca: "ca", store: store, log: zaptest.NewLogger(t)}
	now := time.Now()
	for i := range maxLimits + 50 {
		b.limits = mergeLimit(b.limits, Limit{Scope: ScopeName, Subject: fmt.Sprint(i), Until: now.Add(time.Duration(i+1) * time.Minute)}, now)
	}
	if n := len(b.list(now)); n != maxLimits {
		t.Errorf("%d limits are kept", n)
	}
	b.note(t.Context(), &Problem{scope: ScopeAccount, retryAt: now.Add(time.Hour)}, nil)
	if b.check(t.Context(), []string{"x.test"}) == nil {
		t.Error("a limit is lost because the store does not answer")
	}
	before := store.Count("", "")
	var p *Problem
	errors.As(b.check(t.Context(), []string{"x.test"}), &p)
	b.note(t.Context(), p, nil)
	if store.Count("", "") != before {
		t.Error("what was remembered is stored again")
	}
}

func TestLimitBook_ForgivesANameAndNothingElse(t *testing.T) {
	store := storage.NewMemory()
	mine := limitBook{ca: "ca", store: store, log: zaptest.NewLogger(t)}
	for name, scope := range map[string]string{"a.test": ScopeName, "b.test": ScopeName, "": ScopeAccount} {
		mine.note(t.Context(), &Problem{CA: "ca", scope: scope, paused: scope == ScopeName, retryAt: time.Now().Add(time.Hour)}, []string{name})
	}
	if err := mine.forgiveNames(t.Context(), []string{"a.test"}); err != nil {
		t.Fatal(err)
	}
	fresh := limitBook{ca: "ca", store: store, log: zaptest.NewLogger(t)}
	_ = fresh.check(t.Context(), nil) // reads the store
	for node, book := range map[string]*limitBook{"mine": &mine, "another": &fresh} {
		var left []string
		for _, l := range book.list(time.Now()) {
			left = append(left, l.Scope+" "+l.Subject)
		}
		slices.Sort(left)
		if want := []string{"account ", "name b.test"}; !slices.Equal(left, want) {
			t.Errorf("%s: %v, want %v", node, left, want)
		}
		var p *Problem
		if err := book.check(t.Context(), []string{"b.test"}); !errors.As(err, &p) {
			t.Errorf("%s: b.test is forgiven too: %v", node, err)
		}
	}
}

func TestForgive_LetsACAThatWasOutOfOrderBeAskedButKeepsItsLimits(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault fault
		works bool
	}{
		{"maintenance", problemReply(pathOrder, 503, "serverInternal", "maintenance", "Retry-After", "3600"), true},
		{"a person was to act", problemReply(pathOrder, 403, "userActionRequired", "terms changed"), true},
		{"a limit of the account", problemReply(pathOrder, 429, "rateLimited", "too many new orders", "Retry-After", "3600"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, p, _, _ := setup(t, pebbleOptions{})
			p.fail(tt.fault)
			r := newRequest(t, "www.example.test")
			if _, err := c.Obtain(t.Context(), r); err == nil {
				t.Fatal("obtained")
			}
			p.fail()
			if _, err := c.Obtain(t.Context(), r); err == nil {
				t.Fatal("the CA was asked before it wants to be")
			}
			if err := c.Forgive(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Obtain(t.Context(), r); (err == nil) != tt.works {
				t.Errorf("after a person's wish: %v", err)
			}
		})
	}
}
