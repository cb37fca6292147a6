package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

// revokingCA is a fakeCA that revokes.
type revokingCA struct {
	*fakeCA

	mu      sync.Mutex // guards what follows
	account error      // what happens to revocations in the name of the account
	key     error      // and by the certificate's key
	revoked map[leafSum]int
	before  func(leaf *x509.Certificate) // nil, or what is done when a revocation comes
	calls   int
}

var _ Revoker = (*revokingCA)(nil)

func (c *revokingCA) Revoke(_ context.Context, chain [][]byte, key crypto.Signer, reason int) error {
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	if c.before != nil {
		c.before(leaf)
	}
	switch {
	case key == nil && c.account != nil:
		return c.account
	case key != nil && c.key != nil:
		return c.key
	case key != nil && !sameKey(key.Public(), leaf.PublicKey):
		return errors.New("that is not the key of the certificate")
	}
	c.revoked[leafSum(sha256.Sum256(chain[0]))] = reason
	return nil
}

// attempts returns how often a revocation was asked for.
func (c *revokingCA) attempts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}

// reason returns why the certificate was revoked; -1 if it was not.
func (c *revokingCA) reason(cert *x509.Certificate) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if reason, ok := c.revoked[leafSum(sha256.Sum256(cert.Raw))]; ok {
		return reason
	}
	return -1
}

func (c *revokingCA) set(account, key error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.account, c.key = account, key
}

func newRevoking(t testing.TB) (*house, *revokingCA) {
	h := newHouse(t)
	h.log = quiet()
	ca := &revokingCA{fakeCA: h.ca, revoked: map[leafSum]int{}}
	h.set.CAs = []CA{{Issuer: ca}}
	return h, ca
}

// nothingLeft checks that no object has the key of the certificate in it, past all faults.
func (h *house) nothingLeft(key []byte) {
	h.t.Helper()
	h.store.Set()
	names, err := h.store.List(h.t.Context(), "", "", 0)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, name := range names {
		data, _, err := h.store.Get(h.t.Context(), name)
		if err != nil {
			h.t.Fatal(err)
		}
		if holdsKey(data, key) {
			h.t.Errorf("%s has the key in it", name)
		}
		if strings.HasPrefix(name, "revoking/") {
			h.t.Errorf("%s was left behind", name)
		}
	}
}

// keyOf returns the stored key of the name as DER.
func (h *house) keyOf(name string) []byte {
	h.t.Helper()
	b, _, err := storage.LoadBundle(h.t.Context(), h.store, certObject(name), quiet())
	if err != nil {
		h.t.Fatal(err)
	}
	return b.Key
}

func (h *house) blocked(cert *x509.Certificate) bool {
	h.t.Helper()
	blocked, err := KeyBlocked(h.t.Context(), h.store, cert.PublicKey)
	if err != nil {
		h.t.Fatal(err)
	}
	return blocked
}

func TestRevoke_TakesTheCertificateAwayAndGetsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newRevoking(t)
		h.set.Keys = []string{"ecdsa-p256", "rsa-2048"}
		h.open()
		old, oldRSA := h.must("a.example.com"), h.mustRSA("a.example.com")
		key := h.keyOf("a.example.com")
		ca.before = func(leaf *x509.Certificate) {
			if leaf.Equal(old) && h.m.cache.cert("a.example.com") != nil && h.m.cache.cert("a.example.com").tls.Leaf.Equal(old) {
				t.Error("it is still served when the CA is told")
			}
		}
		if err := h.m.Revoke(t.Context(), "a.example.com", ReasonSuperseded); err != nil {
			t.Fatal(err)
		}
		if ca.reason(old) != ReasonSuperseded || ca.reason(oldRSA) != ReasonSuperseded {
			t.Error("the CA was not told")
		}
		time.Sleep(time.Second)
		if h.must("a.example.com").Equal(old) || h.mustRSA("a.example.com").Equal(oldRSA) {
			t.Error("a revoked certificate is served")
		}
		h.wantIssued("", 4)
		h.nothingLeft(key)
		if h.blocked(old) {
			t.Error("the key is blocked")
		}
		for _, r := range h.m.Revocations() {
			if r.Done.IsZero() || r.Reason != ReasonSuperseded || r.CA != "fake" || r.Problem != "" {
				t.Errorf("%+v", r)
			}
		}
		if n := len(h.m.Revocations()); n != 2 {
			t.Errorf("%d revocations", n)
		}
		for _, r := range h.m.Revocations() {
			s, err := h.m.Status(t.Context(), subject(r.Name))
			if err != nil || !slices.Contains(s.Revocations, r) {
				t.Errorf("%s: %+v, %v", r.Name, s.Revocations, err)
			}
		}
	})
}

func TestRevoke_NoProcessServesItAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newRevoking(t)
		one, two, idle := h.open(), h.open(), h.open()
		old := h.must("a.example.com")
		for _, m := range []*Manager{one, two, idle} {
			if cert, err := hello(m, "a.example.com", h.ca.pool()); err != nil || !cert.Equal(old) {
				t.Fatal(err)
			}
		}
		data, _, err := h.store.Get(t.Context(), certObject("a.example.com"))
		if err != nil {
			t.Fatal(err)
		}
		if err := one.Revoke(t.Context(), "a.example.com", ReasonUnspecified); err != nil {
			t.Fatal(err)
		}
		if cert, err := hello(one, "a.example.com", h.ca.pool()); err != nil || cert.Equal(old) {
			t.Errorf("the process that revoked it: %v", err)
		}
		var cert *x509.Certificate
		for range 10 {
			time.Sleep(10 * time.Second)
			if cert, err = hello(two, "a.example.com", h.ca.pool()); err != nil {
				t.Fatal(err)
			}
		}
		if cert.Equal(old) {
			t.Error("another process serves it after 100 s")
		}
		time.Sleep(time.Hour)
		if cert, err := hello(idle, "a.example.com", h.ca.pool()); err != nil || cert.Equal(old) {
			t.Errorf("an idle process: %v", err)
		}
		// A backup brings it back.
		if _, err := h.store.Put(t.Context(), certObject("a.example.com"), data); err != nil {
			t.Fatal(err)
		}
		for _, m := range []*Manager{one, two, idle} {
			m.Close()
		}
		h.open()
		time.Sleep(time.Second)
		if h.must("a.example.com").Equal(old) {
			t.Error("it is served from a backup")
		}
	})
}

func TestRevoke_IdleProcessesReadTheListWithTheirFirstHandshakeOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newRevoking(t)
		h.open()
		h.must("a.example.com")
		time.Sleep(5 * time.Hour)
		if n := h.store.Count(storagetest.Get, revocationsObject); n != 1 {
			t.Errorf("%d reads while idle", n)
		}
		for range 600 {
			h.must("a.example.com")
			time.Sleep(time.Second)
		}
		if n := h.store.Count(storagetest.Get, revocationsObject); n < 10 || n > 12 {
			t.Errorf("%d reads in ten busy minutes", n)
		}
		time.Sleep(time.Hour)
		h.store.Set(storagetest.Fault{Op: storagetest.Get, Prefix: revocationsObject, Hang: true})
		began := time.Now()
		h.must("a.example.com")
		if took := time.Since(began); took != loadTimeout {
			t.Errorf("storage hangs: the first handshake took %s", took)
		}
		h.store.Set()
	})
}

func TestRevoke_AClockThatIsSetBackDoesNotKeepTheListFromBeingRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newRevoking(t)
		h.open()
		h.must("a.example.com")
		synctest.Wait() // the reading at the start
		h.m.revocations.readAt.Store(time.Now().Add(24 * time.Hour).UnixNano())
		before := h.store.Count(storagetest.Get, revocationsObject)
		h.must("a.example.com")
		synctest.Wait()
		if n := h.store.Count(storagetest.Get, revocationsObject) - before; n != 1 {
			t.Errorf("the list was read %d times", n)
		}
	})
}

func TestRevoke_ByTheAccountElseByTheKey(t *testing.T) {
	for _, c := range []struct {
		why          string
		reason       int
		account, key error
		done         bool
	}{
		{"by the account", ReasonUnspecified, nil, errors.New("must not be asked"), true},
		{"by the key", ReasonUnspecified, &fakeFailure{scope: ScopeAccount}, nil, true},
		{"neither", ReasonUnspecified, errors.New("503"), errors.New("503"), false},
		{"compromised: by the key, so that the CA blocks it", ReasonKeyCompromise, errors.New("must not be asked"), nil, true},
		{"compromised: by the account", ReasonKeyCompromise, nil, &fakeFailure{scope: ScopeAccount}, true},
		{"compromised: neither", ReasonKeyCompromise, errors.New("503"), errors.New("503"), false},
	} {
		t.Run(c.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, ca := newRevoking(t)
				h.open()
				old := h.must("a.example.com")
				ca.set(c.account, c.key)
				if err := h.m.Revoke(t.Context(), "a.example.com", c.reason); (err == nil) != c.done || errors.Is(err, ErrUnderWay) == c.done {
					t.Fatal(err)
				}
				if h.must("a.example.com").Equal(old) {
					t.Error("it is served")
				}
				if c.done {
					if n := ca.attempts(); strings.Contains(fmt.Sprint(c.account, c.key), "must not") && n != 1 {
						t.Errorf("asked %d times", n)
					}
					return
				}
				if r := h.m.Revocations()[0]; !r.Done.IsZero() || !strings.Contains(r.Problem, "503") {
					t.Errorf("%+v", r)
				}
				time.Sleep(10 * time.Hour)
				if n := ca.attempts(); n > 2*20 {
					t.Errorf("%d attempts in 10 hours", n)
				}
				h.m.Close()
				ca.set(nil, nil)
				h.open()
				time.Sleep(time.Second)
				if ca.reason(old) != c.reason {
					t.Error("not revoked after a restart")
				}
			})
		})
	}
}

func TestRevoke_ObeysTheRetryAfterOfEitherWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newRevoking(t)
		h.open()
		h.must("a.example.com")
		ca.set(&fakeFailure{scope: ScopeAccount}, &fakeFailure{scope: ScopeCA, retryAt: time.Now().Add(5 * time.Hour)})
		if err := h.m.Revoke(t.Context(), "a.example.com", ReasonUnspecified); !errors.Is(err, ErrUnderWay) {
			t.Error(err)
		}
		time.Sleep(4 * time.Hour)
		if n := ca.attempts(); n != 2 {
			t.Errorf("asked %d times before the CA allows it again", n)
		}
	})
}

func TestRevoke_RefusesWhatItCannotDoAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newRevoking(t)
		h.listing("a.example.com", "*.wild.example.com", "x.internal")
		internal := newFakeCA(t, "internal") // revokes nothing
		h.set.CAs = append(h.set.CAs, CA{Issuer: internal, Names: []string{"*.internal"}, Internal: true})
		h.open()
		time.Sleep(time.Second)
		for _, c := range []struct {
			name   string
			reason int
			want   string
			is     error
		}{
			{"a.example.com", 2, "no reason", nil},
			{"a.example.com", 3, "no reason", nil}, // affiliation changed: Let's Encrypt takes it from nobody
			{"absent.example.com", 0, "no stored certificate", ErrNoCertificate},
			{"b.wild.example.com", 0, "*.wild.example.com: name that", nil},
			{"x.internal", 0, "does not revoke", ErrCannotRevoke},
		} {
			err := h.m.Revoke(t.Context(), c.name, c.reason)
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) || errors.Is(err, ErrUnderWay) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		if n := len(h.m.Revocations()); n != 0 || h.has(revocationsObject) {
			t.Errorf("%d revocations", n)
		}
		if err := h.m.Revoke(t.Context(), "*.wild.example.com", 0); err != nil {
			t.Error(err)
		}
		h.must("b.wild.example.com")
		h.m.Close()
		if err := h.m.Revoke(t.Context(), "a.example.com", 0); !errors.Is(err, errClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestRevoke_ANameThatNoSiteClaimsGetsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newRevoking(t)
		h.open()
		old := h.must("a.example.com")
		h.set.Lookup = func(string) (Policy, bool) { return Policy{}, false }
		if err := h.m.Apply(h.set); err != nil {
			t.Fatal(err)
		}
		if err := h.m.Revoke(t.Context(), "a.example.com", ReasonCessationOfOperation); err != nil || ca.reason(old) != ReasonCessationOfOperation {
			t.Errorf("%v, reason %d", err, ca.reason(old))
		}
		time.Sleep(time.Hour)
		h.wantIssued("", 1)
		if h.has(certObject("a.example.com")) || len(h.m.Names()) != 0 {
			t.Errorf("something is left: %v", h.m.Names())
		}
	})
}

func TestCompromised_ReplacesBeforeItRevokesAndBlocksTheKeyForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newRevoking(t)
		h.listing("a.example.com")
		one, two := h.open(), h.open()
		time.Sleep(time.Second)
		old := h.must("a.example.com")
		key := h.keyOf("a.example.com")
		if _, err := hello(one, "a.example.com", h.ca.pool()); err != nil {
			t.Fatal(err)
		}
		ca.before = func(leaf *x509.Certificate) {
			for i, m := range []*Manager{one, two} {
				if cert, err := m.GetCertificate((&pipeAt{}).hello("a.example.com")); err != nil || cert.Leaf.Equal(old) {
					t.Errorf("process %d serves it when it is revoked: %v", i, err)
				}
			}
		}
		done := make(chan error, 1)
		go func() { done <- one.Compromised(context.Background(), "a.example.com") }()
		for waiting := true; waiting; {
			for _, m := range []*Manager{one, two} { // never without a certificate
				if _, err := hello(m, "a.example.com", h.ca.pool()); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				waiting = false
			case <-time.After(time.Second):
			}
		}
		cert := h.must("a.example.com")
		if cert.Equal(old) || sameKey(cert.PublicKey, old.PublicKey) || ca.reason(old) != ReasonKeyCompromise || ca.reason(cert) != -1 {
			t.Errorf("reasons %d, %d", ca.reason(old), ca.reason(cert))
		}
		if !h.blocked(old) || h.blocked(cert) {
			t.Error("the wrong key is blocked")
		}
		h.nothingLeft(key)
		if !h.ca.asked("")[1].pred {
			t.Error("ordered without its predecessor")
		}
		time.Sleep(200 * day)
		if !h.blocked(old) {
			t.Error("the key is no longer blocked")
		}
		if n := len(h.m.Revocations()); n != 1 {
			t.Errorf("%d revocations", n) // until the list is written next
		}
	})
}

func TestCompromised_RemovesTheKeyWhereverItLies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newRevoking(t)
		h.open()
		h.must("a.example.com")
		cert, key := h.m.cache.cert("a.example.com"), h.keyOf("a.example.com")
		stored, _, err := h.store.Get(t.Context(), certObject("a.example.com"))
		if err != nil || !holdsKey(stored, key) {
			t.Fatalf("the test does not see the key, %v", err)
		}
		for object, data := range map[string][]byte{
			"quarantine/" + certObject("a.example.com"):    stored,
			"quarantine/" + pendingObject("a.example.com"): mustJSON(pendingKey{Names: []string{"a.example.com"}, Key: key}),
		} {
			if _, err := h.store.Put(t.Context(), object, data); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.m.Compromised(t.Context(), "a.example.com"); err != nil {
			t.Fatal(err)
		}
		h.nothingLeft(key)
		// Whoever loaded it a moment before it was taken back comes too late.
		h.m.cache.drop("a.example.com")
		if h.m.take(cert); h.m.cache.cert("a.example.com") != nil {
			t.Error("it is back in memory")
		}
	})
}

func TestCompromised_GoesBeforeEverythingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newRevoking(t)
		h.set.InFlight = 2
		h.open()
		old := h.must("a.example.com")
		h.must("held.example.com")
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		time.Sleep(63 * day)
		if rec := h.m.failures.remembered("held.example.com"); rec == nil || !rec.backingOff(time.Now()) {
			t.Fatal("not in back-off")
		}
		h.ca.script(func(_ context.Context, r *Request) error {
			if strings.HasPrefix(r.Names[0], "n") {
				time.Sleep(20 * time.Minute)
			}
			return nil
		})
		for i := range 20 {
			go h.m.GetCertificate((&pipeAt{remote: fmt.Sprintf("10.0.0.%d", i)}).hello(fmt.Sprintf("n%d.example.com", i)))
		}
		time.Sleep(time.Second)
		began := time.Now()
		for _, name := range []string{"a.example.com", "held.example.com"} {
			if err := h.m.Compromised(t.Context(), name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if took := time.Since(began); took > 2*listGrace+time.Second {
			t.Errorf("it took %s", took)
		}
		if ca.reason(old) != ReasonKeyCompromise {
			t.Error("not revoked")
		}
		time.Sleep(time.Hour)
	})
}

func TestCompromised_KeepsServingWhileItCannotBeReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newRevoking(t)
		h.listing("a.example.com")
		h.open()
		old := h.must("a.example.com")
		for i, failure := range []error{errors.New("503"), &fakeFailure{scope: ScopeName}, &fakeFailure{scope: ScopeName, retryAt: time.Now().Add(10 * time.Hour)}} {
			h.ca.failWith(failure)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := h.m.Compromised(ctx, "a.example.com"); !errors.Is(err, ErrUnderWay) {
				t.Errorf("%v", err)
			}
			cancel()
			before := len(h.ca.asked(""))
			for range 60 {
				if !h.must("a.example.com").Equal(old) {
					t.Fatal("another certificate")
				}
				time.Sleep(time.Minute)
				if i == 2 { // an impatient person
					if err := h.m.Compromised(t.Context(), "a.example.com"); err == nil {
						t.Error("no error")
					}
				}
			}
			if n := len(h.ca.asked("")) - before; i == 1 && n > 9 || i == 2 && n > 1 {
				t.Errorf("%v: %d orders in an hour", failure, n)
			}
		}
		if ca.calls != 0 || !h.blocked(old) {
			t.Error("revoked, or not blocked")
		}
		h.ca.failWith(nil)
		time.Sleep(12 * time.Hour)
		if h.must("a.example.com").Equal(old) || ca.reason(old) != ReasonKeyCompromise {
			t.Error("not replaced, or not revoked")
		}
	})
}

func TestCompromised_ACAThatCannotRevokeIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).listing("a.example.com")
		h.log = quiet()
		h.open()
		old := h.must("a.example.com")
		key := h.keyOf("a.example.com")
		if err := h.m.Compromised(t.Context(), "a.example.com"); !errors.Is(err, ErrCannotRevoke) {
			t.Errorf("%v", err)
		}
		if h.must("a.example.com").Equal(old) || !h.blocked(old) {
			t.Error("not replaced, or not blocked")
		}
		h.nothingLeft(key)
		if r := h.m.Revocations()[0]; r.Done.IsZero() || r.Problem == "" {
			t.Errorf("%+v", r)
		}
	})
}

// The order that brought the certificate has answered, but not ended: nothing it says is a replacement.
func TestCompromised_ReplacesWhatAnOrderHasOnlyJustBrought(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newRevoking(t)
		h.listing("a.example.com")
		h.store.Set(storagetest.Fault{Op: storagetest.Delete, Prefix: "pending/", Latency: 5 * time.Second, Times: 1})
		h.open()
		old := h.must("a.example.com")
		if err := h.m.Compromised(t.Context(), "a.example.com"); err != nil {
			t.Error(err)
		}
		if h.must("a.example.com").Equal(old) || ca.reason(old) != ReasonKeyCompromise {
			t.Error("not replaced, or not revoked")
		}
		h.wantIssued("a.example.com", 2)
	})
}

func TestCompromised_EndsWithTheManagerWhileAnOrderTidiesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newRevoking(t)
		h.listing("a.example.com")
		h.store.Set(storagetest.Fault{Op: storagetest.Delete, Prefix: "pending/", Latency: 5 * time.Second, Times: 1})
		m := h.open()
		old := h.must("a.example.com")
		done := make(chan error, 1)
		go func() { done <- m.Compromised(context.Background(), "a.example.com") }()
		time.Sleep(time.Second)
		m.Close()
		if err := <-done; !errors.Is(err, ErrUnderWay) {
			t.Errorf("%v", err)
		}
		h.open()
		time.Sleep(10 * time.Minute)
		if h.must("a.example.com").Equal(old) || ca.reason(old) != ReasonKeyCompromise {
			t.Error("not replaced, or not revoked, by the next process")
		}
	})
}

func TestCompromised_WhoAsksAgainIsLetGoWhenTheManagerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newRevoking(t)
		h.log = quiet()
		h.open()
		h.must("a.example.com")
		h.ca.failWith(&fakeFailure{scope: ScopeCA, retryAt: time.Now().Add(5 * time.Hour)})
		if err := h.m.Compromised(t.Context(), "a.example.com"); !errors.Is(err, ErrUnderWay) {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() { ended <- h.m.Compromised(context.Background(), "a.example.com") }()
		time.Sleep(time.Minute) // it waits for the attempt after the Retry-After
		h.m.Close()
		if err := <-ended; !errors.Is(err, ErrUnderWay) {
			t.Error(err)
		}
	})
}

func TestPendingFor_RefusesBlockedKeys(t *testing.T) {
	h, _ := newRevoking(t)
	h.open()
	first, err := h.m.pendingFor(t.Context(), "a.example.com", ecdsaP256, nil)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := keySum(first.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.m.block(t.Context(), &revocation{Name: "a.example.com", Key: sum}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	second, err := h.m.pendingFor(t.Context(), "a.example.com", ecdsaP256, nil)
	if err != nil || sameKey(second.private.Public(), first.private.Public()) {
		t.Errorf("a blocked key is used: %v", err)
	}
	h.store.Set(storagetest.Fault{Op: storagetest.Get, Prefix: "blocked_keys/"})
	if _, err := h.m.pendingFor(t.Context(), "a.example.com", ecdsaP256, nil); !errors.Is(err, storagetest.ErrInjected) {
		t.Errorf("it cannot be told whether the key is blocked: %v", err)
	}
	h.store.Set()
}

// Storage vanishes at each call in turn, done or not, as at a kill. Whatever was begun is ended by the next process, and what was not by being asked for again.
func TestRevocations_KilledAtEachCallOfStorage(t *testing.T) {
	for _, compromised := range []bool{false, true} {
		calls := callsOfRevocation(t, compromised)
		for n, c := range calls {
			for _, applied := range []bool{false, true} {
				t.Run(fmt.Sprintf("compromised %v, call %d (%s %s), done %v", compromised, n, c.Op, c.Name[:min(len(c.Name), 30)], applied), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { killRevocationAt(t, compromised, n, applied) })
				})
			}
		}
	}
}

func revoke(ctx context.Context, m *Manager, compromised bool) error {
	if compromised {
		return m.Compromised(ctx, "a.example.com")
	}
	return m.Revoke(ctx, "a.example.com", ReasonKeyCompromise)
}

func callsOfRevocation(t *testing.T, compromised bool) (calls []storagetest.Call) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newRevoking(t)
		h.listing("a.example.com")
		h.open()
		h.must("a.example.com")
		time.Sleep(time.Second)
		before := len(h.store.Calls())
		if err := revoke(t.Context(), h.m, compromised); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		calls = h.store.Calls()[before:]
	})
	return calls
}

func killRevocationAt(t *testing.T, compromised bool, n int, applied bool) {
	h, ca := newRevoking(t)
	h.listing("a.example.com")
	doomed := storagetest.NewFaulty(h.store)
	m := h.openOn(doomed)
	old, err := hello(m, "a.example.com", h.ca.pool())
	if err != nil {
		t.Fatal(err)
	}
	key := h.keyOf("a.example.com")
	time.Sleep(time.Second)
	ca.before = func(*x509.Certificate) {
		b, _, err := storage.LoadBundle(context.Background(), h.store, certObject("a.example.com"), quiet())
		if err == nil && bytes.Equal(b.Chain[0], old.Raw) {
			t.Error("it could still be served when the CA was told")
		} else if compromised && err != nil {
			t.Errorf("it was not replaced when the CA was told: %v", err)
		}
	}
	doomed.Set(storagetest.Fault{Skip: n, Times: 1, Applied: applied}, storagetest.Fault{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_ = revoke(ctx, m, compromised)
	m.Close()
	h.store.LoseLeases("")
	h.open()
	time.Sleep(30 * time.Minute)
	if len(h.m.Revocations()) == 0 { // nothing had been written yet
		if err := revoke(t.Context(), h.m, compromised); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Minute)
	cert := h.must("a.example.com")
	if cert.Equal(old) || ca.reason(old) != ReasonKeyCompromise || ca.reason(cert) != -1 || !h.blocked(old) {
		t.Errorf("served anew %v, reasons %d and %d, blocked %v", !cert.Equal(old), ca.reason(old), ca.reason(cert), h.blocked(old))
	}
	if r := h.m.Revocations()[0]; r.Done.IsZero() {
		t.Errorf("not done: %+v", r)
	}
	h.nothingLeft(key)
	if n := h.ca.orderCount(); n > 2 {
		t.Errorf("%d orders", n)
	}
}

func TestRevocations_ADamagedListIsPutAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newRevoking(t)
		h.open()
		h.must("a.example.com")
		if _, err := h.store.Put(t.Context(), revocationsObject, []byte(`{"certificates":{"zz":{}}}`)); err != nil {
			t.Fatal(err)
		}
		if err := h.m.Revoke(t.Context(), "a.example.com", ReasonUnspecified); err != nil {
			t.Error(err)
		}
	})
}

func FuzzRevocations(f *testing.F) {
	sum := strings.Repeat("ab", sha256.Size)
	f.Add([]byte(`{"certificates":{"` + sum + `":{"name":"a.example.com","ca":"x","not_after":"2026-11-21T00:00:00Z","reason":1}}}`))
	f.Add([]byte(`{"certificates":{"` + sum + `":null}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := decodeRevocations(data)
		if err != nil {
			return
		}
		for key, r := range file.Certificates {
			if !strings.EqualFold(r.leaf.String(), key) {
				t.Fatalf("%q became %s", key, r.leaf)
			}
		}
	})
}

func TestCompromised_ManyNamesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ca := newRevoking(t)
		const names = 40
		for i := range names {
			h.set.Listed = append(h.set.Listed, fmt.Sprintf("n%d.example.com", i))
		}
		h.open()
		time.Sleep(time.Second)
		before := h.store.Count(storagetest.PutIf, revocationsObject)
		began := time.Now()
		var all sync.WaitGroup
		for _, name := range h.set.Listed {
			all.Go(func() {
				if err := h.m.Compromised(t.Context(), name); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took > 2*listGrace {
			t.Errorf("it took %s", took)
		}
		if n := h.store.Count(storagetest.PutIf, revocationsObject) - before; n > 3*names || len(ca.revoked) != names {
			t.Errorf("%d writes of the list, %d revoked", n, len(ca.revoked))
		}
	})
}
