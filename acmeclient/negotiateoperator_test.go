package acmeclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"gatelodge/acmeclient/devca"
	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

// besideAt gives the client both addresses of a CA whose v2 appears beside v1.
func besideAt(o **oldCA) func(*Config) {
	return func(cfg *Config) { cfg.Directory, cfg.DirectoryV1 = (*o).url+"/v2/directory", (*o).url+pathDirectory }
}

// absentBefore makes the store remember that v2's place was absent, so that a test need not wait half a minute.
func absentBefore(t *testing.T, c *Client) {
	t.Helper()
	_, _, err := c.negotiator.change(t.Context(), func(n negotiation) negotiation {
		n.AbsentFirst = time.Now().Add(-time.Minute)
		n.AbsentLast = n.AbsentFirst
		return n
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestProbe_MovesUpAtOnce: a person asked, so the second look does not wait ten minutes. Both ways in which CAs moved.
func TestProbe_MovesUpAtOnce(t *testing.T) {
	for _, protocols := range []devca.Protocols{devca.ProtocolsV1, devca.ProtocolsBeside} {
		t.Run(string(protocols), func(t *testing.T) {
			store := storage.NewMemory()
			n := newNode(t, store)
			o := newOldCA(t, n, devca.Config{Protocols: protocols})
			both := func(cfg *Config) {
				if protocols == devca.ProtocolsBeside {
					besideAt(&o)(cfg)
				}
			}
			c := newOldClient(t, o, n, store, both)
			other := newOldClient(t, o, n, store, both)
			absentBefore(t, c)
			first := obtain(t, c, newRequest(t, "a.localhost"))
			key := c.accounts.get().key
			if s, err := c.Probe(t.Context()); err != nil || s.Negotiation.State != "v1" || s.Negotiation.Trouble != "" {
				t.Errorf("probe before the upgrade: %+v, %v", s, err)
			}
			o.Upgrade()
			before := len(o.requests(0))
			s, err := c.Probe(t.Context())
			if err != nil || s.Negotiation.State != "v2" || s.Negotiation.Deprecated {
				t.Fatalf("probe: %+v, %v", s, err)
			}
			looks := 0
			for _, line := range o.requests(before) {
				if line == "GET "+strings.TrimPrefix(c.cfg.Directory, o.url) {
					looks++
				}
			}
			if looks != 2 {
				t.Errorf("%d looks: %v", looks, o.requests(before))
			}
			second := obtain(t, c, newRequest(t, "b.localhost"))
			if first.Protocol != ProtocolV1 || second.Protocol != ProtocolV2 || second.Account != o.url+"/v2/acct/1" || !sameKey(c.accounts.get().key, key) {
				t.Errorf("certificates are %+v and %+v", first, second)
			}
			if n := o.Stats().Accounts; n != 1 {
				t.Errorf("%d accounts", n)
			}
			if cert := obtain(t, other, newRequest(t, "c.localhost")); cert.Protocol != ProtocolV2 { // knew nothing, finds it in the store
				t.Errorf("the other node's certificate is %+v", cert)
			}
		})
	}
}

// TestProbe_RegistersTheSameKeyWhereV2DoesNotShareAccounts: the CA's v2 may be another server.
func TestProbe_RegistersTheSameKeyWhereV2DoesNotShareAccounts(t *testing.T) {
	c, o, n, _ := oldSetup(t, devca.Config{})
	obtain(t, c, newRequest(t, "a.localhost"))
	key := c.accounts.get().key
	young, err := devca.New(devca.Config{HTTPAddr: n.http.Addr().String(), TLSAddr: n.tls.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer young.Close()
	o.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != pathDirectory && !strings.HasPrefix(r.URL.Path, "/v2/") {
			return false
		}
		young.Handler().ServeHTTP(w, r)
		return true
	})
	if s, err := c.Probe(t.Context()); err != nil || s.Negotiation.State != "v2" {
		t.Fatalf("probe: %+v, %v", s, err)
	}
	cert := obtain(t, c, newRequest(t, "b.localhost"))
	if cert.Protocol != ProtocolV2 || young.Stats().Accounts != 1 || !sameKey(c.accounts.get().key, key) {
		t.Errorf("certificate is %+v, accounts %d", cert, young.Stats().Accounts)
	}
}

// TestProbe_LiftsWhatV1SaidOfTheCA: closed for v1 is not closed for v2.
func TestProbe_LiftsWhatV1SaidOfTheCA(t *testing.T) {
	c, o, _, _ := oldSetup(t, devca.Config{V1: devca.V1Switches{NoNewRegistrations: true}})
	for range 2 {
		_, err := c.Obtain(t.Context(), newRequest(t, "a.localhost"))
		problemAt(t, err, "old", ScopeCA)
	}
	if n := o.count("POST"); n != 1 {
		t.Errorf("%d registrations were tried", n)
	}
	o.Upgrade()
	if s, err := c.Probe(t.Context()); err != nil || s.Negotiation.State != "v2" {
		t.Fatalf("probe: %+v, %v", s, err)
	}
	obtain(t, c, newRequest(t, "a.localhost"))
}

// TestUpgrade_OrdersEndWhereTheyBegan: an order over v1 that is under way when the CA moves up, in this process and in its successor.
func TestUpgrade_OrdersEndWhereTheyBegan(t *testing.T) {
	for _, crash := range []bool{false, true} {
		c, o, n, store := oldSetup(t, devca.Config{})
		obtain(t, c, newRequest(t, "warm.localhost"))
		ctx, cancel := context.WithCancel(t.Context())
		var once sync.Once
		o.fail(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == pathNewCert {
				once.Do(func() {
					o.Upgrade()
					if s, err := c.Probe(t.Context()); err != nil || s.Negotiation.State != "v2" {
						t.Errorf("probe: %+v, %v", s, err)
					}
					if crash {
						cancel()
						panic(http.ErrAbortHandler)
					}
				})
			}
			return false
		})
		r := newRequest(t, "a.localhost")
		cert, err := c.Obtain(ctx, r)
		if crash {
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("Obtain of the one that crashes: %v", err)
			}
			cert = obtain(t, newOldClient(t, o, n, store), r)
		} else if err != nil {
			t.Fatal(err)
		}
		if cert.Protocol != ProtocolV1 || cert.Account != o.url+"/acme/reg/1" {
			t.Errorf("crash %v: certificate is %+v", crash, cert)
		}
		if cert := obtain(t, c, newRequest(t, "b.localhost")); cert.Protocol != ProtocolV2 {
			t.Errorf("crash %v: the next certificate is %+v", crash, cert)
		}
		if n := o.Stats().Orders["a.localhost"]; n != 1 {
			t.Errorf("crash %v: %d certificates", crash, n)
		}
		cancel()
	}
}

// TestUpgrade_AnOrderDoesNotWaitForAServerThatIsGone: it is placed anew where the CA is now.
func TestUpgrade_AnOrderDoesNotWaitForAServerThatIsGone(t *testing.T) {
	c, o, n, store := oldSetup(t, devca.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.fail(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, pathChallV1) {
			cancel() // we crash while the order is under way
			panic(http.ErrAbortHandler)
		}
		return false
	})
	r := newRequest(t, "a.localhost")
	if _, err := c.Obtain(ctx, r); !errors.Is(err, context.Canceled) {
		t.Fatalf("Obtain of the one that crashes: %v", err)
	}
	o.Upgrade()
	o.fail(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, pathsV1) {
			panic(http.ErrAbortHandler)
		}
		return false
	})
	c = newOldClient(t, o, n, store)
	if s, err := c.Probe(t.Context()); err != nil || s.Negotiation.State != "v2" || s.Protocol != ProtocolV2 {
		t.Fatalf("probe: %+v, %v", s, err)
	}
	if cert := obtain(t, c, r); cert.Protocol != ProtocolV2 {
		t.Errorf("certificate is %+v", cert)
	}
}

// TestReset_IsTheOnlyWayBackToV1 for a CA that really has no v2 any more.
func TestReset_IsTheOnlyWayBackToV1(t *testing.T) {
	store := storage.NewMemory()
	n := newNode(t, store)
	o := newOldCA(t, n, devca.Config{Protocols: devca.ProtocolsBeside})
	o.Upgrade()
	c := newOldClient(t, o, n, store, besideAt(&o), func(cfg *Config) { cfg.Directory, cfg.DirectoryV1 = o.url+"/v2/directory", "" })
	log, logs := logged(zap.NewAtomicLevelAt(zap.WarnLevel))
	c.negotiator.log = log
	m := &countedNegotiation{}
	c.negotiator.metrics = m
	obtain(t, c, newRequest(t, "a.localhost"))
	o.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/directory" {
			r.URL.Path = pathDirectory
		}
		return false
	})
	s, err := c.Probe(t.Context())
	problem := problemAt(t, err, "old", ScopeCA)
	if s.Negotiation.State != "downgrade-suspected" || !strings.Contains(problem.Advice, "acme reset old") || m.suspected != 1 ||
		logs.FilterLevelExact(zap.ErrorLevel).FilterMessageSnippet("downgrade is suspected").Len() != 1 {
		t.Fatalf("status is %+v, problem %v, metrics %+v", s, problem, m)
	}
	for range 3 {
		_, err := c.Obtain(t.Context(), newRequest(t, "b.localhost"))
		problemAt(t, err, "old", ScopeCA)
	}
	if n := o.count("POST " + pathsV1); n != 0 {
		t.Fatalf("%d requests over v1", n)
	}
	if s, err = c.Reset(t.Context()); err != nil || s.Negotiation.State != "v1" {
		t.Fatalf("reset: %+v, %v", s, err)
	}
	cert := obtain(t, c, newRequest(t, "b.localhost"))
	if cert.Protocol != ProtocolV1 || o.Stats().Accounts != 1 { // the same key
		t.Errorf("certificate is %+v of %d accounts", cert, o.Stats().Accounts)
	}
	if negotiated(t, store, "old").Reset.IsZero() {
		t.Error("the store does not say that it was reset")
	}
}

// What is damaged may have known that v2 was seen: only a person leads to v1 again.
func TestNegotiation_DamageLeadsToNoV1WithoutAPerson(t *testing.T) {
	c, o, _, store := oldSetup(t, devca.Config{})
	if _, err := store.Put(t.Context(), "acme/old/negotiation", []byte("{")); err != nil {
		t.Fatal(err)
	}
	_, err := c.Obtain(t.Context(), newRequest(t, "a.localhost"))
	if p := problemAt(t, err, "old", ScopeCA); !strings.Contains(p.Error(), "acme reset") || !strings.Contains(p.Error(), "damaged") || o.count("POST") != 0 {
		t.Errorf("problem is %v, requests %v", p, o.requests(0))
	}
	if kept, _, err := store.Get(t.Context(), "quarantine/acme/old/negotiation"); err != nil || string(kept) != "{" {
		t.Errorf("quarantine has %q, %v", kept, err)
	}
	if s, err := c.Reset(t.Context()); err != nil || s.Negotiation.State != "v1" {
		t.Errorf("reset: %+v, %v", s, err)
	}
}

func TestNegotiation_DamageDoesNotStopAV2CA(t *testing.T) {
	c, _, _, store := setup(t, pebbleOptions{})
	object := c.negotiator.object()
	if _, err := store.Put(t.Context(), object, []byte("{")); err != nil {
		t.Fatal(err)
	}
	if cert := obtain(t, c, newRequest(t, "a.localhost")); cert.Protocol != ProtocolV2 {
		t.Errorf("certificate is %+v", cert)
	}
	if n := negotiated(t, store, c.cfg.Name); n.State != stateV2 || n.V2Seen.IsZero() {
		t.Errorf("stored: %+v", n)
	}
}

// The object may be lost, to a clean-up or a restored bucket: what a node knows, or that the account is known over v2, says that v2 was spoken.
func TestNegotiation_LossLeadsToNoV1WithoutAPerson(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		c, o, n, store := oldSetup(t, devca.Config{})
		o.Upgrade()
		obtain(t, c, newRequest(t, "a.localhost"))
		if err := store.Delete(t.Context(), "acme/old/negotiation"); err != nil {
			t.Fatal(err)
		}
		if restarted {
			c = newOldClient(t, o, n, store)
		} else {
			c.negotiator.readAt = time.Now().Add(-negotiationAge)
		}
		o.fail(func(w http.ResponseWriter, r *http.Request) bool { // what the CA showed before the upgrade
			if r.URL.Path == pathDirectory {
				doc := fmt.Sprintf(`{"new-reg":"%[1]s/acme/new-reg","new-authz":"%[1]s/acme/new-authz","new-cert":"%[1]s/acme/new-cert"}`, o.url)
				return reply(pathDirectory, 200, "application/json", doc)(w, r)
			}
			return false
		})
		if _, err := c.Probe(t.Context()); err == nil {
			t.Error("no error where v1 is shown after v2")
		}
		_, err := c.Obtain(t.Context(), newRequest(t, "b.localhost"))
		if p := problemAt(t, err, "old", ScopeCA); !strings.Contains(p.Error(), "acme reset") || o.count("POST "+pathsV1) != 0 {
			t.Errorf("restarted %v: problem is %v, requests %v", restarted, p, o.requests(0))
		}
		if s, err := c.Reset(t.Context()); err != nil || s.Negotiation.State != "v1" || s.Protocol != ProtocolV1 {
			t.Errorf("restarted %v: reset: %+v, %v", restarted, s, err)
		}
	}
}

// A CA that speaks v1 alone is none the worse for it: its account is not known over v2.
func TestNegotiation_LossDoesNotStopAV1CA(t *testing.T) {
	c, o, n, store := oldSetup(t, devca.Config{})
	obtain(t, c, newRequest(t, "a.localhost"))
	if err := store.Delete(t.Context(), "acme/old/negotiation"); err != nil {
		t.Fatal(err)
	}
	c = newOldClient(t, o, n, store)
	if cert := obtain(t, c, newRequest(t, "b.localhost")); cert.Protocol != ProtocolV1 || o.Stats().Accounts != 1 {
		t.Errorf("certificate is %+v of %d accounts", cert, o.Stats().Accounts)
	}
}

func TestReset_OverwritesADamagedObjectThatCannotBePutAside(t *testing.T) {
	c, _, _, store := oldSetup(t, devca.Config{})
	if _, err := store.Put(t.Context(), "acme/old/negotiation", []byte("{")); err != nil {
		t.Fatal(err)
	}
	c.negotiator.store = storagetest.NewFaulty(store, storagetest.Fault{Op: storagetest.Salvage})
	_, err := c.Obtain(t.Context(), newRequest(t, "a.localhost"))
	var corrupt *storage.CorruptError
	if !errors.As(err, &corrupt) {
		t.Errorf("Obtain: %v", err)
	}
	if s, err := c.Reset(t.Context()); err != nil || s.Negotiation.State != "v1" {
		t.Errorf("reset: %+v, %v", s, err)
	}
}

func TestProtocol_V2NeverSpeaksV1(t *testing.T) {
	c, o, _, _ := oldSetup(t, devca.Config{}, func(cfg *Config) { cfg.Protocol = ProtocolV2 })
	_, err := c.Obtain(t.Context(), newRequest(t, "a.localhost"))
	if p := problemAt(t, err, "old", ScopeCA); !strings.Contains(p.Error(), "acme_version") || o.count("POST") != 0 {
		t.Errorf("problem is %v, requests %v", p, o.requests(0))
	}
	o.Upgrade()
	if cert := obtain(t, c, newRequest(t, "a.localhost")); cert.Protocol != ProtocolV2 {
		t.Errorf("certificate is %+v", cert)
	}
}

// TestProtocol_V1NeverSpeaksV2, not even after it was spoken, but says that it could be.
func TestProtocol_V1NeverSpeaksV2(t *testing.T) {
	store := storage.NewMemory()
	n := newNode(t, store)
	o := newOldCA(t, n, devca.Config{Protocols: devca.ProtocolsBeside})
	o.Upgrade()
	obtain(t, newOldClient(t, o, n, store, besideAt(&o)), newRequest(t, "a.localhost"))
	before := len(o.requests(0))
	m := &countedNegotiation{}
	c := newOldClient(t, o, n, store, besideAt(&o), func(cfg *Config) { cfg.Protocol, cfg.Metrics = ProtocolV1, m })
	if cert := obtain(t, c, newRequest(t, "b.localhost")); cert.Protocol != ProtocolV1 {
		t.Errorf("certificate is %+v", cert)
	}
	if _, err := c.Probe(t.Context()); err != nil {
		t.Error(err)
	}
	for _, line := range o.requests(before) {
		if strings.Contains(line, "/v2/") && line != "GET /v2/directory" {
			t.Error(line)
		}
	}
	if m.refused != 2 || c.Status().Negotiation.State != "v1" {
		t.Errorf("metrics are %+v, status %+v", m, c.Status().Negotiation)
	}
}

// TestObtain_NegotiatesOnceForAllWhoWait, bounded by each one's own context.
func TestObtain_NegotiatesOnceForAllWhoWait(t *testing.T) {
	c, o, _, _ := oldSetup(t, devca.Config{})
	release, looking := make(chan struct{}), make(chan struct{}, 10)
	o.fail(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && r.URL.Path == pathDirectory {
			looking <- struct{}{}
			<-release
		}
		return false
	})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := c.Account(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	<-looking
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Account(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who cannot wait: %v", err)
	}
	close(release)
	wg.Wait()
	if n := o.count("GET " + pathDirectory); n != 1 {
		t.Errorf("%d looks", n)
	}
	if n := o.Stats().Accounts; n != 1 {
		t.Errorf("%d accounts", n)
	}
}

// problemAt is problemOf for another CA than pebble.
func problemAt(t *testing.T, err error, ca, scope string) *Problem {
	t.Helper()
	var p *Problem
	if !errors.As(err, &p) || p.Scope() != scope || p.CA != ca || p.Advice == "" || p.Op == "" {
		t.Fatalf("error is %v, wanted is a *Problem of scope %q", err, scope)
	}
	return p
}
