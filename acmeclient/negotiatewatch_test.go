package acmeclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"gatelodge/acmeclient/devca"
	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

// pipes is a network of net.Pipe, which simulated time can wait for.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serve serves the handler to whoever dials.
func servePipes(t *testing.T, h http.Handler) *pipes {
	t.Helper()
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: h, ErrorLog: quietLog()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(p)
	}()
	t.Cleanup(func() {
		close(p.closed)
		_ = srv.Close()
		<-done
	})
	return p
}

// bubble is a CA and its clients in simulated time.
type bubble struct {
	*oldCA
	net       *pipes
	responder *Responder
	store     storage.Store
	log       *zap.Logger
}

// newBubble makes the CA of a test that runs in a bubble.
func newBubble(t *testing.T, cfg devca.Config) *bubble {
	t.Helper()
	b := &bubble{store: storage.NewMemory(), log: zap.NewNop()}
	b.responder = NewResponder(b.store, b.log)
	site := servePipes(t, b.responder.HTTP(http.NotFoundHandler()))
	cfg.HTTPAddr, cfg.Dial = "127.0.0.1:80", site.dial
	ca, err := devca.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ca.Close(); err != nil {
			t.Error(err)
		}
	})
	b.oldCA = &oldCA{CA: ca, url: "http://127.0.0.1"}
	b.net = servePipes(t, b.oldCA)
	return b
}

// client makes and starts a client: a node of the fleet.
func (b *bubble) client(t *testing.T, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{
		Name: "old", Directory: b.url + pathDirectory, AgreeTerms: true, Challenges: []string{ChallengeHTTP01}, Store: b.store, Responder: b.responder, Logger: b.log,
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.wire.transport.DialContext = b.net.dial
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// twoAddresses is a CA with v1 beside where v2 will be.
func (b *bubble) twoAddresses(cfg *Config) {
	cfg.Directory, cfg.DirectoryV1 = b.url+"/v2/directory", b.url+pathDirectory
}

// waitFor lets time pass until the client's negotiation is in the state, and returns how long that took.
func waitFor(t *testing.T, c *Client, state string, atMost time.Duration) time.Duration {
	t.Helper()
	for start := time.Now(); ; time.Sleep(time.Second) {
		synctest.Wait()
		if took := time.Since(start); c.Status().Negotiation.State == state {
			return took
		} else if took > atMost {
			t.Fatalf("after %v: %+v", took, c.Status().Negotiation)
		}
	}
}

// TestWatch_MovesUpWhenTheSameURLTurnsIntoV2 is the first way in which CAs moved.
func TestWatch_MovesUpWhenTheSameURLTurnsIntoV2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, devca.Config{Protocols: devca.ProtocolsV1})
		c := b.client(t)
		if took := waitFor(t, c, "v1", time.Minute); took > time.Second {
			t.Errorf("negotiated after %v", took)
		}
		first := obtain(t, c, newRequest(t, "a.localhost"))
		b.Upgrade()
		took := waitFor(t, c, "v1-upgrading", 30*time.Hour)
		if took < 19*time.Hour {
			t.Errorf("asked for v2 after %v, not daily", took)
		}
		if cert := obtain(t, c, newRequest(t, "b.localhost")); cert.Protocol != ProtocolV1 {
			t.Errorf("v2 is used before it is confirmed: %+v", cert)
		}
		if took := waitFor(t, c, "v2", time.Hour); took < 10*time.Minute || took > 20*time.Minute {
			t.Errorf("v2 was confirmed after %v", took)
		}
		second := obtain(t, c, newRequest(t, "c.localhost"))
		if first.Protocol != ProtocolV1 || second.Protocol != ProtocolV2 || first.Account != b.url+"/acme/reg/1" || second.Account != b.url+"/v2/acct/1" {
			t.Errorf("certificates are %+v and %+v", first, second)
		}
		if n := b.Stats().Accounts; n != 1 {
			t.Errorf("%d accounts", n)
		}
		s := c.Status()
		if s.Negotiation.Deprecated || s.Negotiation.OrdersV1 != 2 || s.Protocol != ProtocolV2 || s.Account != second.Account {
			t.Errorf("status is %+v", s)
		}
	})
}

// TestWatch_MovesUpWhenV2AppearsBesideV1 is the other way.
func TestWatch_MovesUpWhenV2AppearsBesideV1(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, devca.Config{Protocols: devca.ProtocolsBeside})
		c := b.client(t, b.twoAddresses)
		if took := waitFor(t, c, "v1", time.Hour); took < 30*time.Second || took > 40*time.Second {
			t.Errorf("v1 is spoken after %v: an absence is certain after 30 s", took)
		}
		if cert := obtain(t, c, newRequest(t, "a.localhost")); cert.Protocol != ProtocolV1 {
			t.Errorf("certificate is %+v", cert)
		}
		time.Sleep(72 * time.Hour)
		if s := c.Status(); s.Negotiation.State != "v1" || s.Negotiation.Trouble != "" || s.Negotiation.NextProbe.Before(time.Now()) {
			t.Errorf("status is %+v", s)
		}
		b.Upgrade()
		waitFor(t, c, "v2", 31*time.Hour)
		if cert := obtain(t, c, newRequest(t, "b.localhost")); cert.Protocol != ProtocolV2 || cert.Account != b.url+"/v2/acct/1" {
			t.Errorf("certificate is %+v", cert)
		}
	})
}

// TestWatch_AV2CAThatShowsV1GetsNoRequestForAMonth: downgraded by somebody on the way, or by a fault, at the same address or to the one beside.
func TestWatch_AV2CAThatShowsV1GetsNoRequestForAMonth(t *testing.T) {
	for _, tt := range []struct {
		name  string
		shows fault
	}{
		{"a v1 directory", func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/v2/directory") {
				return false
			}
			_ = json.NewEncoder(w).Encode(map[string]string{"new-reg": "http://127.0.0.1/acme/new-reg", "new-authz": "http://127.0.0.1/acme/new-authz", "new-cert": "http://127.0.0.1/acme/new-cert"})
			return true
		}},
		{"nothing any more, with v1 beside", reply("/v2/directory", 404, "text/plain", "404 page not found")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testDowngrade(t, tt.shows) })
		})
	}
}

func testDowngrade(t *testing.T, shows fault) {
	b := newBubble(t, devca.Config{Protocols: devca.ProtocolsBeside})
	b.Upgrade()
	c := b.client(t, b.twoAddresses)
	waitFor(t, c, "v2", time.Minute)
	obtain(t, c, newRequest(t, "a.localhost"))
	b.fail(shows)
	if took := waitFor(t, c, "downgrade-suspected", 13*time.Hour); took < time.Hour {
		t.Errorf("seen after %v", took)
	}
	other := b.client(t, b.twoAddresses) // knows of it from the store alone
	before := len(b.requests(0))
	for range 30 {
		for _, c := range []*Client{c, other} {
			_, err := c.Obtain(t.Context(), newRequest(t, "b.localhost"))
			var p *Problem
			if !errors.As(err, &p) || p.scope != ScopeCA || !strings.Contains(p.Advice, "acme reset old") {
				t.Fatalf("Obtain: %v", err)
			}
		}
		time.Sleep(24 * time.Hour)
	}
	for _, line := range b.requests(before) {
		if line != "GET /v2/directory" {
			t.Fatalf("asked for %s", line)
		}
	}
	b.fail()
	waitFor(t, c, "v2", 20*time.Minute)
	waitFor(t, other, "v2", 30*time.Minute)
	if cert := obtain(t, other, newRequest(t, "b.localhost")); cert.Protocol != ProtocolV2 {
		t.Errorf("certificate is %+v", cert)
	}
	if n := b.count("POST " + pathsV1); n != 0 {
		t.Errorf("%d requests over v1", n)
	}
}

// TestWatch_TheFleetFollowsAReset of one node, within minutes and without a restart.
func TestWatch_TheFleetFollowsAReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, devca.Config{Protocols: devca.ProtocolsBeside})
		b.Upgrade()
		c, other := b.client(t, b.twoAddresses), b.client(t, b.twoAddresses)
		waitFor(t, c, "v2", time.Minute)
		waitFor(t, other, "v2", time.Minute)
		b.fail(reply("/v2/", 404, "text/plain", "not here"))
		waitFor(t, c, "downgrade-suspected", 13*time.Hour)
		waitFor(t, other, "downgrade-suspected", 13*time.Hour)
		if s, err := c.Reset(t.Context()); err != nil || s.Negotiation.State != "v1" {
			t.Fatalf("reset: %+v, %v", s, err)
		}
		time.Sleep(5 * time.Minute)
		for _, c := range []*Client{c, other} {
			c.Refresh(t.Context())
			if s := c.Status(); s.Negotiation.State != "v1" || s.Protocol != ProtocolV1 {
				t.Errorf("status is %+v", s)
			}
			if cert := obtain(t, c, newRequest(t, "a.localhost")); cert.Protocol != ProtocolV1 {
				t.Errorf("certificate is %+v", cert)
			}
		}
		if n := b.Stats().Accounts; n != 1 {
			t.Errorf("%d accounts", n)
		}
	})
}

func TestWatch_AFleetAsksAsOftenAsOneNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, devca.Config{Protocols: devca.ProtocolsV1})
		for range 5 {
			c := b.client(t)
			waitFor(t, c, "v1", time.Minute)
		}
		before := len(b.requests(0))
		const days = 50
		time.Sleep(days * 24 * time.Hour)
		if n := len(b.requests(before)); n < days*5/6-1 || n > days*3/2 {
			t.Errorf("%d looks in %d days by 5 nodes", n, days)
		}
	})
}

func TestWatch_ComesBackMoreAndMoreRarelyToACAThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, devca.Config{Protocols: devca.ProtocolsV1})
		down := reply("/", 503, "text/html", "<html>")
		b.fail(down)
		c := b.client(t)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		// 1, 2, 4 s and so on up to 15 min; each look has two quick tries more.
		if n := len(b.requests(0)) / 3; n < 90 || n > 140 {
			t.Errorf("%d looks in a day", n)
		}
		if s := c.Status().Negotiation; s.State != "unknown" || !strings.Contains(s.Trouble, "503") || s.NextProbe.IsZero() {
			t.Errorf("status is %+v", s)
		}
		b.fail()
		if took := waitFor(t, c, "v1", 19*time.Minute); took < time.Second {
			t.Errorf("negotiated after %v", took)
		}
	})
}

// TestWatch_ARestartInAnOutageIsPatient: v2 is known from the store, but its directory is not.
func TestWatch_ARestartInAnOutageIsPatient(t *testing.T) {
	for _, weather := range []fault{reply("/", 503, "text/html", "<html>"), reply("/", 403, "text/html", "<html>"), reply("/", 200, "text/html", "<html>")} {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble(t, devca.Config{})
			c := b.client(t)
			waitFor(t, c, "v2", time.Minute)
			_ = c.Close()
			b.fail(weather)
			c = b.client(t)
			before := len(b.requests(0))
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			if n := len(b.requests(before)); n > 300*3 {
				t.Errorf("%d requests in a day", n)
			}
			b.fail()
			time.Sleep(19 * time.Minute)
			obtain(t, c, newRequest(t, "a.localhost"))
		})
	}
}

// TestWatch_SeesNewFeaturesWithoutARestart: renewalInfo and profiles may appear any day.
func TestWatch_SeesNewFeaturesWithoutARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, devca.Config{Profiles: map[string]devca.Profile{"short": {Lifetime: time.Hour}}})
		b.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
			if r.URL.Path != pathDirectory {
				return
			}
			var doc map[string]any
			if err := json.Unmarshal(resp.Body.Bytes(), &doc); err != nil {
				t.Error(err)
			}
			delete(doc, "renewalInfo")
			delete(doc, "meta")
			resp.Body.Reset()
			_ = json.NewEncoder(resp.Body).Encode(doc)
		})
		c := b.client(t)
		waitFor(t, c, "v2", time.Minute)
		features := func() (renewalInfo, profile bool) {
			_, dir, err := c.negotiator.settle(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, profile = dir.profiles["short"]
			return dir.endpoints["renewalInfo"] != "", profile
		}
		if info, profile := features(); info || profile {
			t.Fatal("seen before they are there")
		}
		b.rewrite()
		before := len(b.requests(0))
		time.Sleep(12 * time.Hour)
		synctest.Wait()
		if info, profile := features(); !info || !profile {
			t.Errorf("renewalInfo %v, profile %v after 12 h", info, profile)
		}
		if n := len(b.requests(before)); n < 1 || n > 2 {
			t.Errorf("%d looks in 12 h", n)
		}
	})
}

func TestWatch_NeverLetsAHandshakeAskForTheDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, devca.Config{})
		c := b.client(t)
		waitFor(t, c, "v2", time.Minute)
		for range 200 {
			time.Sleep(7 * time.Hour)
			synctest.Wait()
			before := len(b.requests(0))
			if _, _, err := c.negotiator.settle(t.Context()); err != nil || len(b.requests(before)) != 0 {
				t.Fatalf("asked for %v: %v", b.requests(before), err)
			}
		}
	})
}

// TestWatch_ACANodeThatIsBehindDelaysTheUpgrade: an offer that goes away was none.
func TestWatch_ACANodeThatIsBehindDelaysTheUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, devca.Config{Protocols: devca.ProtocolsBeside})
		c := b.client(t, b.twoAddresses)
		waitFor(t, c, "v1", time.Minute)
		b.Upgrade()
		waitFor(t, c, "v1-upgrading", 30*time.Hour)
		b.fail(reply("/v2/directory", 404, "text/plain", "not here"))
		waitFor(t, c, "v1", 20*time.Minute)
		b.fail(reply("/v2/", 503, "text/plain", "not yet")) // the directory too
		time.Sleep(72 * time.Hour)
		if s := c.Status().Negotiation; s.State != "v1" {
			t.Errorf("status is %+v", s)
		}
		b.fail(reply("/v2/new-acct", 500, "text/plain", "not yet"))
		waitFor(t, c, "v1-upgrading", 30*time.Hour)
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		if s := c.Status().Negotiation; s.State != "v1-upgrading" || !strings.Contains(s.Trouble, "account") {
			t.Errorf("without an account there: %+v", s)
		}
		if cert := obtain(t, c, newRequest(t, "a.localhost")); cert.Protocol != ProtocolV1 {
			t.Errorf("certificate is %+v", cert)
		}
		b.fail()
		waitFor(t, c, "v2", 2*time.Hour)
	})
}

// TestWatch_V2IsAskedForAsSoonAsTheOperatorAllowsItAgain: what was seen under his word for v1 does not put it off by a day.
func TestWatch_V2IsAskedForAsSoonAsTheOperatorAllowsItAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, devca.Config{Protocols: devca.ProtocolsBeside})
		c := b.client(t, b.twoAddresses, func(cfg *Config) { cfg.Protocol = ProtocolV1 })
		waitFor(t, c, "v1", time.Minute)
		b.Upgrade()
		before := b.count("GET /v2/directory")
		time.Sleep(3 * 24 * time.Hour)
		if n := b.count("GET /v2/directory") - before; n < 2 || n > 4 {
			t.Errorf("%d looks in three days", n)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, b.client(t, b.twoAddresses), "v2", 21*time.Minute)
	})
}

// TestWatch_FollowsACAWhoseV1EndsWithoutAWord: its host is gone, or answers for something else, when v2 is there at the other address.
func TestWatch_FollowsACAWhoseV1EndsWithoutAWord(t *testing.T) {
	for name, end := range map[string]fault{
		"no answer":   func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
		"a web page":  reply("/", 200, "text/html", "<html>"),
		"maintenance": reply("/", 503, "text/html", "<html>"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, devca.Config{Protocols: devca.ProtocolsBeside})
				c := b.client(t, b.twoAddresses)
				waitFor(t, c, "v1", 2*time.Minute)
				obtain(t, c, newRequest(t, "a.localhost"))
				time.Sleep(time.Hour)
				b.Upgrade()
				b.fail(func(w http.ResponseWriter, r *http.Request) bool {
					return !strings.HasPrefix(r.URL.Path, "/v2/") && end(w, r)
				})
				if _, err := c.Obtain(t.Context(), newRequest(t, "b.localhost")); err == nil {
					t.Fatal("no error without v1")
				}
				waitFor(t, c, "v2", 20*time.Minute)
				if cert := obtain(t, c, newRequest(t, "b.localhost")); cert.Protocol != ProtocolV2 || b.Stats().Accounts != 1 {
					t.Errorf("certificate is %+v of %d accounts", cert, b.Stats().Accounts)
				}
			})
		})
	}
}

// TestWatch_KeepsV1ThroughABrownout: v1's end came step by step, and the CA is kept until the operator has another.
func TestWatch_KeepsV1ThroughABrownout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, devca.Config{Protocols: devca.ProtocolsV1})
		c := b.client(t)
		waitFor(t, c, "v1", time.Minute)
		obtain(t, c, newRequest(t, "a.localhost"))
		b.SetV1(devca.V1Switches{Brownout: "ACMEv1 Brownout in Progress."})
		_, err := c.Obtain(t.Context(), newRequest(t, "b.localhost"))
		var p *Problem
		if !errors.As(err, &p) || p.scope != ScopeCA || !strings.Contains(p.Error(), "closed ACME v1") || time.Until(p.retryAt) < 9*time.Minute {
			t.Errorf("Obtain: %v", err)
		}
		synctest.Wait() // the answer made the background look
		if s := c.Status().Negotiation; s.State != "v1" || !strings.Contains(s.Trouble, "Brownout") {
			t.Errorf("status is %+v", s)
		}
		before := len(b.requests(0))
		for range 24 * 4 {
			_, err := c.Obtain(t.Context(), newRequest(t, "b.localhost"))
			if err == nil {
				t.Fatal("no error in a brownout")
			}
			time.Sleep(15 * time.Minute)
		}
		if n := len(b.requests(before)); n > 24*2*3 {
			t.Errorf("%d requests during a day's brownout", n)
		}
		b.SetV1(devca.V1Switches{})
		time.Sleep(time.Hour)
		obtain(t, c, newRequest(t, "b.localhost"))
	})
}

func TestWatch_EndsWithItsContextAndWithClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, devca.Config{Protocols: devca.ProtocolsV1})
		c := b.client(t)
		if err := c.Start(t.Context()); err == nil {
			t.Error("started twice")
		}
		if err := c.Close(); err != nil { // in the midst of the first look
			t.Fatal(err)
		}
		synctest.Wait()
		before := len(b.requests(0))
		time.Sleep(48 * time.Hour)
		if n := len(b.requests(before)); n != 0 {
			t.Errorf("%d looks after Close", n)
		}
		if err := c.Start(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("Start after Close: %v", err)
		}
	})
}

// TestWatch_AStoreThatFailsChangesNothing: what nobody would remember has not happened, and the background goes on.
func TestWatch_AStoreThatFailsChangesNothing(t *testing.T) {
	for _, fault := range []storagetest.Fault{
		{Op: storagetest.Get, Prefix: "acme/old/negotiation"}, {Op: storagetest.PutIf, Prefix: "acme/old/negotiation"},
		{Op: storagetest.PutIf, Prefix: "acme/old/negotiation", Applied: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble(t, devca.Config{Protocols: devca.ProtocolsV1})
			store := storagetest.NewFaulty(b.store)
			b.store = store
			store.Set(fault)
			c := b.client(t)
			time.Sleep(time.Hour)
			if fault.Applied { // the next look finds what was stored
				waitFor(t, c, "v1", time.Second)
			} else if _, err := c.Obtain(t.Context(), newRequest(t, "a.localhost")); !errors.Is(err, storagetest.ErrInjected) || b.count("POST") != 0 {
				t.Errorf("%v: Obtain: %v, requests %v", fault, err, b.requests(0))
			}
			store.Set()
			waitFor(t, c, "v1", 19*time.Minute)
			b.Upgrade()
			store.Set(fault)
			time.Sleep(72 * time.Hour)
			synctest.Wait()
			if s := c.Status().Negotiation; !fault.Applied && s.State != "v1" {
				t.Errorf("%v: status is %+v", fault, s)
			}
			if cert := obtain(t, c, newRequest(t, "b.localhost")); !fault.Applied && cert.Protocol != ProtocolV1 {
				t.Errorf("%v: certificate is %+v", fault, cert)
			}
			store.Set()
			waitFor(t, c, "v2", 31*time.Hour)
		})
	}
}

func TestWatch_SaysNowAndThenThatV1IsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, devca.Config{Protocols: devca.ProtocolsV1})
		log, logs := logged(zap.NewAtomicLevelAt(zap.WarnLevel))
		b.log = log
		m := &countedNegotiation{}
		c := b.client(t, func(cfg *Config) { cfg.Metrics = m })
		for i := range 30 {
			obtain(t, c, newRequest(t, strings.Repeat("a", i+1)+".localhost"))
			time.Sleep(10 * time.Minute)
		}
		used := logs.FilterMessageSnippet("ACME v1 is used").All()
		if len(used) < 4 || len(used) > 6 || used[len(used)-1].ContextMap()["orders"].(int64) < 20 {
			t.Errorf("%d warnings for 30 orders in 5 hours: %v", len(used), used)
		}
		if first := logs.FilterMessageSnippet("speaks ACME v1, which is deprecated").Len(); first != 1 {
			t.Errorf("%d warnings of the negotiation", first)
		}
		if m.used != 30 || !slices.Contains(m.transitions, "unknown v1") || m.probes["v1"] != 1 {
			t.Errorf("metrics are %+v", m)
		}
		b.Upgrade()
		waitFor(t, c, "v2", 31*time.Hour)
		b.fail(reply("/", 404, "text/plain", "not here"))
		waitFor(t, c, "downgrade-suspected", 13*time.Hour)
		if !slices.Equal(m.speaks, []int{1, 2, 0}) && !slices.Equal(m.speaks, []int{0, 1, 2, 0}) {
			t.Errorf("versions are %v", m.speaks)
		}
	})
}

// countedNegotiation is a NegotiationMetrics for one goroutine at a time, as in a bubble.
type countedNegotiation struct {
	noMetrics
	probes      map[string]int
	transitions []string
	suspected   int
	used        int
	refused     int
	speaks      []int // without repetitions
}

func (m *countedNegotiation) Probe(_, class string) {
	if m.probes == nil {
		m.probes = map[string]int{}
	}
	m.probes[class]++
}
func (m *countedNegotiation) Transition(_, from, to string) {
	m.transitions = append(m.transitions, from+" "+to)
}
func (m *countedNegotiation) DowngradeSuspected(string) { m.suspected++ }
func (m *countedNegotiation) V1Used(string)             { m.used++ }
func (m *countedNegotiation) Speaks(_ string, version int) {
	if n := len(m.speaks); n == 0 || m.speaks[n-1] != version {
		m.speaks = append(m.speaks, version)
	}
}
func (m *countedNegotiation) V2Refused(string) { m.refused++ }

// TestWatch_NothingThatHappensLeadsBack: a CA on v1 that is well, down, in a brownout or behind somebody else's web page from day to day, and gains v2 some day. A
// seed that fails becomes a case.
func TestWatch_NothingThatHappensLeadsBack(t *testing.T) {
	for seed := range uint64(2) {
		for _, protocols := range []devca.Protocols{devca.ProtocolsV1, devca.ProtocolsBeside} {
			synctest.Test(t, func(t *testing.T) { testWeather(t, seed, protocols) })
		}
	}
}

func testWeather(t *testing.T, seed uint64, protocols devca.Protocols) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	b := newBubble(t, devca.Config{Protocols: protocols})
	var c *Client
	restart := func() {
		if c != nil {
			_ = c.Close()
		}
		c = b.client(t, func(cfg *Config) {
			if protocols == devca.ProtocolsBeside {
				b.twoAddresses(cfg)
			}
		})
	}
	restart()
	upgrade, v2, orders := 30+rnd.IntN(60), false, 0
	for day := range 120 {
		weather := []fault{nil, nil, nil, reply("/", 503, "text/html", "<html>"), reply("/", 403, "application/problem+json", brown), reply("/", 200, "text/html", "<html>")}[rnd.IntN(6)]
		b.fail()
		if weather != nil {
			b.fail(weather)
		}
		if day == upgrade {
			b.Upgrade()
		}
		if rnd.IntN(20) == 0 {
			restart()
		}
		time.Sleep(time.Duration(rnd.IntN(24)) * time.Hour)
		synctest.Wait()
		before := len(b.requests(0))
		cert, err := c.Obtain(t.Context(), newRequest(t, fmt.Sprintf("d%d.localhost", day)))
		switch {
		case err == nil:
			orders++
			v2 = v2 || cert.Protocol == ProtocolV2
		case weather == nil && day > 0 && time.Until(retryOf(err)) <= 0:
			t.Errorf("seed %d, %s, day %d: %v", seed, protocols, day, err)
		}
		for _, line := range b.requests(before) {
			if v2 && strings.HasPrefix(line, "POST "+pathsV1) {
				t.Errorf("seed %d, %s, day %d: %s after v2", seed, protocols, day, line)
			}
		}
		time.Sleep(24 * time.Hour)
	}
	if s := c.Status().Negotiation.State; !v2 || s != "v2" || orders < 40 || b.Stats().Accounts != 1 {
		t.Errorf("seed %d, %s: state %q, v2 %v, %d orders, %d accounts", seed, protocols, s, v2, orders, b.Stats().Accounts)
	}
}

func retryOf(err error) time.Time {
	var p *Problem
	if errors.As(err, &p) {
		return p.retryAt
	}
	return time.Time{}
}
