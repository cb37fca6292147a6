package acmeclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

// problemOf fails the test unless err is a Problem of the scope.
func problemOf(t *testing.T, err error, scope string) *Problem {
	t.Helper()
	var p *Problem
	if !errors.As(err, &p) {
		t.Fatalf("error is %v, wanted is a *Problem", err)
	}
	if p.Scope() != scope {
		t.Errorf("scope is %q, wanted %q: %v", p.Scope(), scope, err)
	}
	if p.CA != "pebble" || p.Advice == "" || p.Op == "" {
		t.Errorf("incomplete: %+v", p)
	}
	return p
}

// orders counts the orders that the CA made.
func (p *pebble) orders() *counter {
	c := &counter{}
	p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
		if r.URL.Path == pathOrder && resp.Code == http.StatusCreated {
			c.add()
		}
	})
	return c
}

type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) add() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
}

func (c *counter) get() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func TestObtain_NeedsSevenRequestsWithNoncesInHand(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{})
	c.pace = defaultPace()
	obtain(t, c, newRequest(t, "warm.example.test"))
	before := p.count()
	start := time.Now()
	obtain(t, c, newRequest(t, "www.example.test"))
	got := p.requests(before)
	if len(got) != 7 {
		t.Errorf("%d requests, wanted are 7:\n%s", len(got), strings.Join(got, "\n"))
	}
	t.Logf("7 requests in %v", time.Since(start).Round(time.Millisecond))
}

func TestObtain_UsesAValidAuthorizationAgain(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{authzReuse: 100})
	obtain(t, c, newRequest(t, "www.example.test"))
	before := p.count()
	obtain(t, c, newRequest(t, "www.example.test"))
	if got := p.requests(before); len(got) != 4 { // order (ready), finalize, order, certificate
		t.Errorf("%d requests, wanted are 4:\n%s", len(got), strings.Join(got, "\n"))
	}
}

func TestObtain_SurvivesSixRefusedNoncesInTen(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{nonceReject: 60})
	orders := p.orders()
	var wg sync.WaitGroup
	for i := range 10 {
		r := newRequest(t, fmt.Sprintf("n%d.example.test", i))
		wg.Go(func() {
			if _, err := c.Obtain(t.Context(), r); err != nil {
				t.Errorf("Obtain(%v): %v", r.Names, err)
			}
		})
	}
	wg.Wait()
	if got := orders.get(); got != 10 {
		t.Errorf("%d orders for 10 names", got)
	}
}

func TestObtain_MakesOneAccountForAFleetThatStartsAtOnce(t *testing.T) {
	c, p, n, store := setup(t, pebbleOptions{})
	other := newClient(t, p, newNode(t, store), store)
	_ = n
	accounts := &counter{}
	p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
		if r.URL.Path == pathAccount && resp.Code == http.StatusCreated {
			accounts.add()
		}
	})
	var wg sync.WaitGroup
	for i := range 10 {
		client := []*Client{c, other}[i%2]
		wg.Go(func() {
			if _, err := client.Account(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := accounts.get(); got != 1 {
		t.Errorf("%d accounts", got)
	}
	if a, b := c.Status().Account, other.Status().Account; a == "" || a != b {
		t.Errorf("accounts are %q and %q", a, b)
	}
}

func TestObtain_IsAnsweredByAnotherNodeOnTheSameStore(t *testing.T) {
	for _, typ := range []string{ChallengeTLSALPN01, ChallengeHTTP01} {
		t.Run(typ, func(t *testing.T) {
			store := storage.NewMemory()
			answering, ordering := newNode(t, store), newNode(t, store)
			p := newPebble(t, answering, pebbleOptions{}) // it asks this one only
			c := newClient(t, p, ordering, store, func(cfg *Config) { cfg.Challenges = []string{typ} })
			obtain(t, c, newRequest(t, "www.example.test"))
		})
	}
}

// TestObtain_ObeysRetryAfterForTheAccountAcrossNames: how it ends, to the second, is seen in testLimit.
func TestObtain_ObeysRetryAfterForTheAccountAcrossNames(t *testing.T) {
	c, p, n, store := setup(t, pebbleOptions{})
	if _, err := c.Account(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.fail(times(1, problemReply(pathOrder, 429, "rateLimited", "too many new orders (300) from this account in the last 3h0m0s", "Retry-After", "3600")))
	_, err := c.Obtain(t.Context(), newRequest(t, "a.example.test"))
	until := problemOf(t, err, ScopeAccount).RetryAt()
	if d := time.Until(until); d < 50*time.Minute || d > time.Hour {
		t.Errorf("retry in %v, the CA said an hour", d)
	}
	other := newClient(t, p, n, store) // another node learns of it by the store
	before := p.count(pathOrder)
	for _, client := range []*Client{c, other} {
		_, err = client.Obtain(t.Context(), newRequest(t, "b.example.test"))
		if got := problemOf(t, err, ScopeAccount).RetryAt(); !got.Equal(until) {
			t.Errorf("retry at %v, wanted %v", got, until)
		}
	}
	if got := p.count(pathOrder) - before; got != 0 {
		t.Errorf("%d orders were sent before the CA allows", got)
	}
	if l := c.Status().Limits; len(l) != 1 || l[0].Scope != ScopeAccount {
		t.Errorf("limits are %+v", l)
	}
}

func TestObtain_AnswersToRefusedOrders(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fault  fault
		scope  string
		retry  time.Duration // 0: none
		orders int           // newOrder requests
		says   string
	}{
		{"429 without Retry-After", problemReply(pathOrder, 429, "rateLimited", "slow down"), ScopeAccount, limitPause, 1, "slow down"},
		{"429 for a registered domain", problemReply(pathOrder, 429, "rateLimited",
			`too many certificates (50) already issued for "example.test" in the last 168h0m0s`, "Retry-After", "3600"), ScopeDomain, time.Hour, 1, "example.test"},
		{"paused", problemReply(pathOrder, 429, "rateLimited", "Your account is temporarily prevented from requesting certificates for www.example.test and "+
			"possibly others. Please visit: https://ca.test/sfe/v1/unpause?jwt=abc"), ScopeName, pausedWait, 1, "https://ca.test/sfe/v1/unpause?jwt=abc"},
		{"503", problemReply(pathOrder, 503, "rateLimited", "Service busy; retry later.", "Retry-After", "120"), ScopeAddress, 2 * time.Minute, 1, "busy"},
		{"500", problemReply(pathOrder, 500, "serverInternal", "boom"), ScopeCA, 0, 1, "boom"},
		{"502 of a balancer", reply(pathOrder, 502, "text/html", "<html>bad gateway</html>"), ScopeCA, 0, 1, "Bad Gateway"},
		{"half a JSON document", reply(pathOrder, 201, "application/json", `{"status":"pend`, "Location", "/my-order/1"), ScopeCA, 0, 1, "understand"},
		{"HTML", reply(pathOrder, 200, "text/html", "<html>hello</html>"), ScopeCA, 0, 1, "understand"},
		{"no Location", reply(pathOrder, 201, "application/json", `{"status":"pending"}`), ScopeCA, 0, 1, "Location"},
		{"rejected", problemReply(pathOrder, 400, "rejectedIdentifier", "forbidden by policy"), ScopeName, 0, 1, "forbidden by policy"},
		{"new terms", problemReply(pathOrder, 403, "userActionRequired", "terms changed", "Link", `<https://ca.test/tos-2>;rel="terms-of-service"`), ScopeCA, actionPause, 1, "https://ca.test/tos-2"},
		{"other names", reply(pathOrder, 201, "application/json",
			`{"status":"pending","identifiers":[{"type":"dns","value":"evil.test"}],"authorizations":[],"finalize":"/f"}`, "Location", "/my-order/1"), ScopeCA, 0, 1, "other names"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, p, _, store := setup(t, pebbleOptions{})
			p.fail(tt.fault)
			_, err := c.Obtain(t.Context(), newRequest(t, "www.example.test"))
			problem := problemOf(t, err, tt.scope)
			if got := time.Until(problem.RetryAt()); tt.retry == 0 && !problem.RetryAt().IsZero() || tt.retry != 0 && (got > tt.retry || got < tt.retry-time.Minute) {
				t.Errorf("retry in %v, wanted %v", got, tt.retry)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error does not say %q: %v", tt.says, err)
			}
			if got := p.count("POST " + pathOrder); got != tt.orders {
				t.Errorf("%d orders sent, wanted %d", got, tt.orders)
			}
			if left, _ := store.List(t.Context(), "acme/pebble/orders/", "", 0); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
			if c.Status().LastError == "" {
				t.Error("status does not tell the error")
			}
		})
	}
}

// TestObtain_GivesUpFastWhenTheCAIsDown: after three tries, a second and a half apart all in all, whatever the endpoint; and as soon as the CA is back, the order that was placed goes on.
func TestObtain_GivesUpFastWhenTheCAIsDown(t *testing.T) {
	for _, path := range []string{"/dir", pathNonce, pathAccount, pathAuthz, pathChallenge, pathFinalize, pathMyOrder, pathCert} {
		for name, f := range map[string]fault{
			"503":       problemReply(path, 503, "serverInternal", "down"),
			"truncated": reply(path, 200, "application/json", `{"status":"val`),
			"cut":       cut(path),
		} {
			if path == pathNonce && name == "truncated" {
				continue // newNonce has no body
			}
			t.Run(strings.Trim(path, "/")+" "+name, func(t *testing.T) {
				t.Parallel()
				testDown(t, path, f, name == "503")
			})
		}
	}
}

// testDown uses the real pauses between tries if told to: they are what takes the time.
func testDown(t *testing.T, path string, f fault, realPauses bool) {
	c, p, _, _ := parallelSetup(t)
	if realPauses {
		c.wire.retries = newWire(&c.cfg).retries
	}
	orders := p.orders()
	p.fail(f)
	r := newRequest(t, "www.example.test")
	_, err := c.Obtain(t.Context(), r)
	problemOf(t, err, ScopeCA)
	if n := p.count(path); n > 3 {
		t.Errorf("%d tries, each of them after a longer pause", n)
	}
	p.fail()
	obtain(t, c, r)
	if got := orders.get(); got != 1 {
		t.Errorf("%d orders for one certificate", got)
	}
}

// cut closes the connection in the middle of the answer.
func cut(path string) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, path) {
			return false
		}
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"status":`)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func TestObtain_LeavesACAThatHangs(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{})
	released := make(chan struct{})
	defer close(released)
	p.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != pathOrder {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body) // so that the server notices when the client leaves
		select {
		case <-released:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler) // an empty answer might still reach a client that is just leaving
	})
	t.Run("by the request's own bound", func(t *testing.T) {
		c.wire.timeout = 300 * time.Millisecond
		_, err := c.Obtain(t.Context(), newRequest(t, "www.example.test"))
		problemOf(t, err, ScopeCA)
	})
	t.Run("by the caller's deadline", func(t *testing.T) {
		c.wire.timeout = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := c.Obtain(ctx, newRequest(t, "www.example.test"))
		problemOf(t, err, ScopeCA)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
	})
}

func TestObtain_BoundsRetryAfterOfOrdersAndAuthorizations(t *testing.T) {
	for name, value := range map[string]string{
		"in the past": time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat),
		"in a day":    "86400",
		"a huge date": time.Now().Add(10 * 365 * 24 * time.Hour).UTC().Format(http.TimeFormat),
		"nonsense":    "soon",
	} {
		t.Run(name, func(t *testing.T) {
			c, p, _, _ := setup(t, pebbleOptions{})
			p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
				resp.Header().Set("Retry-After", value)
			})
			obtain(t, c, newRequest(t, "www.example.test"))
		})
	}
}

func TestObtain_FinalizeThatFails(t *testing.T) {
	t.Run("before the CSR arrived", func(t *testing.T) {
		c, p, _, _ := setup(t, pebbleOptions{})
		p.fail(times(1, problemReply(pathFinalize, 500, "serverInternal", "boom")))
		obtain(t, c, newRequest(t, "www.example.test"))
	})
	t.Run("after the CSR arrived", func(t *testing.T) {
		c, p, _, _ := setup(t, pebbleOptions{})
		p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
			if strings.HasPrefix(r.URL.Path, pathFinalize) {
				resp.Code = 500
			}
		})
		obtain(t, c, newRequest(t, "www.example.test"))
		if got := p.count("POST " + pathFinalize); got != 1 {
			t.Errorf("the CSR was sent %d times", got)
		}
	})
	t.Run("order not ready yet", func(t *testing.T) {
		c, p, _, _ := setup(t, pebbleOptions{})
		p.fail(times(2, problemReply(pathFinalize, 403, "orderNotReady", "not yet")))
		obtain(t, c, newRequest(t, "www.example.test"))
	})
	t.Run("bad CSR", func(t *testing.T) {
		c, p, _, store := setup(t, pebbleOptions{})
		p.fail(times(1, problemReply(pathFinalize, 400, "badCSR", "weak key")))
		_, err := c.Obtain(t.Context(), newRequest(t, "www.example.test"))
		problemOf(t, err, ScopeName)
		if left, _ := store.List(t.Context(), "acme/pebble/orders/", "", 0); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	t.Run("authorizations ended before the CSR arrived", func(t *testing.T) {
		c, p, _, _ := setup(t, pebbleOptions{})
		p.fail(times(1, problemReply(pathFinalize, 403, "unauthorized", "authorizations for these identifiers are expired")))
		r := newRequest(t, "www.example.test")
		_, err := c.Obtain(t.Context(), r)
		problemOf(t, err, ScopeName)
		obtain(t, c, r)
		if got := p.count("POST " + pathOrder); got != 2 {
			t.Errorf("%d orders, wanted another one", got)
		}
	})
}

// TestObtain_GivesBackWhatAnOrderCostThatNeverLeft: in an outage, names are tried again and again, and budgets are to be there when it is over.
func TestObtain_GivesBackWhatAnOrderCostThatNeverLeft(t *testing.T) {
	abort := func(path string) func(*Client, *pebble) {
		return func(_ *Client, p *pebble) { p.fail(cut(path)) }
	}
	for _, tt := range []struct {
		name    string
		nonces  bool // there are some from earlier answers
		outage  func(*Client, *pebble)
		refunds int
	}{
		{"no nonce", false, abort(pathNonce), 1},
		{"no connection", true, func(c *Client, _ *pebble) {
			c.wire.transport.CloseIdleConnections()
			c.wire.transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
			}
		}, 1},
		{"no trust in the CA's certificate", true, func(c *Client, _ *pebble) {
			c.wire.transport.CloseIdleConnections()
			c.wire.transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
		}, 1},
		{"the answer was cut short", true, abort(pathOrder), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, p, _, _ := setup(t, pebbleOptions{})
			obtain(t, c, newRequest(t, "a.example.test"))
			if !tt.nonces {
				c.wire.nonces = noncePool{}
			}
			tt.outage(c, p)
			paid, refunds := 0, 0
			r := newRequest(t, "b.example.test")
			r.Placing = func(context.Context, bool) (func(), error) {
				paid++
				return func() { refunds++ }, nil
			}
			_, err := c.Obtain(t.Context(), r)
			problemOf(t, err, ScopeCA)
			if paid != 1 || refunds != tt.refunds {
				t.Errorf("paid %d times, refunded %d times, wanted %d: %v", paid, refunds, tt.refunds, err)
			}
		})
	}
}

// TestObtain_IsContinuedByASuccessor: whatever the moment of the crash, one order.
func TestObtain_IsContinuedByASuccessor(t *testing.T) {
	for _, path := range []string{pathAuthz, pathChallenge, pathFinalize, pathMyOrder, pathCert} {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprintf("crash at %s, request arrived: %v", strings.Trim(path, "/"), applied), func(t *testing.T) {
				t.Parallel()
				testCrash(t, path, applied)
			})
		}
	}
}

func testCrash(t *testing.T, path string, applied bool) {
	c, p, n, store := parallelSetup(t)
	ctx, crash := context.WithCancel(t.Context())
	p.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, path) && !applied {
			crash()
		}
		return ctx.Err() != nil && !applied
	})
	orders := &counter{}
	p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
		if r.URL.Path == pathOrder && resp.Code == http.StatusCreated {
			orders.add()
		}
		if strings.HasPrefix(r.URL.Path, path) && ctx.Err() == nil {
			crash()
			panic(http.ErrAbortHandler) // done, but the answer does not arrive
		}
	})
	r := newRequest(t, "www.example.test")
	if _, err := c.Obtain(ctx, r); err != nil && !errors.Is(err, context.Canceled) { // nil: the last answer was faster than the crash
		t.Fatalf("Obtain of the one that crashes: %v", err)
	}
	p.fail()
	obtain(t, newClient(t, p, n, store), r)
	if got := orders.get(); got != 1 {
		t.Errorf("%d orders for one certificate", got)
	}
	if left, _ := store.List(t.Context(), "acme/pebble/orders/", "", 0); len(left) != 0 {
		t.Errorf("orders left behind: %v", left)
	}
}

// A process that is told to end while the CA makes its order hears the answer, and its successor finds the order.
func TestObtain_IsContinuedWhereItEndedBeforeTheOrderWasAnswered(t *testing.T) {
	c, p, n, store := setup(t, pebbleOptions{})
	ctx, end := context.WithCancel(t.Context())
	orders := &counter{}
	p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
		if r.URL.Path == pathOrder && resp.Code == http.StatusCreated {
			orders.add()
			end()
			time.Sleep(50 * time.Millisecond) // whoever gives up does it now
		}
	})
	r := newRequest(t, "www.example.test")
	if _, err := c.Obtain(ctx, r); !errors.Is(err, context.Canceled) {
		t.Fatalf("Obtain of the one that ends: %v", err)
	}
	obtain(t, newClient(t, p, n, store), r)
	if got := orders.get(); got != 1 {
		t.Errorf("%d orders for one certificate", got)
	}
}

// Between the CA's answer and the write of the certificate lies a moment in which a process may die. Its successor gets the same certificate.
func TestObtain_GivesTheSameCertificateAgainUntilTheOrderIsForgotten(t *testing.T) {
	c, p, n, store := setup(t, pebbleOptions{})
	orders := p.orders()
	r := newRequest(t, "www.example.test")
	r.Hold = true
	first := obtain(t, c, r)
	successor := newClient(t, p, n, store)
	again := obtain(t, successor, r)
	if got := orders.get(); got != 1 || !bytes.Equal(again.Chain[0], first.Chain[0]) {
		t.Errorf("%d orders, and the successor got the same certificate: %v", got, bytes.Equal(again.Chain[0], first.Chain[0]))
	}
	successor.Forget(t.Context(), r.CSR)
	if left, _ := store.List(t.Context(), "acme/pebble/orders/", "", 0); len(left) != 0 {
		t.Errorf("orders left behind: %v", left)
	}
}

// An order that was placed is not left to chance: who comes next, without our memory, would place another.
func TestObtain_StoresItsOrderThoughTheStoreFailsForAMoment(t *testing.T) {
	store := storagetest.NewFaulty(storage.NewMemory(), storagetest.Fault{Op: storagetest.Put, Prefix: "acme/pebble/orders/", Times: 3})
	n := newNode(t, store)
	p := newPebble(t, n, pebbleOptions{})
	orders := p.orders()
	obtain(t, newClient(t, p, n, store), newRequest(t, "www.example.test"))
	if got := orders.get(); got != 1 {
		t.Errorf("%d orders", got)
	}
}

func TestObtain_ForgetsAnOrderThatFailed(t *testing.T) {
	c, p, n, store := setup(t, pebbleOptions{})
	n.http.Close()
	n.tls.Close()
	orders := p.orders()
	r := newRequest(t, "www.example.test")
	for i := range 2 {
		_, err := c.Obtain(t.Context(), r)
		problem := problemOf(t, err, ScopeName)
		if problem.Identifier != "www.example.test" || kind(problem.Type) == "" {
			t.Errorf("problem is %+v", problem)
		}
		wantOp := []string{"validate tls-alpn-01", "validate http-01"}[i] // the types take turns
		if problem.Op != wantOp {
			t.Errorf("op is %q, wanted %q", problem.Op, wantOp)
		}
	}
	if got := orders.get(); got != 2 {
		t.Errorf("%d orders for two attempts", got)
	}
	for _, prefix := range []string{"acme/pebble/orders/", "acme/challenges/"} {
		if left, _ := store.List(t.Context(), prefix, "", 0); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	for _, line := range p.requests(0) {
		if strings.Contains(line, "deactivate") {
			t.Error(line)
		}
	}
}

// TestObtain_StartsOverOnceWhenAPredecessorsOrderFailed: the CA looked while nobody was there to answer, which says nothing of the name. If it fails again,
// the reason is told.
func TestObtain_StartsOverOnceWhenAPredecessorsOrderFailed(t *testing.T) {
	c, p, n, store := setup(t, pebbleOptions{})
	n.http.Close()
	n.tls.Close()
	orders := p.orders()
	ctx, crash := context.WithCancel(t.Context())
	p.fail(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, pathChallenge) {
			defer crash() // once the CA has been told
		}
		return false
	})
	r := newRequest(t, "www.example.test")
	if _, err := c.Obtain(ctx, r); err == nil {
		t.Fatal("no error of the one that crashes")
	}
	p.fail()
	_, err := newClient(t, p, n, store).Obtain(t.Context(), r)
	if problem := problemOf(t, err, ScopeName); !strings.HasPrefix(problem.Op, "validate ") || kind(problem.Type) != "connection" {
		t.Errorf("problem is %+v", problem)
	}
	if got := orders.get(); got != 2 {
		t.Errorf("%d orders; wanted the predecessor's and one more", got)
	}
}

func TestObtain_LeavesAnOrderThatIsNotDecidedToTheNextCall(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{}, func(cfg *Config) { cfg.OrderTimeout = time.Second })
	orders := &counter{}
	processing := true
	var mu sync.Mutex
	p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == pathOrder {
			orders.add()
		}
		if strings.HasPrefix(r.URL.Path, pathMyOrder) && processing {
			resp.Body = bytes.NewBuffer(bytes.ReplaceAll(resp.Body.Bytes(), []byte(`"valid"`), []byte(`"processing"`)))
		}
	})
	r := newRequest(t, "www.example.test")
	_, err := c.Obtain(t.Context(), r)
	if got := time.Until(problemOf(t, err, ScopeName).RetryAt()); got < 9*time.Minute || got > undecidedPause {
		t.Errorf("retry in %v", got)
	}
	mu.Lock()
	processing = false
	mu.Unlock()
	obtain(t, c, r)
	if got := orders.get(); got != 1 {
		t.Errorf("%d orders for one certificate", got)
	}
}

func TestObtain_PlacesTheOrderAnewWhenTheCAForgotIt(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{})
	orders := p.orders()
	p.fail(problemReply(pathCert, 500, "serverInternal", "boom"))
	r := newRequest(t, "www.example.test")
	_, err := c.Obtain(t.Context(), r)
	problemOf(t, err, ScopeCA)
	forgotten := problemReply(pathMyOrder, 404, "malformed", "no such order")
	p.fail(forgotten)
	for range 3 { // it was placed just now: perhaps another node of the CA knows it
		_, err = c.Obtain(t.Context(), r)
		problemOf(t, err, ScopeCA)
	}
	if n := orders.get(); n != 1 {
		t.Errorf("%d orders while the CA says that it does not know the first", n)
	}
	placedEarlier(t, c, r, undecidedPause)
	p.fail(times(1, forgotten))
	obtain(t, c, r)
	if n := orders.get(); n != 2 {
		t.Errorf("%d orders, wanted are 2", n)
	}
}

func TestObtain_FetchesACertificateAgainThatTheCAWillNotGive(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{})
	orders := p.orders()
	p.fail(problemReply(pathCert, 404, "malformed", "no such certificate"))
	r := newRequest(t, "www.example.test")
	for range 3 {
		_, err := c.Obtain(t.Context(), r)
		problemOf(t, err, ScopeCA)
	}
	p.fail()
	obtain(t, c, r)
	if n := orders.get(); n != 1 {
		t.Errorf("%d orders for one certificate", n)
	}
}

// placedEarlier makes the stored order look placed d earlier.
func placedEarlier(t *testing.T, c *Client, r Request, d time.Duration) {
	t.Helper()
	object := c.orders.name(r.CSR)
	record, err := c.orders.load(t.Context(), object)
	if err != nil || record == nil {
		t.Fatalf("order %+v, error %v", record, err)
	}
	record.Placed = record.Placed.Add(-d)
	if err := c.orders.save(t.Context(), object, *record); err != nil {
		t.Fatal(err)
	}
}

func TestObtain_LooksAtAWrongCertificateAgainForAWhileBeforeItOrdersAnother(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{})
	another := obtain(t, c, newRequest(t, "another.example.test"))
	var wrong bytes.Buffer
	for _, der := range another.Chain {
		if err := pem.Encode(&wrong, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			t.Fatal(err)
		}
	}
	orders := &counter{}
	p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
		switch {
		case r.URL.Path == pathOrder && resp.Code == http.StatusCreated:
			orders.add()
		case strings.HasPrefix(r.URL.Path, pathCert):
			resp.Body = bytes.NewBuffer(wrong.Bytes())
		}
	})
	r := newRequest(t, "www.example.test")
	obtainFails := func(want int) {
		t.Helper()
		_, err := c.Obtain(t.Context(), r)
		if p := problemOf(t, err, ScopeCA); !strings.Contains(p.Error(), "another key") || !strings.Contains(p.Advice, "report it") {
			t.Errorf("error is %v", p)
		}
		if got := orders.get(); got != want {
			t.Errorf("%d orders, wanted are %d", got, want)
		}
	}
	obtainFails(1)
	obtainFails(1)
	placedEarlier(t, c, r, misissuedPause)
	obtainFails(2)
	p.rewrite()
	obtain(t, c, r) // that of the second order
	if n := p.count("POST " + pathOrder); n != 3 {
		t.Errorf("%d orders in all, wanted are 3", n)
	}
}

func TestObtain_RegistersALostAccountAgainWithTheSameKeyOnceAnHour(t *testing.T) {
	c, p, n, store := setup(t, pebbleOptions{})
	obtain(t, c, newRequest(t, "a.example.test"))
	key, url := c.accounts.get().key, c.accounts.get().URL
	p.restart(t, n, pebbleOptions{})
	var wg sync.WaitGroup
	for i := range 5 { // all find out, one registers; that the account is new makes no difference
		r := newRequest(t, fmt.Sprintf("b%d.example.test", i))
		wg.Go(func() {
			if _, err := c.Obtain(t.Context(), r); err != nil {
				t.Errorf("Obtain(%v): %v", r.Names, err)
			}
		})
	}
	wg.Wait()
	if now := c.accounts.get(); !sameKey(now.key, key) || now.URL == url {
		t.Errorf("account was %s, is %s; same key: %v", url, now.URL, sameKey(now.key, key))
	}
	restored := c.accounts.get().Restored
	p.restart(t, n, pebbleOptions{})
	_, err := c.Obtain(t.Context(), newRequest(t, "c.example.test"))
	if p := problemOf(t, err, ScopeAccount); p.RetryAt().Sub(restored.Add(reregisterPause)).Abs() > time.Second {
		t.Errorf("retry at %v: an account that was registered again at %v and is lost waits an hour", p.RetryAt(), restored)
	}
	age(t, c, store)
	obtain(t, newClient(t, p, n, store), newRequest(t, "c.example.test"))
}

func TestObtain_RegistersALostAccountThoughTheCAFailedAtFirst(t *testing.T) {
	c, p, n, store := setup(t, pebbleOptions{})
	obtain(t, c, newRequest(t, "a.example.test"))
	key := c.accounts.get().key
	p.restart(t, n, pebbleOptions{})
	age(t, c, store)
	c = newClient(t, p, n, store)
	p.fail(problemReply(pathAccount, 500, "serverInternal", "boom"))
	_, err := c.Obtain(t.Context(), newRequest(t, "b.example.test"))
	problemOf(t, err, ScopeCA)
	p.fail()
	obtain(t, c, newRequest(t, "b.example.test"))
	if now := c.accounts.get(); !sameKey(now.key, key) || time.Since(now.Registered) > time.Hour {
		t.Errorf("same key: %v, registered %s", sameKey(now.key, key), now.Registered)
	}
}

// age makes the stored account look registered two days ago, and never again since, and forgets the limits.
func age(t *testing.T, c *Client, store storage.Store) {
	t.Helper()
	data, _, err := store.Get(t.Context(), c.accountName())
	if err != nil {
		t.Fatal(err)
	}
	var record accountRecord
	if err := json.Unmarshal(data, &record); err != nil {
		t.Fatal(err)
	}
	record.Registered, record.Restored = record.Registered.Add(-48*time.Hour), time.Time{}
	if data, err = json.Marshal(record); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Put(t.Context(), c.accountName(), data); err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), c.limits.name()); err != nil {
		t.Fatal(err)
	}
}

// TestObtain_StoreFailsInEachPhase: an outage of the store never makes a second account or a second order, and when the store is back, all is well.
func TestObtain_StoreFailsInEachPhase(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault storagetest.Fault
		works bool // the certificate comes all the same
	}{
		{"account cannot be read", storagetest.Fault{Op: storagetest.Get, Prefix: "acme/pebble/account"}, false},
		{"account's lease cannot be had", storagetest.Fault{Op: storagetest.Lease}, false},
		{"account key cannot be stored", storagetest.Fault{Op: storagetest.PutIf, Prefix: "acme/pebble/account"}, false},
		{"account URL cannot be stored", storagetest.Fault{Op: storagetest.PutIf, Prefix: "acme/pebble/account", Skip: 1}, false},
		{"account URL is stored, but an error is answered", storagetest.Fault{Op: storagetest.PutIf, Prefix: "acme/pebble/account", Skip: 1, Applied: true}, false},
		{"account key is stored, but an error is answered", storagetest.Fault{Op: storagetest.PutIf, Prefix: "acme/pebble/account", Times: 1, Applied: true}, false},
		{"order cannot be looked up", storagetest.Fault{Op: storagetest.Get, Prefix: "acme/pebble/orders/"}, false},
		{"order cannot be stored", storagetest.Fault{Op: storagetest.Put, Prefix: "acme/pebble/orders/"}, false},
		{"order is stored, but an error is answered", storagetest.Fault{Op: storagetest.Put, Prefix: "acme/pebble/orders/", Applied: true}, false},
		{"challenge cannot be stored", storagetest.Fault{Op: storagetest.Put, Prefix: "acme/challenges/"}, false},
		{"challenge cannot be removed", storagetest.Fault{Op: storagetest.Delete, Prefix: "acme/challenges/"}, true},
		{"order cannot be removed", storagetest.Fault{Op: storagetest.Delete, Prefix: "acme/pebble/orders/"}, true},
		{"limits cannot be read", storagetest.Fault{Op: storagetest.Get, Prefix: "acme/pebble/limits"}, true},
		{"lease cannot be released", storagetest.Fault{Op: storagetest.Release, Applied: true}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			store := storagetest.NewFaulty(storage.NewMemory())
			n := newNode(t, store)
			p := newParallelPebble(t, n)
			c := newClient(t, p, n, store)
			orders, accounts := &counter{}, &counter{}
			p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
				switch {
				case r.URL.Path == pathOrder && resp.Code == http.StatusCreated:
					orders.add()
				case r.URL.Path == pathAccount && resp.Code == http.StatusCreated:
					accounts.add()
				}
			})
			store.Set(tt.fault)
			r := newRequest(t, "www.example.test")
			_, err := c.Obtain(t.Context(), r)
			if tt.works != (err == nil) {
				t.Errorf("with the fault: %v", err)
			}
			if _, ours := errors.AsType[*StoreError](err); err != nil && (!ours || !errors.Is(err, storagetest.ErrInjected)) {
				t.Errorf("error is %v", err)
			}
			store.Set()
			if err != nil {
				obtain(t, c, r)
			}
			if got := orders.get(); got != 1 {
				t.Errorf("%d orders", got)
			}
			if got := accounts.get(); got != 1 {
				t.Errorf("%d accounts", got)
			}
		})
	}
}

func TestAccount_DamagedRecordIsPutAsideAndOneNewAccountMade(t *testing.T) {
	c, p, _, store := setup(t, pebbleOptions{})
	if _, err := store.Put(t.Context(), c.accountName(), []byte("{")); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if _, err := c.Account(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if kept, _, err := store.Get(t.Context(), "quarantine/"+c.accountName()); err != nil || string(kept) != "{" {
		t.Errorf("quarantine has %q, %v", kept, err)
	}
	if n := p.count(pathAccount); n != 1 {
		t.Errorf("%d registrations", n)
	}
}

func TestAccount_ARecordThatCannotBeReadIsNoAbsence(t *testing.T) {
	c, p, _, store := setup(t, pebbleOptions{})
	if _, err := c.Account(t.Context()); err != nil {
		t.Fatal(err)
	}
	faulty := storagetest.NewFaulty(store, storagetest.Fault{Op: storagetest.Get, Prefix: c.accountName()})
	c.accounts.set(nil)
	c.cfg.Store = faulty
	if _, err := c.Account(t.Context()); !errors.Is(err, storagetest.ErrInjected) || p.count(pathAccount) != 1 {
		t.Errorf("error is %v after %d registrations", err, p.count(pathAccount))
	}
}

func TestAccount_NeedsTermsAndNoBinding(t *testing.T) {
	t.Run("terms not agreed to", func(t *testing.T) {
		c, p, _, _ := setup(t, pebbleOptions{}, func(cfg *Config) { cfg.AgreeTerms = false })
		_, err := c.Account(t.Context())
		if problem := problemOf(t, err, ScopeCA); !strings.Contains(problem.Advice, "agree_terms") || p.count(pathAccount) != 0 {
			t.Errorf("problem is %v after %d registrations", problem, p.count(pathAccount))
		}
	})
	t.Run("external account required", func(t *testing.T) {
		c, _, _, _ := setup(t, pebbleOptions{requireEAB: true})
		_, err := c.Account(t.Context())
		if problem := problemOf(t, err, ScopeCA); kind(problem.Type) != "externalAccountRequired" {
			t.Errorf("problem is %v", problem)
		}
	})
}

func TestAccount_IsFoundAgainByItsKeyAfterACrash(t *testing.T) {
	c, p, n, store := setup(t, pebbleOptions{})
	p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
		if r.URL.Path == pathAccount {
			resp.Code = 500 // made, but nobody learns of it
		}
	})
	_, err := c.Account(t.Context())
	problemOf(t, err, ScopeCA)
	p.rewrite()
	made := &counter{}
	p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
		if r.URL.Path == pathAccount && resp.Code == http.StatusCreated {
			made.add()
		}
	})
	acct, err := newClient(t, p, n, store).Account(t.Context())
	if err != nil || acct.URL == "" || made.get() != 0 {
		t.Errorf("account is %+v, error %v, made anew: %d", acct, err, made.get())
	}
}

// payloads records what is signed in requests to a path, in place of the faults that were set.
func (p *pebble) payloads(path string) func() []string {
	return p.signed(path, func(jws signedBody) string { return jws.Payload })
}

// protected records the protected headers of requests to a path, in place of the faults that were set.
func (p *pebble) protected(path string) func() []string {
	return p.signed(path, func(jws signedBody) string { return jws.Protected })
}

// signedBody is a signed request, each part in base64url.
type signedBody struct{ Protected, Payload string }

func (p *pebble) signed(path string, part func(signedBody) string) func() []string {
	var mu sync.Mutex
	var got []string
	p.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != path {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		var jws signedBody
		_ = json.Unmarshal(body, &jws)
		decoded, _ := base64.RawURLEncoding.DecodeString(part(jws))
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(decoded))
		return false
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), got...)
	}
}

func TestObtain_SaysWhatItReplacesAndTriesOnceWithout(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{})
	first := obtain(t, c, newRequest(t, "www.example.test"))
	payloads := p.payloads(pathOrder)
	r := newRequest(t, "www.example.test")
	r.Predecessor = first.Chain
	obtain(t, c, r)
	if got := payloads(); len(got) != 1 || !strings.Contains(got[0], `"replaces":"`+certificateID(first.Chain)+`"`) {
		t.Errorf("orders are %q", got)
	}
	r = newRequest(t, "other.example.test") // has no name in common
	r.Predecessor = first.Chain
	obtain(t, c, r)
	if got := payloads(); len(got) != 2 || strings.Contains(got[1], "replaces") {
		t.Errorf("orders are %q", got)
	}
}

// TestObtain_TriesOnceWithoutReplacesWhateverTheRefusal: the various ways in which Let's Encrypt finds fault with a predecessor. They are not left to pebble, whose look
// at the replaced order races with its own note of it.
func TestObtain_TriesOnceWithoutReplacesWhateverTheRefusal(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{})
	first := obtain(t, c, newRequest(t, "www.example.test"))
	for _, tt := range []struct {
		name  string
		fault fault
		tries int // orders that are sent
	}{
		{"replaced before", problemReply(pathOrder, 409, "alreadyReplaced", "replaced before"), 2},
		{"unknown", problemReply(pathOrder, 404, "malformed", "no such certificate"), 2},
		{"another account's", problemReply(pathOrder, 403, "unauthorized", "not yours"), 2},
		{"no name in common", problemReply(pathOrder, 400, "malformed", "no common identifier"), 2},
		{"a name", problemReply(pathOrder, 400, "rejectedIdentifier", "forbidden"), 1},
		{"an outage", problemReply(pathOrder, 500, "serverInternal", "boom"), 1},
		{"a limit", problemReply(pathOrder, 429, "rateLimited", "too many new orders (300) from this account"), 1}, // holds for what follows
	} {
		t.Run(tt.name, func(t *testing.T) {
			payloads := p.payloads(pathOrder)
			p.fail(append(p.faults, times(1, tt.fault))...)
			r := newRequest(t, "www.example.test")
			r.Predecessor = first.Chain
			_, err := c.Obtain(t.Context(), r)
			if (err == nil) != (tt.tries == 2) {
				t.Errorf("Obtain: %v", err)
			}
			got := payloads()
			if len(got) != tt.tries || !strings.Contains(got[0], "replaces") || tt.tries == 2 && strings.Contains(got[1], "replaces") {
				t.Errorf("orders are %q", got)
			}
		})
	}
}

// refuseNonces refuses every nonce at the path, and gives none for the next try, as a CA does whose nodes do not know each other's nonces.
func refuseNonces(path string) fault {
	return problemReply(path, 400, "badNonce", "JWS has an invalid anti-replay nonce")
}

func TestObtain_OutlastsACAThatRefusesEachNonceForAWhile(t *testing.T) {
	for _, path := range []string{pathAccount, pathOrder, pathAuthz, pathFinalize, pathCert} {
		t.Run(strings.Trim(path, "/"), func(t *testing.T) {
			t.Parallel()
			c, p, _, _ := parallelSetup(t)
			orders := p.orders()
			p.fail(times(20, refuseNonces(path)))
			obtain(t, c, newRequest(t, "www.example.test"))
			if got := orders.get(); got != 1 {
				t.Errorf("%d orders for one certificate", got)
			}
		})
	}
}

func TestObtain_LeavesACAThatRefusesEachNonceForEver(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{})
	p.fail(refuseNonces(pathOrder))
	_, err := c.Obtain(t.Context(), newRequest(t, "www.example.test"))
	if problem := problemOf(t, err, ScopeCA); kind(problem.Type) != "badNonce" {
		t.Errorf("problem is %v", problem)
	}
	if got := p.count("POST " + pathOrder); got > maxBadNonce+1 {
		t.Errorf("%d requests", got)
	}
}

// TestObtain_TakesAnOrderInWhateverStateTheCAGivesIt: CAs hand out orders again, and are slow or quick to know what they have.
func TestObtain_TakesAnOrderInWhateverStateTheCAGivesIt(t *testing.T) {
	for _, tt := range []struct {
		name   string
		path   string // whose answer says another status, once
		status string
	}{
		{"a new order that is being processed", pathOrder, "processing"},
		{"a new order without a status", pathOrder, ""},
		{"a finalized order that is still ready", pathFinalize, "ready"},
		{"a finalized order that is pending again", pathFinalize, "pending"},
		{"an order with a status of the CA's own", pathMyOrder, "approving"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, p, _, _ := setup(t, pebbleOptions{})
			once := &counter{}
			p.rewrite(func(r *http.Request, resp *httptest.ResponseRecorder) {
				var o map[string]any
				if !strings.HasPrefix(r.URL.Path, tt.path) || resp.Code >= 300 || once.get() > 0 || json.Unmarshal(resp.Body.Bytes(), &o) != nil {
					return
				}
				once.add()
				o["status"] = tt.status
				body, _ := json.Marshal(o)
				resp.Body = bytes.NewBuffer(body)
			})
			obtain(t, c, newRequest(t, "www.example.test"))
			if got := p.count("POST " + pathOrder); got != 1 || once.get() != 1 {
				t.Errorf("%d orders, %d answers changed", got, once.get())
			}
		})
	}
}
