package certs

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage/storagetest"
)

// wholeCA is a CA that does everything: it issues, says when to renew, revokes.
type wholeCA struct {
	*informedCA
	revoker *revokingCA
}

func (c *wholeCA) Revoke(ctx context.Context, chain [][]byte, key crypto.Signer, reason int) error {
	return c.revoker.Revoke(ctx, chain, key, reason)
}

func newWholeCA(t testing.TB, name string) *wholeCA {
	ca := newFakeCA(t, name)
	ca.life = 160 * time.Hour
	return &wholeCA{&informedCA{fakeCA: ca, answer: asLetsEncrypt}, &revokingCA{fakeCA: ca, revoked: map[leafSum]int{}}}
}

// simulation is a part of a year with two CAs and two processes, in which something happens twice a day.
type simulation struct {
	*house
	random        *rand.Rand
	first, second *wholeCA
	roots         *x509.CertPool
	managers      [2]*Manager
	doubted       map[string]time.Time // names whose certificate was taken away, and when
}

// A failing seed becomes a row here.
func TestManager_MonthsOfAccidents(t *testing.T) {
	days, seeds := 30, uint64(2)
	if testing.Short() {
		days, seeds = 5, 1 // for the race detector
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSimulation(t, seed)
				for range 2 * days {
					s.accident()
					for range 2 {
						time.Sleep(6 * time.Hour)
						s.check()
					}
				}
				if n := s.first.orderCount() + s.second.orderCount(); n > 2*len(s.set.Listed)*days {
					t.Errorf("%d orders for %d names in %d days", n, len(s.set.Listed), days)
				}
			})
		})
	}
}

func newSimulation(t *testing.T, seed uint64) *simulation {
	s := &simulation{
		house: newHouse(t), random: rand.New(rand.NewPCG(seed, 0)), first: newWholeCA(t, "first"), second: newWholeCA(t, "second"),
		roots: x509.NewCertPool(), doubted: map[string]time.Time{},
	}
	s.log = quiet()
	s.roots.AddCert(s.first.cert)
	s.roots.AddCert(s.second.cert)
	s.set.CAs, s.set.ARI = []CA{{Issuer: s.first}, {Issuer: s.second}}, true
	s.set.Failover = Failover{After: 5, BackAfter: day}
	for i := range 5 {
		s.set.Listed = append(s.set.Listed, fmt.Sprintf("n%d.example.com", i))
	}
	for i := range s.managers {
		s.managers[i] = s.open()
	}
	time.Sleep(time.Minute)
	return s
}

func (s *simulation) name() string { return s.set.Listed[s.random.IntN(len(s.set.Listed))] }

// accident ends what the last one began, but for what it did to a name, and lets something else happen.
func (s *simulation) accident() {
	s.store.Set()
	for _, ca := range []*wholeCA{s.first, s.second} {
		ca.failWith(nil)
		ca.say(asLetsEncrypt)
		ca.revoker.set(nil, nil)
	}
	i := s.random.IntN(len(s.managers))
	switch s.random.IntN(12) {
	case 0:
		s.first.failWith(errors.New("down"))
	case 1:
		s.first.failWith(errors.New("down"))
		s.second.failWith(errors.New("down"))
	case 2:
		s.first.failWith(&fakeFailure{scope: ScopeAccount, retryAt: time.Now().Add(20 * time.Hour)})
	case 3:
		s.first.fail(errors.New("no renewal information today"))
	case 4:
		s.first.suggest(RenewalInfo{Window: Window{time.Now().Add(-2 * time.Hour), time.Now().Add(-time.Hour)}})
	case 5:
		s.first.suggest(RenewalInfo{Window: Window{time.Now().Add(time.Hour), time.Now().Add(5 * time.Hour)}})
	case 6: // a kill: its last writes are lost, and so are its leases
		s.managers[i].Close()
		s.store.LoseLeases("")
		s.managers[i] = s.open()
	case 7:
		s.store.Set(storagetest.Fault{Prefix: []string{"certs/", "index/", "pending/", "revocations", "failures/"}[s.random.IntN(5)], Applied: s.random.IntN(2) == 0})
	case 8:
		s.store.Set(storagetest.Fault{Op: storagetest.Lease})
	case 9:
		s.takeBack(i, func(m *Manager, ctx context.Context, name string) error { return m.Compromised(ctx, name) })
	case 10:
		s.takeBack(i, func(m *Manager, ctx context.Context, name string) error { return m.Revoke(ctx, name, ReasonSuperseded) })
	case 11:
		s.first.revoker.set(errors.New("503"), errors.New("503"))
		s.takeBack(i, func(m *Manager, ctx context.Context, name string) error {
			return m.Revoke(ctx, name, ReasonKeyCompromise)
		})
	}
}

func (s *simulation) takeBack(i int, f func(*Manager, context.Context, string) error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Minute)
	defer cancel()
	name := s.name()
	s.doubted[name] = time.Now()
	_ = f(s.managers[i], ctx, name) // if it fails it goes on by itself
}

// check: each name is served by each process with a certificate that verifies and that no CA has revoked, or the name says why not.
func (s *simulation) check() {
	for i, m := range s.managers {
		for _, name := range s.set.Listed {
			cert, err := hello(m, name, s.roots)
			if err != nil {
				if status, err := m.Status(s.t.Context(), name); err == nil && status.LastFailure == nil || time.Since(s.doubted[name]) > 14*time.Hour {
					s.t.Errorf("process %d does not serve %s: %+v, %v", i, name, status, err)
				}
				continue
			}
			if s.first.revoker.reason(cert) >= 0 || s.second.revoker.reason(cert) >= 0 {
				s.t.Errorf("process %d serves %s with a revoked certificate", i, name)
			}
		}
	}
}
