package permission

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
)

// moodyAsk is an endpoint that allows all names to a tenant and upstream, or fails.
type moodyAsk struct {
	*Ask
	asked   *atomic.Int64
	to      atomic.Pointer[string]
	failing atomic.Bool
}

func newMoodyAsk(t *testing.T, ttl string) *moodyAsk {
	a := &moodyAsk{}
	a.say("http://127.0.0.1:1")
	a.Ask, a.asked = newTestAsk(t, func(w http.ResponseWriter, _ *http.Request) {
		if a.failing.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.Header().Set("Cache-Control", ttl)
		fmt.Fprintf(w, `{"tenant":"acme","to":%q}`, *a.to.Load())
	})
	return a
}

func (a *moodyAsk) say(to string) { a.to.Store(&to) }

func (a *moodyAsk) allow(name string) error { return a.Allow(context.Background(), name, netip.Addr{}) }

func TestAsk_WhatItAllowedStaysAllowedWhileItCannotTell(t *testing.T) {
	a := newMoodyAsk(t, "max-age=0")
	if err := a.allow("a.example"); err != nil {
		t.Fatal(err)
	}
	a.failing.Store(true)
	if err := a.allow("a.example"); err != nil {
		t.Errorf("a name that was allowed: %v", err)
	}
	if err := a.allow("b.example"); err == nil || errors.Is(err, ErrDenied) {
		t.Errorf("a name that was never asked about: %v, want that nobody can tell", err)
	}
	a.cfg.StaleIfError = -1
	if err := a.verdict("a.example", mustAnswer(t, a.Ask, "a.example")); err == nil {
		t.Error("allowed by an old answer, though none is to be taken")
	}
}

func TestAsk_ADenialThatIsNotToBeStoredEndsWhatWasAllowedBefore(t *testing.T) {
	var code atomic.Int64
	a, _ := newTestAsk(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(int(code.Load()))
	})
	allow := func() error { return a.Allow(t.Context(), "a.example", netip.Addr{}) }
	code.Store(http.StatusOK)
	if err := allow(); err != nil {
		t.Fatal(err)
	}
	code.Store(http.StatusForbidden)
	if err := allow(); !errors.Is(err, ErrDenied) {
		t.Fatalf("%v, want a denial", err)
	}
	code.Store(http.StatusBadGateway)
	if err := allow(); err == nil || errors.Is(err, ErrDenied) {
		t.Errorf("%v, want that nobody can tell: its last word was no", err)
	}
	if answer, ok := a.Answer("a.example"); ok {
		t.Errorf("%+v is still known of a name that was denied", answer)
	}
}

func mustAnswer(t *testing.T, a *Ask, name string) Answer {
	t.Helper()
	answer, ok := a.Answer(name)
	if !ok {
		t.Fatalf("nothing is known of %s", name)
	}
	return answer
}

func TestAsk_AnOldAnswerServesAtOnceAndIsAskedForAgain(t *testing.T) {
	a := newMoodyAsk(t, "max-age=0")
	if err := a.allow("a.example"); err != nil {
		t.Fatal(err)
	}
	heard := make(chan Answer, 10)
	a.OnChange(func(_ context.Context, _ string, answer Answer) { heard <- answer })
	a.say("http://127.0.0.1:2")
	if got := mustAnswer(t, a.Ask, "a.example"); got.To != "http://127.0.0.1:1" || got.Tenant != "acme" {
		t.Errorf("%+v, want the old answer", got)
	}
	if got := <-heard; got.To != "http://127.0.0.1:2" {
		t.Errorf("changed to %+v", got)
	}
	if got := mustAnswer(t, a.Ask, "a.example"); got.To != "http://127.0.0.1:2" {
		t.Errorf("%+v, want the new answer", got)
	}
}

func TestAsk_WhileItFailsRequestsDoNotMakeItBeAskedAgainAndAgain(t *testing.T) {
	a := newMoodyAsk(t, "max-age=0")
	if err := a.allow("a.example"); err != nil {
		t.Fatal(err)
	}
	a.failing.Store(true)
	_ = a.allow("a.example")
	before := a.asked.Load()
	for range 1000 {
		_ = mustAnswer(t, a.Ask, "a.example")
	}
	a.Close() // waits for what is under way
	if n := a.asked.Load() - before; n > 1 {
		t.Errorf("asked %d times for 1000 requests within %v", n, refreshPause)
	}
}

func TestAsk_ANewOneKnowsWhereCustomersGo(t *testing.T) {
	old := newMoodyAsk(t, "max-age=600")
	if err := old.allow("a.example"); err != nil {
		t.Fatal(err)
	}
	fresh := newMoodyAsk(t, "max-age=600")
	fresh.failing.Store(true)
	fresh.Inherit(old.Ask)
	if _, known := fresh.Known("a.example"); known {
		t.Error("another endpoint's word is taken without asking")
	}
	if got := mustAnswer(t, fresh.Ask, "a.example"); got.To != "http://127.0.0.1:1" {
		t.Errorf("%+v", got)
	}
}
