package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage/storagetest"
)

func TestManager_ObtainsOnFirstHandshakeThenServesFromMemoryAndStorage(t *testing.T) {
	h := newHouse(t)
	h.open()
	first := h.must("shop.example.com")
	if again := h.must("SHOP.example.COM"); !again.Equal(first) {
		t.Error("the second handshake got another certificate")
	}
	h.m.Close()

	h.gate.allow = func(string) error { return errGateDown } // a stored certificate needs nobody's word
	h.ca.failWith(errors.New("the CA is down"))
	h.open()
	if again := h.must("shop.example.com"); !again.Equal(first) {
		t.Error("the restarted manager served another certificate")
	}
	h.wantIssued("", 1)
	if h.has(pendingObject("shop.example.com")) {
		t.Error("the pending key was left behind")
	}
}

func TestManager_ObtainsListedNamesWithoutVisitors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).listing("a.example.com", "b.example.com")
		h.gate.allow = deny // is not for listed names
		h.open()
		time.Sleep(time.Second)
		h.wantIssued("", 2)
		h.must("a.example.com")
		h.must("b.example.com")
		h.wantIssued("", 2)
		h.m.Close()

		gets := h.store.Count(storagetest.Lease, "")
		h.open()
		time.Sleep(time.Second)
		h.wantIssued("", 2)
		if again := h.store.Count(storagetest.Lease, ""); again != gets {
			t.Errorf("a restart with good certificates took %d leases", again-gets)
		}
	})
}

func TestManager_ThousandFirstHandshakesAreOneOrder(t *testing.T) {
	h := newHouse(t)
	h.set.MaxWait = time.Minute // the clients alone take a while on a slow machine
	release := make(chan struct{})
	h.ca.script(func(context.Context, *Request) error { <-release; return nil })
	h.open()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var served sync.WaitGroup
	defer served.Wait()
	served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer conn.Close()
				_ = tls.Server(conn, &tls.Config{GetCertificate: h.m.GetCertificate}).Handshake()
			})
		}
	})
	const visitors = 1000
	var clients sync.WaitGroup
	errs := make(chan error, visitors)
	for range visitors {
		clients.Go(func() {
			conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{ServerName: "new.example.com", RootCAs: h.ca.pool()})
			if err == nil {
				conn.Close()
			}
			errs <- err
		})
	}
	for len(h.ca.asked("")) == 0 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	clients.Wait()
	for range visitors {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	listener.Close()
	h.wantIssued("", 1)
	if n := h.gate.count(); n != 1 {
		t.Errorf("permission was asked %d times", n)
	}
}

func TestManager_RefusesInSilence(t *testing.T) {
	for _, c := range []struct{ name, why string }{
		{"denied.example.com", "the permission says no"},
		{"localhost", "single labels are not for public CAs"},
		{"under_score.example.com", "no CA certifies underscores"},
		{"www.www.shop.example.com", "made up by a wildcard DNS record"},
	} {
		t.Run(c.why, func(t *testing.T) {
			h := newHouse(t)
			h.gate.allow = deny
			h.open()
			for range 3 {
				if err := h.refuse(c.name); !errors.Is(err, errNoCertificate) || !strings.Contains(err.Error(), "unrecognized name") {
					t.Fatalf("refused with %v", err)
				}
			}
			h.wantIssued("", 0)
			if n := h.store.Count(storagetest.Get, "certs/"); n > 1 {
				t.Errorf("%d reads of storage for a denied name", n)
			}
		})
	}
}

func TestManager_IgnoresNamesThatNoSiteClaims(t *testing.T) {
	h := newHouse(t).listing("a.example.com")
	h.open()
	for _, name := range []string{"other.example.com", "..", "a/b", "-a.example.com", strings.Repeat("a.", 140) + "example.com", "\x00"} {
		cert, err := h.m.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
		if cert != nil || err != nil {
			t.Errorf("%q: %v, %v", name, cert, err)
		}
	}
	if n := h.store.Count(storagetest.Get, "certs/other"); n != 0 {
		t.Errorf("%d reads of storage", n)
	}
}

func TestManager_RefusesNewNamesWhenPermissionCannotTell(t *testing.T) {
	h := newHouse(t)
	h.gate.allow = func(string) error { return errGateDown }
	h.open()
	if err := h.refuse("new.example.com"); !errors.Is(err, errGateDown) {
		t.Errorf("refused with %v", err)
	}
	h.set.Permission = nil
	if err := h.m.Apply(h.set); err != nil {
		t.Fatal(err)
	}
	if err := h.refuse("new.example.com"); !errors.Is(err, errNoCertificate) {
		t.Errorf("without a permission: %v", err)
	}
	h.wantIssued("", 0)
}

func TestManager_AnswersChallengesOnlyToThoseWhoOfferNothingElse(t *testing.T) {
	h := newHouse(t)
	challenge := &tls.Certificate{}
	m, err := New(Config{Store: h.store, Logger: h.log, Challenge: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return challenge, nil }}, h.set)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := m.GetCertificate(&tls.ClientHelloInfo{ServerName: "a.example.com", SupportedProtos: []string{"acme-tls/1"}})
	if cert != challenge || err != nil {
		t.Errorf("challenge: %v, %v", cert, err)
	}
	m.Close()
	h.gate.allow = deny
	h.open()
	conn := &pipeAt{}
	if cert, _ := h.m.GetCertificate(conn.hello("a.example.com", "h2", "acme-tls/1")); cert != nil {
		t.Error("a client that offers more got a certificate")
	}
}

func TestManager_ServesClientsWithoutSNI(t *testing.T) {
	h := newHouse(t).listing("a.example.com", "127.0.0.9")
	h.open()
	get := func(local string) (*tls.Certificate, error) {
		return h.m.GetCertificate((&pipeAt{local: local}).hello(""))
	}
	cert, err := get("127.0.0.9")
	if err != nil || cert == nil || len(cert.Leaf.IPAddresses) != 1 {
		t.Errorf("listed address: %v, %v", cert, err)
	}
	if cert, err := get("127.0.0.1"); cert != nil || err != nil {
		t.Errorf("other address: %v, %v", cert, err)
	}
	h.set.DefaultName = "a.example.com"
	if err := h.m.Apply(h.set); err != nil {
		t.Fatal(err)
	}
	if cert, err := get("127.0.0.1"); err != nil || cert == nil || cert.Leaf.DNSNames[0] != "a.example.com" {
		t.Errorf("default name: %v, %v", cert, err)
	}
}

func TestManager_LetsHandshakesGoAfterMaxWaitAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.script(func(ctx context.Context, _ *Request) error { time.Sleep(time.Minute); return nil })
		h.open()
		began := time.Now()
		if err := h.refuse("slow.example.com"); !errors.Is(err, errWaited) {
			t.Errorf("refused with %v", err)
		}
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("the handshake took %s", took)
		}
		time.Sleep(time.Minute)
		h.must("slow.example.com")
		h.wantIssued("", 1)
	})
}

func TestManager_ServesNamesBelowAListedWildcardWithOneCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).listing("*.example.com")
		h.open()
		first := h.must("a.example.com")
		if !slices.Equal(first.DNSNames, []string{"*.example.com"}) || !h.must("b.example.com").Equal(first) {
			t.Fatalf("served with %v", first.DNSNames)
		}
		time.Sleep(70 * 24 * time.Hour)
		if again := h.must("a.example.com"); again.Equal(first) {
			t.Error("the renewed certificate does not reach the names below the wildcard")
		}
		h.wantIssued("", 2)
		if !h.has("certs/_.example.com") {
			t.Error("not stored under its name")
		}
	})
}

func TestManager_MakesInternalNamesBelowAWildcardInMemoryOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).listing("*.internal")
		h.ca.life = 7 * 24 * time.Hour
		h.set.CAs = []CA{{Issuer: h.ca, Names: []string{"*.internal"}, Internal: true}}
		h.open()
		first := h.must("a.internal")
		if !slices.Equal(first.DNSNames, []string{"a.internal"}) {
			t.Errorf("served with %v", first.DNSNames)
		}
		time.Sleep(3 * 24 * time.Hour)
		h.wantIssued("", 1)
		time.Sleep(24 * time.Hour)
		h.ca.failWith(errors.New("storage of the internal CA is down"))
		if !h.must("a.internal").Equal(first) {
			t.Error("it is not served while it cannot be made anew")
		}
		h.ca.failWith(nil)
		time.Sleep(time.Minute)
		if h.must("a.internal").Equal(first) {
			t.Error("it was not made anew")
		}
		if h.has("certs/a.internal") || h.has("pending/a.internal") {
			t.Error("it lies in storage")
		}
	})
}

func TestManager_ReloadTouchesNoCertificate(t *testing.T) {
	h := newHouse(t)
	h.open()
	first := h.must("a.example.com")
	calls := len(h.store.Calls())
	if err := h.m.Apply(h.set); err != nil {
		t.Fatal(err)
	}
	if !h.must("a.example.com").Equal(first) {
		t.Error("another certificate after a reload")
	}
	for _, c := range h.store.Calls()[calls:] {
		if c.Name != indexObject(indexShard("a.example.com")) && c.Name != revocationsObject && c.Name != membersObject {
			t.Errorf("storage was asked after a reload: %v", c)
		}
	}
	site := h.set.Lookup
	h.set.Lookup = func(string) (Policy, bool) { return Policy{}, false }
	if err := h.m.Apply(h.set); err != nil {
		t.Fatal(err)
	}
	if err := h.refuse("a.example.com"); !errors.Is(err, errNoCertificate) {
		t.Errorf("a name whose site is gone: %v", err)
	}
	h.set.Lookup = site
	if err := h.m.Apply(h.set); err != nil {
		t.Fatal(err)
	}
	if !h.must("a.example.com").Equal(first) {
		t.Error("another certificate after the site came back")
	}
	h.wantIssued("", 1)
}

func TestManager_ReloadDuringAnOrderLetsItGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.script(func(context.Context, *Request) error { time.Sleep(5 * time.Second); return nil })
		h.open()
		done := make(chan error, 1)
		go func() { _, err := h.hello("a.example.com"); done <- err }()
		time.Sleep(time.Second)
		if err := h.m.Apply(h.set); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		h.wantIssued("", 1)
	})
}

func TestManager_CloseInterruptsOrdersAndLeavesTheirKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.script(func(ctx context.Context, _ *Request) error { <-ctx.Done(); return ctx.Err() })
		h.open()
		done := make(chan error, 1)
		go func() { _, err := h.hello("a.example.com"); done <- err }()
		time.Sleep(time.Second)
		h.m.Close()
		if err := <-done; err == nil {
			t.Error("the handshake succeeded")
		}
		if !h.has(pendingObject("a.example.com")) || h.has(failureObject("a.example.com")) {
			t.Error("the pending key is lost, or the name is blamed")
		}
		h.ca.failWith(nil)
		h.open()
		h.must("a.example.com")
		if h.ca.orderCount() != 1 {
			t.Errorf("%d orders, the second manager did not go on with the first", h.ca.orderCount())
		}
		h.m.Close()
		if err := h.refuse("b.example.com"); !errors.Is(err, errClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// knownGate is a gate that remembers its denials.
type knownGate struct{ gate }

func (g *knownGate) Known(name string) (allowed, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return false, slices.Contains(g.asked, name)
}

func TestManager_TenThousandHandshakesOfADeniedNameCostOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		g := &knownGate{gate{allow: deny}}
		h.set.Permission = g
		h.open()
		for range 10000 {
			if cert, err := h.m.GetCertificate((&pipeAt{remote: "192.0.2.1"}).hello("denied.example.com")); cert != nil || err != nil {
				t.Fatal(err)
			}
		}
		if g.count() != 1 || h.store.Count(storagetest.Get, "certs/") != 1 {
			t.Errorf("%d questions, %d reads of storage", g.count(), h.store.Count(storagetest.Get, "certs/"))
		}
	})
}

func TestManager_KnownNamesAreNotKeptOutByStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.set.Listed = []string{"listed.example.com"}
		h.set.UnknownPerClient = -1
		h.open()
		first := h.must("listed.example.com")
		h.m.Close()
		h.gate.allow = func(string) error { time.Sleep(10 * time.Second); return errGateDown }
		h.open()
		for i := range maxInquiries + 500 {
			go h.m.GetCertificate((&pipeAt{}).hello(fmt.Sprintf("n%d.example.com", i)))
		}
		time.Sleep(time.Second)
		h.m.cache.drop("listed.example.com")
		if !h.must("listed.example.com").Equal(first) {
			t.Error("another certificate")
		}
		if n := h.gate.count(); n != maxInquiries {
			t.Errorf("%d questions at a time, the bound is %d", n, maxInquiries)
		}
		time.Sleep(time.Minute)
	})
}

func TestShield_CutsOffClientsThatBringUnknownNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.gate.allow = deny
		h.open()
		try := func(client, name string) error {
			cert, err := h.m.GetCertificate((&pipeAt{remote: client}).hello(name))
			if cert != nil {
				t.Fatal("a denied name got a certificate")
			}
			return err
		}
		cut := 0
		for i := range 1000 {
			if err := try("192.0.2.1", fmt.Sprintf("n%d.example.com", i)); errors.Is(err, errShielded) {
				cut++
			}
		}
		if cut != 990 || h.gate.count() != 10 || h.store.Count(storagetest.Get, "certs/") != 10 {
			t.Errorf("cut off %d of 1000, %d asked, %d read", cut, h.gate.count(), h.store.Count(storagetest.Get, "certs/"))
		}
		if err := try("192.0.2.2", "x.example.com"); err != nil {
			t.Errorf("another client: %v", err)
		}
		for i := range 11 { // one line of a customer is one client, whatever addresses it takes
			if err := try(fmt.Sprintf("2001:db8::%d", i+1), fmt.Sprintf("six%d.example.com", i)); (i < 10) != (err == nil) {
				t.Errorf("name %d of the /64: %v", i, err)
			}
		}
		time.Sleep(time.Second)
		for i := range 6 {
			if err := try("192.0.2.1", fmt.Sprintf("later%d.example.com", i)); (i < 5) != (err == nil) {
				t.Errorf("name %d a second later: %v", i, err)
			}
		}
	})
}

func TestShield_CountsInternalNamesBelowAWildcard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t).listing("*.internal")
		h.set.CAs = []CA{{Issuer: h.ca, Names: []string{"*.internal"}, Internal: true}}
		h.open()
		for i := range 1000 {
			cert, err := h.m.GetCertificate((&pipeAt{remote: "192.0.2.1"}).hello(fmt.Sprintf("n%d.internal", i)))
			if (cert == nil) == (err == nil) {
				t.Fatalf("%v, %v", cert, err)
			}
		}
		h.wantIssued("", 10)
		if n := h.store.Count("", "certs/"); n != 0 {
			t.Errorf("%d calls of storage", n)
		}
	})
}

func TestShield_CountsNeitherAllowedNorStoredNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.open()
		visit := func() {
			for i := range 50 {
				cert, err := h.m.GetCertificate((&pipeAt{remote: "192.0.2.1"}).hello(fmt.Sprintf("n%d.example.com", i)))
				if err != nil || cert == nil {
					t.Fatalf("name %d: %v", i, err)
				}
			}
		}
		visit()
		time.Sleep(time.Second)
		h.m.Close()
		h.open()
		time.Sleep(time.Second)
		visit()
		h.wantIssued("", 50)
	})
}

func TestCache_KeepsToItsBudgetAndNoHandshakeFails(t *testing.T) {
	h := newHouse(t)
	h.set.CacheBytes = 64 << 10 // some 80 of the 300
	h.open()
	for range 2 {
		for i := range 300 {
			h.must(fmt.Sprintf("n%d.example.com", i))
		}
	}
	h.wantIssued("", 300)
	if got := h.m.cache.bytes(); got > h.set.CacheBytes || got < h.set.CacheBytes/2 {
		t.Errorf("%d bytes, budget %d", got, h.set.CacheBytes)
	}
}

func TestGetCertificate_AllocatesNothingWhenWarm(t *testing.T) {
	h := newHouse(t)
	h.open()
	h.must("a.example.com")
	hello := &tls.ClientHelloInfo{ServerName: "a.example.com", SupportedProtos: []string{"h2", "http/1.1"}}
	if n := testing.AllocsPerRun(1000, func() {
		if cert, err := h.m.GetCertificate(hello); cert == nil || err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	h.m.Close()
	h.listing("*.example.com").open()
	h.must("b.example.com")
	hello.ServerName = "b.example.com"
	if n := testing.AllocsPerRun(1000, func() { _, _ = h.m.GetCertificate(hello) }); n != 0 {
		t.Errorf("%v allocations below a wildcard", n)
	}
}

func TestManager_BoundsTheHandshakesThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.ca.script(func(ctx context.Context, _ *Request) error { <-ctx.Done(); return ctx.Err() })
		h.open()
		var busy, waited int
		var mu sync.Mutex
		var all sync.WaitGroup
		for range maxPerName + 100 {
			all.Go(func() {
				_, err := h.m.GetCertificate((&pipeAt{remote: "192.0.2.1"}).hello("a.example.com"))
				mu.Lock()
				defer mu.Unlock()
				if errors.Is(err, errBusy) {
					busy++
				} else if errors.Is(err, errWaited) {
					waited++
				}
			})
		}
		all.Wait()
		if busy != 100 || waited != maxPerName {
			t.Errorf("%d were refused at once, %d waited", busy, waited)
		}
	})
}

// pipeAt makes hellos by hand whose connection has the addresses. Their context never ends.
type pipeAt struct {
	net.Conn
	local, remote string
}

func (p *pipeAt) LocalAddr() net.Addr  { return tcpAddr(p.local) }
func (p *pipeAt) RemoteAddr() net.Addr { return tcpAddr(p.remote) }

func tcpAddr(ip string) net.Addr {
	if ip == "" {
		ip = "127.0.0.1"
	}
	return &net.TCPAddr{IP: net.ParseIP(ip), Port: 443}
}

func (p *pipeAt) hello(name string, protos ...string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{ServerName: name, SupportedProtos: protos, Conn: p}
}

func BenchmarkGetCertificate_Warm(b *testing.B) {
	h := newHouse(b)
	h.open()
	h.must("a.example.com")
	hello := &tls.ClientHelloInfo{ServerName: "a.example.com", SupportedProtos: []string{"h2", "http/1.1"}}
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if cert, err := h.m.GetCertificate(hello); cert == nil || err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkHandshake_Warm(b *testing.B) {
	h := newHouse(b)
	h.open()
	h.must("a.example.com")
	b.ReportAllocs()
	for b.Loop() {
		h.must("a.example.com")
	}
}

func BenchmarkGetCertificate_Cold(b *testing.B) {
	h := newHouse(b)
	h.open()
	h.must("a.example.com")
	hello := (&pipeAt{}).hello("a.example.com")
	b.ReportAllocs()
	for b.Loop() {
		h.m.cache.drop("a.example.com")
		if cert, err := h.m.GetCertificate(hello); cert == nil || err != nil {
			b.Fatal(err)
		}
	}
}
