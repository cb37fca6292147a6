package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage/storagetest"
)

// unexplained is a Failure without a Problem; its scope.
type unexplained string

func (f unexplained) Error() string    { return "failure of scope " + string(f) }
func (f unexplained) Scope() string    { return string(f) }
func (unexplained) RetryAt() time.Time { return time.Time{} }

func TestStatus_SaysWhatToDoAboutEveryFailure(t *testing.T) {
	fails := func(err error) func(*house) { return func(h *house) { h.ca.failWith(err) } }
	stores := func(op storagetest.Op, prefix string) func(*house) {
		return func(h *house) { h.store.Set(storagetest.Fault{Op: op, Prefix: prefix}) }
	}
	for _, c := range []struct {
		why   string
		fault func(h *house)
		scope string
		want  string // in the advice
	}{
		{"the issuer explains it", fails(&fakeFailure{scope: ScopeName}), ScopeName, "do something about it"},
		{"a name", fails(unexplained(ScopeName)), ScopeName, "DNS"},
		{"a domain", fails(unexplained(ScopeDomain)), ScopeDomain, "registered domain"},
		{"an account", fails(unexplained(ScopeAccount)), ScopeAccount, "account"},
		{"an address", fails(unexplained(ScopeAddress)), ScopeAddress, "address"},
		{"a CA", fails(unexplained(ScopeCA)), ScopeCA, "tried again by itself"},
		{"a word that we do not know", fails(unexplained("weather")), "weather", "tried again by itself"},
		{"an error of whatever kind", fails(errors.New("connection refused")), ScopeCA, "tried again by itself"},
		{"a hang", fails(fmt.Errorf("newOrder: %w", context.DeadlineExceeded)), ScopeCA, "too long"},
		{"a certificate for another name", func(h *house) {
			h.ca.change = func(c *x509.Certificate) { c.DNSNames = []string{"other.example"} }
		}, ScopeCA, "report it to the CA"},
		{"no CA", func(h *house) { h.set.CAs = nil }, ScopeConfiguration, "[[ca]]"},
		{"no lease", stores(storagetest.Lease, "issue/"), ScopeStorage, "room"},
		{"no pending key", stores(storagetest.PutIf, "pending/"), ScopeStorage, "room"},
		{"a certificate that cannot be stored", stores(storagetest.PutIf, "certs/"), ScopeStorage, "served from memory"},
	} {
		t.Run(c.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t).listing("a.example.com")
				h.log = quiet()
				c.fault(h)
				h.open()
				time.Sleep(time.Second)
				s, err := h.m.Status(t.Context(), "a.example.com")
				if err != nil || s.LastFailure == nil || s.LastFailure.Scope != c.scope || !strings.Contains(s.LastFailure.Advice, c.want) || s.LastFailure.Reason == "" {
					t.Fatalf("%+v, %v", s.LastFailure, err)
				}
				h.store.Set()
				h.ca.failWith(nil)
				h.ca.change = nil
				h.set.CAs = []CA{{Issuer: h.ca}}
				if err := h.m.Apply(h.set); err != nil {
					t.Fatal(err)
				}
				time.Sleep(15 * time.Minute)
				if s, err := h.m.Status(t.Context(), "a.example.com"); err != nil || s.LastFailure != nil || s.State != StateServing {
					t.Errorf("afterwards: %q, %+v, %v", s.State, s.LastFailure, err)
				}
			})
		})
	}
}

func TestStatus_TellsOfAPausedDomain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		end := time.Now().Add(3 * time.Hour)
		h.ca.failWith(&fakeFailure{scope: ScopeDomain, retryAt: end})
		h.open()
		h.refuse("a.example.com")
		s, err := h.m.Status(t.Context(), "b.example.com")
		if err != nil || s.State != StateBackingOff || !s.NextAttempt.Equal(end) || s.LastFailure == nil || s.LastFailure.Advice == "" {
			t.Errorf("%+v, %v", s, err)
		}
	})
}
