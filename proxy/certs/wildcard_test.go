package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/proxy/hostname"
	"gatelodge/storage/storagetest"
)

// sites makes the house claim hosts as the program does: by a table of patterns, all of which are listed but those that are on demand.
func (h *house) sites(policies map[string]Policy) *house {
	h.t.Helper()
	table := &hostname.Table[Policy]{}
	for pattern, policy := range policies {
		policy.Site = pattern
		if err := table.Add(pattern, policy); err != nil {
			h.t.Fatal(err)
		}
		if !policy.OnDemand && pattern != "*" {
			h.set.Listed = append(h.set.Listed, pattern)
		}
	}
	h.set.Lookup = table.Lookup
	return h
}

func TestWildcard_IsOrderedAndServesOneLabelBelowIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).sites(map[string]Policy{"*.example.com": {}, "own.example.com": {}, "*": {OnDemand: true}})
		internal := newFakeCA(t, "internal")
		h.set.CAs = append(h.set.CAs, CA{Issuer: internal, Names: []string{"*.internal"}, Internal: true})
		h.ca.script(func(_ context.Context, r *Request) error {
			if csr, err := x509.ParseCertificateRequest(r.CSR); err != nil || !slices.Equal(csr.DNSNames, r.Names) {
				return fmt.Errorf("the request is for %v, not %v: %w", csr.DNSNames, r.Names, err)
			}
			return nil
		})
		h.open()
		time.Sleep(time.Second)
		h.wantIssued("*.example.com", 1)
		wild := h.must("a.example.com")
		if !slices.Equal(wild.DNSNames, []string{"*.example.com"}) || !h.must("B.Example.COM").Equal(wild) {
			t.Errorf("served with %v", wild.DNSNames)
		}
		if n := h.gate.count(); n != 0 {
			t.Errorf("permission was asked %d times for names below a listed wildcard", n)
		}
		for _, name := range []string{"own.example.com", "example.com", "a.b.example.com"} {
			if cert := h.must(name); !slices.Equal(cert.DNSNames, []string{name}) {
				t.Errorf("%s is served with %v", name, cert.DNSNames)
			}
		}
		if asked := h.gate.asked; !slices.Equal(asked, []string{"example.com", "a.b.example.com"}) {
			t.Errorf("permission was asked for %v", asked)
		}
		s, err := h.m.Status(t.Context(), "a.example.com")
		if err != nil || s.Name != "*.example.com" || s.For != "a.example.com" || s.State != StateServing || s.CA != "fake" {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

func TestWildcard_IsOneOrderHoweverManyHostsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).sites(map[string]Policy{"*.example.com": {}})
		h.ca.script(func(context.Context, *Request) error { time.Sleep(3 * time.Minute); return nil }) // DNS takes its time
		h.open()
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				began := time.Now()
				_, err := h.m.GetCertificate((&pipeAt{}).hello(fmt.Sprintf("n%d.example.com", i)))
				if !errors.Is(err, errWaited) || time.Since(began) != 20*time.Second {
					t.Errorf("after %s: %v", time.Since(began), err)
				}
			})
		}
		all.Wait()
		time.Sleep(3 * time.Minute)
		for i := range 50 {
			h.must(fmt.Sprintf("n%d.example.com", i))
		}
		h.wantIssued("", 1)
		h.m.Close()
		h.open()
		synctest.Wait()
		h.m.cache.drop("*.example.com")
		before := h.store.Count(storagetest.Get, "certs/")
		for i := range 50 {
			h.must(fmt.Sprintf("n%d.example.com", i))
		}
		if n := h.store.Count(storagetest.Get, "certs/") - before; n != 1 {
			t.Errorf("%d reads for 50 hosts", n)
		}
	})
}

func TestWildcard_IsRenewedAfterARestartNamingItsPredecessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).sites(map[string]Policy{"*.example.com": {}})
		h.open()
		old := h.must("a.example.com")
		time.Sleep(time.Second)
		h.m.Close()
		time.Sleep(30 * day)
		h.open()
		time.Sleep(35 * day)
		if h.must("a.example.com").Equal(old) {
			t.Error("not renewed")
		}
		if orders := h.ca.asked("*.example.com"); len(orders) != 2 || !orders[1].pred {
			t.Errorf("%v", orders)
		}
	})
}

func TestWildcard_FailureHoldsBackAllHostsBelowIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).sites(map[string]Policy{"*.example.com": {}, "own.example.com": {}})
		h.ca.script(func(_ context.Context, r *Request) error {
			if r.Names[0][0] == '*' {
				return &fakeFailure{scope: ScopeName}
			}
			return nil
		})
		h.open()
		time.Sleep(time.Second)
		for i := range 100 {
			if _, held := errors.AsType[*BackoffError](h.refuse(fmt.Sprintf("n%d.example.com", i))); !held {
				t.Fatal("not held back")
			}
		}
		h.must("own.example.com")
		h.wantIssued("*.example.com", 1)
		s, err := h.m.Status(t.Context(), "n1.example.com")
		if err != nil || s.State != StateBackingOff || s.LastFailure == nil || s.LastFailure.Advice == "" {
			t.Errorf("%+v, %v", s, err)
		}
		h.ca.script(nil)
		time.Sleep(2 * time.Minute)
		h.must("n1.example.com")
	})
}

func TestWildcard_GoesToTheCAsThatServeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).sites(map[string]Policy{"*.example.com": {}, "*.corp.example": {}, "*.picked.example": {CAs: []string{"second"}}, "*.internal": {}})
		corp, second, internal := newFakeCA(t, "corp"), newFakeCA(t, "second"), newFakeCA(t, "internal")
		h.set.CAs = []CA{
			{Issuer: h.ca}, {Issuer: corp, Names: []string{"*.corp.example"}}, {Issuer: internal, Names: []string{"*.internal"}, Internal: true}, {Issuer: second},
		}
		h.open()
		time.Sleep(time.Second)
		for _, c := range []struct {
			host string
			ca   *fakeCA
			want string
		}{
			{"a.example.com", h.ca, "*.example.com"},
			{"a.corp.example", corp, "*.corp.example"},
			{"a.picked.example", second, "*.picked.example"},
			{"a.internal", internal, "a.internal"}, // one by one: clients of an internal CA may be picky, and it costs nothing
		} {
			cert, err := hello(h.m, c.host, c.ca.pool())
			if err != nil || !slices.Equal(cert.DNSNames, []string{c.want}) {
				t.Errorf("%s: %v, %v", c.host, cert, err)
			}
		}
	})
}
