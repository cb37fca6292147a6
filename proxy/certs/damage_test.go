package certs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

// The five cases of facts/edge.md: what lies in storage is damaged, and nobody but us can help.
func TestManager_HealsDamagedCertificates(t *testing.T) {
	const begin = "-----BEGIN PRIVATE KEY-----"
	for _, c := range []struct {
		name    string
		damage  func(h *house, data []byte) []byte
		reorder bool // it is ordered anew; otherwise the pair is good and goes on serving
	}{
		{"truncated certificate", func(_ *house, data []byte) []byte { return data[:bytes.Index(data, []byte("-----END CERT"))-40] }, true},
		{"empty key", func(_ *house, data []byte) []byte {
			i := bytes.Index(data, []byte(begin))
			return append(bytes.Clone(data[:i]), []byte(begin+"\n-----END PRIVATE KEY-----\n")...)
		}, true},
		{"foreign key", func(h *house, data []byte) []byte {
			h.must("other.example.com")
			foreign, _, err := h.store.Get(context.Background(), certObject("other.example.com"))
			if err != nil {
				h.t.Fatal(err)
			}
			mine, theirs := bytes.Index(data, []byte(begin)), bytes.Index(foreign, []byte(begin))
			return append(bytes.Clone(data[:mine]), foreign[theirs:]...)
		}, true},
		{"broken metadata", func(_ *house, data []byte) []byte {
			return append([]byte("{\"names\": 5, torn\n"), data[bytes.IndexByte(data, '\n')+1:]...)
		}, false},
		{"missing key", func(_ *house, data []byte) []byte { return data[:bytes.Index(data, []byte(begin))] }, true},
		{"another name's certificate", func(h *house, _ []byte) []byte {
			h.must("other.example.com")
			foreign, _, err := h.store.Get(context.Background(), certObject("other.example.com"))
			if err != nil {
				h.t.Fatal(err)
			}
			return foreign
		}, true},
		{"an empty object", func(*house, []byte) []byte { return nil }, true},
	} {
		for _, listed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, listed %v", c.name, listed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHouse(t)
					if listed {
						h.set.Listed = []string{"a.example.com"}
					}
					h.open()
					old := h.must("a.example.com")
					data, _, err := h.store.Get(t.Context(), certObject("a.example.com"))
					if err != nil {
						t.Fatal(err)
					}
					if _, err := h.store.Put(t.Context(), certObject("a.example.com"), c.damage(h, data)); err != nil {
						t.Fatal(err)
					}
					h.m.Close()
					h.log = quiet()
					h.open()
					cert := h.must("a.example.com")
					time.Sleep(time.Second)
					if c.reorder == cert.Equal(old) {
						t.Errorf("ordered anew: %v", !cert.Equal(old))
					}
					if n := len(h.ca.asked("a.example.com")); n > 2 {
						t.Errorf("%d orders", n)
					}
					if c.reorder && !h.has("quarantine/"+certObject("a.example.com")) {
						t.Error("the damaged object was not kept for a person")
					}
					h.m.Close()
					h.open()
					if !h.must("a.example.com").Equal(cert) {
						t.Error("it did not stay healed")
					}
				})
			})
		}
	}
}

// Each call of storage fails in turn, with and without having done its work, for a first order, a restart and a renewal. Never may that
// lose a certificate that was issued, or cost an order more than the failure itself can explain.
func TestManager_StorageFaultsAtEachCall(t *testing.T) {
	skips := 4
	if testing.Short() {
		skips = 2 // each call fails once; when it does so makes the rest
	}
	for op, prefixes := range map[storagetest.Op][]string{
		storagetest.Get: {"certs/", "pending/", "failures/", "index/", "members"}, storagetest.PutIf: {"certs/", "pending/", "index/", "members"},
		storagetest.Delete: {"pending/"}, storagetest.Lease: {"issue/"}, storagetest.Release: {"issue/"},
	} {
		for _, prefix := range prefixes {
			for _, applied := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s applied %v", op, prefix, applied), func(t *testing.T) {
					t.Parallel()
					for skip := range skips {
						synctest.Test(t, func(t *testing.T) {
							lifeWithFault(t, storagetest.Fault{Op: op, Prefix: prefix, Skip: skip, Times: 2, Applied: applied})
						})
					}
				})
			}
		}
	}
}

func lifeWithFault(t *testing.T, fault storagetest.Fault) {
	h := newHouse(t)
	h.log = quiet()
	h.store.Set(fault)
	h.open()
	comeUp(t, h, "first order")
	first := h.must("a.example.com")
	time.Sleep(2 * time.Minute)
	if !h.must("a.example.com").Equal(first) {
		t.Errorf("%+v: a certificate that served was given up", fault)
	}
	h.m.Close()
	h.open()
	comeUp(t, h, "restart")
	if !h.must("a.example.com").Equal(first) {
		t.Errorf("%+v: the restart lost the certificate", fault)
	}
	if n := h.ca.orderCount(); n != 1 {
		t.Errorf("%+v: %d orders for one certificate", fault, n)
	}
	time.Sleep(65 * day)
	comeUp(t, h, "renewal")
	if n := h.ca.orderCount(); n != 2 {
		t.Errorf("%+v: %d orders after the renewal", fault, n)
	}
	if h.must("a.example.com").Equal(first) {
		t.Errorf("%+v: not renewed", fault)
	}
}

// comeUp visits the name until it is served; storage fails a few times, so that a minute must be enough.
func comeUp(t *testing.T, h *house, what string) {
	t.Helper()
	for range 60 {
		if _, err := h.hello("a.example.com"); err == nil {
			return
		}
		time.Sleep(time.Second)
	}
	t.Fatalf("%s: the name did not come up within a minute: %v", what, h.refuse("a.example.com"))
}

func TestManager_ReadErrorsNeverLeadToOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Listed = []string{"listed.example.com"}
		h.open()
		h.must("listed.example.com")
		h.must("a.example.com")
		h.m.Close()
		h.store.Set(storagetest.Fault{Op: storagetest.Get, Prefix: "certs/"}, storagetest.Fault{Op: storagetest.Salvage})
		h.open()
		for range 100 {
			if err := h.refuse("a.example.com"); !errors.Is(err, storagetest.ErrInjected) {
				t.Fatalf("refused with %v", err)
			}
			time.Sleep(10 * time.Second)
		}
		h.wantIssued("", 2)
		h.store.Set()
		h.must("a.example.com")
		time.Sleep(2 * time.Minute)
		h.must("listed.example.com")
		h.wantIssued("", 2)
	})
}

func TestPlanner_SaysThatStorageHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).listing("a.example.com")
		core, logs := observer.New(zap.WarnLevel)
		h.log = zap.New(core)
		h.store.Set(storagetest.Fault{Op: storagetest.Get, Prefix: "certs/", Hang: true})
		h.open()
		time.Sleep(2 * storeTimeout)
		if n := logs.FilterMessageSnippet("stored certificate cannot be read").Len(); n == 0 {
			t.Error("the log says nothing")
		}
	})
}

func TestManager_SlowStorageEndsHandshakesIn500Milliseconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.open()
		h.must("cached.example.com")
		h.store.Set(storagetest.Fault{Op: storagetest.Get, Hang: true})
		began := time.Now()
		h.refuse("a.example.com")
		if took := time.Since(began); took != loadTimeout {
			t.Errorf("the handshake took %s", took)
		}
		h.must("cached.example.com")
		h.wantIssued("a.example.com", 0)
		h.store.Set()
	})
}

func TestManager_DiskFullServesFromMemoryAndOrdersNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.open()
		full := []storagetest.Fault{{Op: storagetest.PutIf}, {Op: storagetest.Put}}
		// The disk fills up while a certificate is being issued.
		h.ca.script(func(context.Context, *Request) error { h.store.Set(full...); return nil })
		first := h.must("a.example.com")
		h.ca.script(nil)
		for range 100 {
			h.refuse("b.example.com")
			if !h.must("a.example.com").Equal(first) {
				t.Fatal("another certificate")
			}
			time.Sleep(time.Minute)
		}
		h.wantIssued("", 1)
		h.ca.wantStored(t) // else a crash now would cost another order
		var failing []string
		list, err := h.m.ListFailing(t.Context())
		if err != nil {
			t.Errorf("reading works: %v", err)
		}
		for s := range list {
			failing = append(failing, s.Name)
		}
		if !slices.Contains(failing, "b.example.com") {
			t.Errorf("failing are %v; a person who looks should find the name that is not served", failing)
		}
		h.store.Set()
		time.Sleep(2 * time.Minute)
		h.m.Close()
		h.open()
		if !h.must("a.example.com").Equal(first) {
			t.Error("it was not stored when the disk had room again")
		}
		h.ca.wantStored(t, "a.example.com")
		h.must("b.example.com")
		h.wantIssued("", 2)
		h.ca.wantStored(t, "a.example.com", "b.example.com")
	})
}

// Only of what another process may have begun is an issuer told to look whether there is an order already: to look costs requests.
func TestManager_SaysWhenSomebodyElseMayHaveOrdered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.open()
		h.ca.failWith(errors.New("it is down"))
		h.refuse("a.example.com")
		time.Sleep(5 * time.Minute)
		h.m.Close()
		before := h.ca.asked("a.example.com")
		if len(before) < 2 {
			t.Fatalf("%d attempts", len(before))
		}
		for _, c := range before {
			if c.again {
				t.Error("said of an attempt of our own")
			}
		}
		h.ca.failWith(nil)
		h.open()
		h.must("a.example.com")
		if after := h.ca.asked("a.example.com")[len(before):]; len(after) != 1 || !after[0].again {
			t.Errorf("the successor's attempts: %+v", after)
		}
	})
}

// A refusal is remembered, so that everybody knows what became of the order.
func TestManager_SaysNothingOfAnOrderThatWasRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.open()
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		h.refuse("a.example.com")
		h.m.Close()
		h.ca.failWith(nil)
		h.open()
		time.Sleep(time.Hour)
		h.must("a.example.com")
		for _, c := range h.ca.asked("a.example.com") {
			if c.again {
				t.Error("said though the refusal is stored")
			}
		}
	})
}

// A disk that is full makes one line of the log for a name and minute, not one for each visitor.
func TestManager_VisitorsDoNotFillTheLogWhileStorageCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		core, logs := observer.New(zap.WarnLevel)
		h.log = zap.New(core)
		h.open()
		h.store.Set(storagetest.Fault{Op: storagetest.PutIf}, storagetest.Fault{Op: storagetest.Put})
		for range 600 {
			h.refuse("a.example.com")
			time.Sleep(time.Second)
		}
		if n := logs.FilterMessageSnippet("certificate not obtained").Len(); n < 9 || n > 11 {
			t.Errorf("%d lines in ten minutes", n)
		}
		h.store.Set()
	})
}

// A pending key that is damaged may cost an order: the log says so.
func TestManager_NamesThePendingKeyThatIsDamaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		core, logs := observer.New(zap.WarnLevel)
		h.log = zap.New(core)
		h.open()
		object := pendingObject("a.example.com")
		h.store.Set(storagetest.Fault{Op: storagetest.Get, Prefix: object, Err: storage.NewCorruptError(object, nil, errors.New("torn")), Times: 1})
		h.must("a.example.com")
		if n := logs.FilterField(zap.String("object", object)).Len(); n != 1 {
			t.Errorf("%d lines name it", n)
		}
	})
}

func TestManager_KilledAtEachCallOfStorageComesUpAgain(t *testing.T) {
	calls := callsOfOneOrder(t)
	for n := range calls {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprintf("call %d (%s %s), done %v", n, calls[n].Op, calls[n].Name, applied), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { killAt(t, n, applied) })
			})
		}
	}
}

func callsOfOneOrder(t *testing.T) []storagetest.Call {
	var calls []storagetest.Call
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.open()
		synctest.Wait()
		before := len(h.store.Calls())
		h.must("a.example.com")
		time.Sleep(time.Second)
		calls = h.store.Calls()[before:]
	})
	return calls
}

// killAt lets storage vanish from under the manager at the n-th call of the order, as a kill does: nothing that it does afterwards has an effect. A
// second manager on the same storage must serve the name, with the order that the first began.
func killAt(t *testing.T, n int, applied bool) {
	h := newHouse(t)
	h.log = quiet()
	doomed := storagetest.NewFaulty(h.store)
	m := h.openOn(doomed)
	synctest.Wait()
	doomed.Set(storagetest.Fault{Skip: n, Times: 1, Applied: applied}, storagetest.Fault{Skip: 0})
	_, _ = hello(m, "a.example.com", h.ca.pool())
	h.store.LoseLeases("") // a dead process holds none
	h.open()
	cert := h.must("a.example.com")
	time.Sleep(time.Second)
	h.m.Close()
	h.open()
	if !h.must("a.example.com").Equal(cert) {
		t.Error("the pair was torn or lost")
	}
	if h.ca.orderCount() > 1 {
		t.Errorf("%d orders", h.ca.orderCount())
	}
	if h.has(pendingObject("a.example.com")) {
		t.Error("a pending key was left behind")
	}
}

func TestManagers_TwoProcessesOnOneStorageMakeOneOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Listed = []string{"listed.example.com"}
		h.ca.script(func(context.Context, *Request) error { time.Sleep(time.Second); return nil })
		one, two := h.open(), h.open()
		type result struct{ serial string }
		results := make(chan result, 2)
		for _, m := range []*Manager{one, two} {
			go func() {
				cert, err := hello(m, "a.example.com", h.ca.pool())
				if err != nil {
					t.Error(err)
					results <- result{}
					return
				}
				results <- result{cert.SerialNumber.String()}
			}()
		}
		if a, b := <-results, <-results; a != b {
			t.Error("two processes serve two certificates")
		}
		time.Sleep(time.Minute)
		h.wantIssued("a.example.com", 1)
		h.wantIssued("listed.example.com", 1)
		time.Sleep(100 * day)
		h.wantIssued("a.example.com", 2)
		h.wantIssued("listed.example.com", 2)
	})
}

func TestManagers_ShareTheMemoryOfFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.failWith(&fakeFailure{scope: ScopeName})
		one, two := h.open(), h.open()
		_, _ = hello(one, "a.example.com", h.ca.pool())
		_, err := hello(two, "a.example.com", h.ca.pool())
		if _, held := errors.AsType[*BackoffError](err); !held {
			t.Errorf("the second process: %v", err)
		}
		h.wantIssued("", 1)
	})
}

func TestManager_LostLeaseEndsTheOrderAndHoldsItAgainstNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.script(func(ctx context.Context, _ *Request) error {
			h.store.LoseLeases("issue/")
			<-ctx.Done()
			return ctx.Err()
		})
		h.open()
		h.refuse("a.example.com")
		h.ca.script(nil)
		h.must("a.example.com")
		if h.ca.orderCount() != 1 {
			t.Errorf("%d orders", h.ca.orderCount())
		}
	})
}

func TestManager_StaleHolderDoesNotOverwriteItsSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		one := h.open()
		var second *Manager
		h.ca.script(func(_ context.Context, r *Request) error {
			h.ca.script(nil)
			h.store.LoseLeases("issue/") // as if this process slept for long
			second = h.open()
			_, err := hello(second, "a.example.com", h.ca.pool())
			return err
		})
		_, _ = hello(one, "a.example.com", h.ca.pool())
		stored := h.must("a.example.com")
		time.Sleep(time.Minute)
		if cert, err := hello(one, "a.example.com", h.ca.pool()); err != nil || !cert.Equal(stored) {
			t.Errorf("the stale process serves another certificate than is stored: %v", err)
		}
	})
}

func TestIndex_DamagedShardIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.log = quiet()
		h.open()
		h.must("a.example.com")
		time.Sleep(time.Second)
		object := indexObject(indexShard("a.example.com"))
		if _, err := h.store.Put(t.Context(), object, []byte("{torn")); err != nil {
			t.Fatal(err)
		}
		h.m.Close()
		h.open()
		time.Sleep(time.Second)
		h.must("a.example.com")
		time.Sleep(time.Second)
		data, _, err := h.store.Get(t.Context(), object)
		if err != nil || !strings.Contains(string(data), "a.example.com") {
			t.Errorf("index %q, %v", data, err)
		}
	})
}

func FuzzIndexShard(f *testing.F) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	said := &suggestion{Leaf: 7, Start: 1, End: -1, Renew: 5, Asked: 3, Next: 9, URL: "https://ca.example/ why"}
	full := &indexShardFile{Asker: "host/1/x", Until: now, Names: map[string]indexEntry{
		"a.example.com":    {CA: "x y", NotAfter: now, RenewAt: now, Leaf: 1 << 63, ID: "a.b", Issued: now, Early: true, Said: said},
		"_.example.com":    {CA: "x y", NotAfter: now.Add(time.Hour)},
		"ipv6.2001:db8::1": {},
	}}
	f.Add(full.encode())
	f.Add([]byte(indexFormat + "\n"))
	f.Add([]byte(indexFormat + "\nn a 0 0 . 0 0 0 0 0\n"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := decodeIndex(data)
		if err != nil {
			return
		}
		again, err := decodeIndex(file.encode())
		if err != nil || !reflect.DeepEqual(again.Names, file.Names) || again.Asker != file.Asker {
			t.Fatalf("%v\n%+v\n%+v", err, file, again)
		}
		file.apply(map[string]*indexEntry{"a.example.com": {}, "b.example.com": nil})
		file.apply(map[string]*indexEntry{"a.example.com": {Said: &suggestion{Asked: 1}}})
		if others := file.claim("me", now, now.Add(time.Hour)); others.IsZero() != (file.Asker == "me") {
			t.Fatalf("claimed: %v, %q", others, file.Asker)
		}
	})
}

func FuzzPendingKey(f *testing.F) {
	p, err := newPendingKey([]string{"a.example.com"}, ecdsaP256, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(mustJSON(p))
	f.Add([]byte(`{"names":["a"],"key":"AA==","csr":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p := decodePending(data); p != nil && p.private == nil {
			t.Fatal("a pending key without a key")
		}
	})
}
