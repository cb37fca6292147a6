package certs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/proxy/certs/permission"
	"gatelodge/storage/storagetest"
)

// A deluge is a way to make handshakes wait: fifty thousand come at once, for so many names.
type deluge struct {
	name  string
	names int
	begin func(h *house) // what goes wrong, once the good names are there

	orders int // that may reach the CA at most
	asked  int // questions of permission at most
}

func deluges() []deluge {
	hangingCA := func(h *house) {
		h.ca.script(func(ctx context.Context, _ *Request) error { <-ctx.Done(); return ctx.Err() })
	}
	hangingGate := func(h *house) {
		h.gate.allow = func(string) error { time.Sleep(2 * time.Second); return errGateDown }
	}
	hangingStore := func(h *house) { h.store.Set(storagetest.Fault{Op: storagetest.Get, Prefix: "certs/n", Hang: true}) }
	denied := func(h *house) { h.gate.allow = deny }
	refused := func(h *house) { h.ca.failWith(&fakeFailure{scope: ScopeName}) }
	down := func(h *house) { h.ca.failWith(errors.New("connection refused")) }
	const few, many = 10, 50_000
	const trials = 2 + int(time.Minute/trialEvery)
	return []deluge{
		{"one name that is denied", 1, denied, 0, 1},
		{"names that are denied", many, denied, 0, many},
		{"one name that the CA refuses", 1, refused, 1, 1},
		{"names that the CA refuses", 500, refused, 500, 500},
		{"one name while the CA is down", 1, down, trials, 1},
		{"names while the CA is down", many, down, 32 + trials, many},
		{"one name while the CA hangs", 1, hangingCA, 1, 1},
		{"names while the CA hangs", many, hangingCA, 32, many},
		{"a few names while the CA hangs", few, hangingCA, few, few},
		{"one name while permission hangs", 1, hangingGate, 0, 1},
		{"names while permission hangs", many, hangingGate, 0, many},
		{"a few names while permission hangs", few, hangingGate, 0, few},
		{"one name while storage hangs", 1, hangingStore, 0, 0},
		{"names while storage hangs", many, hangingStore, 0, 0},
		{"a few names while storage hangs", few, hangingStore, 0, 0},
	}
}

// Bounds of what a deluge may take, whatever it is: they do not depend on how many come.
const (
	floodOwn  = maxInquiries + 200 // goroutines that are not a visitor's own
	floodHeap = 160 << 20          // bytes, the stacks of those who wait included; half without the race detector
)

func TestManager_FiftyThousandHandshakesAtOnceTakeABoundedAmountOfEverything(t *testing.T) {
	visitors := 50_000
	if testing.Short() {
		visitors = 15_000 // still more than may wait
	}
	for _, d := range deluges() {
		t.Run(d.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { d.run(t, visitors) })
		})
	}
}

func (d deluge) run(t *testing.T, visitors int) {
	h := newHouse(t)
	h.log = quiet()
	h.set.UnknownPerClient = -1 // they come from everywhere
	h.set.Permission = &mindfulGate{gate: h.gate}
	h.open()
	h.must("warm.example.com")
	h.must("stored.example.com")
	d.begin(h)
	asked, orders := h.gate.count(), len(h.ca.asked(""))
	before := takes()

	var all sync.WaitGroup
	var waiting, served atomic.Int64
	for i := range visitors {
		waiting.Add(1)
		all.Go(func() {
			defer waiting.Add(-1)
			cert, err := h.m.GetCertificate((&pipeAt{}).hello(fmt.Sprintf("n%d.example", i%d.names)))
			if err == nil && cert != nil {
				served.Add(1)
			}
		})
	}
	synctest.Wait()
	now, wait := takes(), int(waiting.Load())
	t.Logf("%d of %d wait; %d goroutines besides, %d KiB", wait, visitors, now.goroutines-before.goroutines-wait, (now.bytes-before.bytes)>>10)
	if wait > maxPatient {
		t.Errorf("%d handshakes wait, the bound is %d", wait, maxPatient)
	}
	if d.names == 1 && wait > maxPerName {
		t.Errorf("%d handshakes wait for one name, the bound is %d", wait, maxPerName)
	}
	if own := now.goroutines - before.goroutines - wait; own > floodOwn {
		t.Errorf("%d goroutines besides those of visitors, the bound is %d", own, floodOwn)
	}
	if grown := now.bytes - before.bytes; grown > floodHeap {
		t.Errorf("%d bytes more, the bound is %d", grown, floodHeap)
	}
	h.wantServedAtOnce("warm.example.com")
	h.m.cache.drop("stored.example.com")
	h.wantServedAtOnce("stored.example.com")

	began := time.Now()
	all.Wait()
	if took := time.Since(began); took > 20*time.Second+loadTimeout {
		t.Errorf("the last of them was answered after %s", took)
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	after := takes()
	t.Logf("a minute later: %d goroutines more, %d KiB; asked %d, orders %d", after.goroutines-before.goroutines, (after.bytes-before.bytes)>>10, h.gate.count()-asked, len(h.ca.asked(""))-orders)
	if n := h.gate.count() - asked; n > d.asked {
		t.Errorf("permission was asked %d times, the bound is %d", n, d.asked)
	}
	if n := len(h.ca.asked("")) - orders; n > d.orders {
		t.Errorf("%d orders, the bound is %d", n, d.orders)
	}
	if served.Load() > 0 {
		t.Errorf("%d were served", served.Load())
	}
}

// mindfulGate remembers verdicts as Ask does, but knows nothing when it could not tell.
type mindfulGate struct {
	*gate
	verdicts sync.Map // by name: allowed
}

func (g *mindfulGate) Allow(ctx context.Context, name string, client netip.Addr) error {
	if allowed, known := g.Known(name); known && allowed {
		return nil
	} else if known {
		return permission.ErrDenied
	}
	err := g.gate.Allow(ctx, name, client)
	if err == nil || errors.Is(err, permission.ErrDenied) {
		g.verdicts.Store(name, err == nil)
	}
	return err
}

func (g *mindfulGate) Known(name string) (allowed, known bool) {
	v, known := g.verdicts.Load(name)
	return known && v.(bool), known
}

// wantServedAtOnce is for names that have nothing to do with the deluge.
func (h *house) wantServedAtOnce(name string) {
	h.t.Helper()
	began := time.Now()
	if cert, err := h.m.GetCertificate((&pipeAt{}).hello(name)); err != nil || cert == nil || time.Since(began) > 0 {
		h.t.Errorf("%s beside the deluge: %v after %s", name, err, time.Since(began))
	}
}

// taken is what the process has at a moment.
type taken struct{ goroutines, bytes int }

func takes() taken {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return taken{runtime.NumGoroutine(), int(s.HeapAlloc + s.StackInuse)}
}
