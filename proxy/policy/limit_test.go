package policy_test

import (
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/proxy/policy"
)

func TestLimit_Answers429WithRetryAfterOverRealSockets(t *testing.T) {
	l, err := policy.NewLimit(policy.LimitConfig{Rate: 1.0 / 3600, Burst: 2, Client: clientOf})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, l, ok)
	for range 2 {
		if a := get(t, s, clientField, "192.0.2.1"); a.StatusCode != 200 {
			t.Fatalf("a request of the burst got %s", a.Status)
		}
	}
	a := get(t, s, clientField, "192.0.2.1")
	wait, _ := strconv.Atoi(a.Header.Get("Retry-After"))
	if a.StatusCode != 429 || wait < 3000 || wait > 3600 {
		t.Errorf("got %s, Retry-After %d; want 429 and nearly an hour", a.Status, wait)
	}
	if a := get(t, s, clientField, "192.0.2.2"); a.StatusCode != 200 {
		t.Errorf("another client got %s", a.Status)
	}
}

// ask sends one request through the handler and returns its status.
func ask(h http.Handler, client string, fields ...string) int {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set(clientField, client)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

func TestLimit_EarnsItsRateBackNeitherSoonerNorLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := policy.NewLimit(policy.LimitConfig{Rate: 2, Burst: 3, Client: clientOf})
		if err != nil {
			t.Fatal(err)
		}
		h := l.Wrap(http.HandlerFunc(ok))
		passed := func(n int) (count int) {
			for range n {
				if ask(h, "192.0.2.1") == 200 {
					count++
				}
			}
			return count
		}
		for _, step := range []struct {
			wait time.Duration
			want int
		}{{0, 3}, {499 * time.Millisecond, 0}, {time.Millisecond, 1}, {time.Second, 2}, {time.Hour, 3}} {
			time.Sleep(step.wait)
			if got := passed(10); got != step.want {
				t.Errorf("after %v %d of 10 passed, want %d", step.wait, got, step.want)
			}
		}
	})
}

func TestLimit_KnowsClientsByNetworkAndKeysByHeader(t *testing.T) {
	for name, row := range map[string]struct {
		header      string
		first, then []string // client, fields
		same        bool
	}{
		"one address":                               {first: []string{"192.0.2.1"}, then: []string{"192.0.2.1"}, same: true},
		"neighbours of IPv4":                        {first: []string{"192.0.2.1"}, then: []string{"192.0.2.2"}},
		"one /64 of IPv6":                           {first: []string{"2001:db8::1"}, then: []string{"2001:db8::ffff:2"}, same: true},
		"two /64 of IPv6":                           {first: []string{"2001:db8::1"}, then: []string{"2001:db8:0:1::1"}},
		"peers without an address":                  {first: []string{""}, then: []string{""}, same: true},
		"one key from two addresses":                {header: "x-api-key", first: []string{"192.0.2.1", "X-Api-Key", "a"}, then: []string{"192.0.2.2", "X-Api-Key", "a"}, same: true},
		"two keys from one address":                 {header: "x-api-key", first: []string{"192.0.2.1", "X-Api-Key", "a"}, then: []string{"192.0.2.1", "X-Api-Key", "b"}},
		"no key twice from one address":             {header: "x-api-key", first: []string{"192.0.2.1"}, then: []string{"192.0.2.1"}, same: true},
		"an empty key is none, and does not escape": {header: "x-api-key", first: []string{"192.0.2.1"}, then: []string{"192.0.2.1", "X-Api-Key", ""}, same: true},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := policy.NewLimit(policy.LimitConfig{Rate: 1e-6, Burst: 1, Header: row.header, Client: clientOf})
			if err != nil {
				t.Fatal(err)
			}
			h := l.Wrap(http.HandlerFunc(ok))
			if got := ask(h, row.first[0], row.first[1:]...); got != 200 {
				t.Fatalf("the first got %d", got)
			}
			if limited := ask(h, row.then[0], row.then[1:]...) == 429; limited != row.same {
				t.Errorf("the second limited: %t, want %t", limited, row.same)
			}
		})
	}
}

func TestLimit_RefusesWhatLimitsNothing(t *testing.T) {
	for name, cfg := range map[string]policy.LimitConfig{
		"no rate":         {Client: clientOf},
		"negative rate":   {Rate: -1, Client: clientOf},
		"negative burst":  {Rate: 1, Burst: -1, Client: clientOf},
		"nobody to limit": {Rate: 1},
	} {
		if _, err := policy.NewLimit(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// flooder asks as ever new clients, as one who has a /32 of IPv6 can.
type flooder struct {
	h    http.Handler
	r    *http.Request
	next uint64
}

func newFlooder(l *policy.Limit, at *netip.Addr) *flooder {
	return &flooder{h: l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), r: httptest.NewRequest(http.MethodGet, "/", nil)}
}

func (f *flooder) ask(at *netip.Addr) {
	var b [16]byte
	f.next++
	binary.BigEndian.PutUint64(b[:], 0x20010db8<<32|f.next)
	*at = netip.AddrFrom16(b)
	f.h.ServeHTTP(nil, f.r)
}

func TestLimit_StaysBoundedAndGoesOnLimitingInAFloodOfClients(t *testing.T) {
	var at netip.Addr
	l, err := policy.NewLimit(policy.LimitConfig{Rate: 0.001, Burst: 100, Keys: 1 << 16, Client: func(*http.Request) netip.Addr { return at }})
	if err != nil {
		t.Fatal(err)
	}
	greedy := l.Wrap(http.HandlerFunc(ok))
	at = addr("192.0.2.1")
	for range 100 {
		ask(greedy, "")
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	f := newFlooder(l, &at)
	for range 300_000 {
		f.ask(&at)
	}
	if grown := int64(heap()) - int64(before); grown > 2<<20 {
		t.Errorf("300,000 clients took %d bytes, more than a table of 65,536", grown)
	}
	at = addr("192.0.2.1")
	if got := ask(greedy, ""); got != 429 {
		t.Errorf("who had used up the burst got %d after the flood", got)
	}
	runtime.KeepAlive(l)
}

func TestLimit_CostsNoAllocation(t *testing.T) {
	at := addr("192.0.2.1")
	l, err := policy.NewLimit(policy.LimitConfig{Rate: 1e9, Burst: 1 << 20, Client: func(*http.Request) netip.Addr { return at }})
	if err != nil {
		t.Fatal(err)
	}
	h, r := l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), httptest.NewRequest(http.MethodGet, "/", nil)
	if n := testing.AllocsPerRun(1000, func() { h.ServeHTTP(nil, r) }); n != 0 {
		t.Errorf("%v allocations for a request", n)
	}
}

func BenchmarkLimit(b *testing.B) {
	at := addr("192.0.2.1")
	l, err := policy.NewLimit(policy.LimitConfig{Rate: 1e12, Client: func(*http.Request) netip.Addr { return at }})
	if err != nil {
		b.Fatal(err)
	}
	h, r := l.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), httptest.NewRequest(http.MethodGet, "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(nil, r)
	}
}

func BenchmarkLimit_NewClients(b *testing.B) {
	var at netip.Addr
	l, err := policy.NewLimit(policy.LimitConfig{Rate: 1, Client: func(*http.Request) netip.Addr { return at }})
	if err != nil {
		b.Fatal(err)
	}
	f := newFlooder(l, &at)
	b.ReportAllocs()
	for b.Loop() {
		f.ask(&at)
	}
}
