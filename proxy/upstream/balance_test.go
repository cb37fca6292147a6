package upstream_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"testing"

	"gatelodge/proxy/proxytest"
	"gatelodge/proxy/upstream"
)

// named starts n upstreams that answer with their number, and returns their addresses.
func named(t testing.TB, n int) []string {
	t.Helper()
	var all []string
	for i := range n {
		all = append(all, proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, i) }))
	}
	return all
}

// ask sends a request and returns the answer with the text of its body.
func ask(t testing.TB, p *upstream.Pool, call *upstream.Call, header ...string) (*http.Response, string) {
	t.Helper()
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	if call != nil {
		own := *call // a call is for one request
		r = r.WithContext(upstream.WithCall(r.Context(), &own, &httptrace.ClientTrace{}))
	}
	res, err := p.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// shares counts who answers n requests.
func shares(t *testing.T, p *upstream.Pool, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		_, who := ask(t, p, nil)
		got[who]++
	}
	return got
}

func TestBalance_GivesEachTargetItsShare(t *testing.T) {
	to := named(t, 3)
	for _, balance := range []string{"p2c", "round_robin", "least_conn"} {
		t.Run(balance, func(t *testing.T) {
			got := shares(t, newPool(t, upstream.Config{To: to, Balance: balance, Weights: []int{3, 1, 0}}), 400)
			// 300 and 100 are expected; a sixth of that away is ten standard deviations of the lot.
			if got["0"] < 210 || got["0"] > 370 || got["1"] < 30 || got["2"] != 0 {
				t.Errorf("the weights 3, 1 and 0 gave %v", got)
			}
			if balance == "round_robin" && (got["0"] != 300 || got["1"] != 100) {
				t.Errorf("round robin gave %v", got)
			}
		})
	}
	if got := shares(t, newPool(t, upstream.Config{To: to, Balance: "first"}), 20); got["0"] != 20 {
		t.Errorf("first gave %v", got)
	}
}

func TestBalance_PrefersTheLessBusy(t *testing.T) {
	busy := make(chan struct{})
	began := make(chan struct{}, 10)
	slow := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { began <- struct{}{}; <-busy })
	t.Cleanup(func() { close(busy) })
	quick := named(t, 1)[0]
	for _, balance := range []string{"p2c", "least_conn"} {
		p := newPool(t, upstream.Config{To: []string{slow, quick}, Balance: balance})
		for end := false; !end; { // until the slow one has a request
			done := make(chan struct{})
			go func() {
				defer close(done)
				r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
				if res, err := p.RoundTrip(r); err == nil {
					_ = res.Body.Close()
				}
			}()
			select {
			case <-began:
				end = true
			case <-done:
			}
		}
		if got := shares(t, p, 50); got["0"] != 50 {
			t.Errorf("%s: %v", balance, got)
		}
	}
}

func TestBalance_HashesTheSameClientToTheSameTarget(t *testing.T) {
	to := named(t, 5)
	for _, c := range []struct {
		balance string
		request func(i int) (*upstream.Call, []string)
	}{
		{"hash:ip", func(i int) (*upstream.Call, []string) {
			return &upstream.Call{Client: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}, nil
		}},
		{"hash:header:X-User", func(i int) (*upstream.Call, []string) { return nil, []string{"X-User", fmt.Sprint(i)} }},
		{"hash:cookie:sid", func(i int) (*upstream.Call, []string) { return nil, []string{"Cookie", fmt.Sprintf("x=1; sid=%d", i)} }},
	} {
		t.Run(c.balance, func(t *testing.T) {
			all, some := newPool(t, upstream.Config{To: to, Balance: c.balance}), newPool(t, upstream.Config{To: to[:4], Balance: c.balance})
			count := map[string]int{}
			for i := range 200 {
				call, header := c.request(i)
				_, who := ask(t, all, call, header...)
				count[who]++
				for range 2 {
					if _, again := ask(t, all, call, header...); again != who {
						t.Fatalf("client %d went to %s, then to %s", i, who, again)
					}
				}
				if _, fewer := ask(t, some, call, header...); who != "4" && fewer != who {
					t.Fatalf("client %d moved from %s to %s when target 4 went", i, who, fewer)
				}
			}
			for i := range 5 {
				if count[fmt.Sprint(i)] < 15 {
					t.Errorf("the shares are %v", count)
				}
			}
		})
	}
}

func TestBalance_TakesA64OfIPv6ForOneClient(t *testing.T) {
	p := newPool(t, upstream.Config{To: named(t, 5), Balance: "hash:ip"})
	_, who := ask(t, p, &upstream.Call{Client: netip.MustParseAddr("2001:db8::1")})
	for i := range 20 {
		if _, again := ask(t, p, &upstream.Call{Client: netip.MustParseAddr(fmt.Sprintf("2001:db8::%x:1", i))}); again != who {
			t.Fatalf("%s, then %s", who, again)
		}
	}
	_, mapped := ask(t, p, &upstream.Call{Client: netip.MustParseAddr("::ffff:192.0.2.1")})
	if _, plain := ask(t, p, &upstream.Call{Client: netip.MustParseAddr("192.0.2.1")}); plain != mapped {
		t.Errorf("an IPv4 address and its mapped form went to %s and %s", plain, mapped)
	}
}

func TestBalance_SpreadsRequestsThatHaveNothingToHash(t *testing.T) {
	to := named(t, 2)
	for _, balance := range []string{"hash:ip", "hash:header:X-User", "hash:cookie:sid"} {
		if got := shares(t, newPool(t, upstream.Config{To: to, Balance: balance}), 100); got["0"] < 15 || got["1"] < 15 {
			t.Errorf("%s: %v", balance, got)
		}
	}
}

func TestSticky_KeepsAClientWithItsTarget(t *testing.T) {
	to := named(t, 4)
	cfg := upstream.Config{To: to, Sticky: "lb"}
	p, other := newPool(t, cfg), newPool(t, cfg)
	res, who := ask(t, p, &upstream.Call{Secure: true})
	set := res.Header.Get("Set-Cookie")
	if !strings.HasPrefix(set, "lb=") || !strings.HasSuffix(set, "; Path=/; HttpOnly; SameSite=Lax; Secure") || strings.Contains(set, "127.0.0.1") {
		t.Fatalf("the cookie is %q", set)
	}
	pair, _, _ := strings.Cut(set, ";")
	for range 20 {
		for _, node := range []*upstream.Pool{p, other} { // all nodes of a fleet, and the same after a restart
			res, again := ask(t, node, nil, "Cookie", "a=b", "Cookie", "c=d; "+pair)
			if again != who || res.Header["Set-Cookie"] != nil {
				t.Fatalf("%s, then %s with the cookie %v", who, again, res.Header["Set-Cookie"])
			}
		}
	}
	if res, _ := ask(t, p, nil); strings.Contains(res.Header.Get("Set-Cookie"), "Secure") {
		t.Error("the cookie for a client without TLS is Secure: it would not come back")
	}
}

func TestSticky_IgnoresABadCookie(t *testing.T) {
	p := newPool(t, upstream.Config{To: named(t, 2), Sticky: "lb", StickyKey: []byte("one")})
	for _, bad := range []string{"lb=", "lb", "lb=http://127.0.0.1:1", "lb=" + strings.Repeat("x", 5000), "LB=x; lb=%00", `lb="`} {
		res, _ := ask(t, p, nil, "Cookie", bad)
		if set := res.Header.Get("Set-Cookie"); !strings.HasPrefix(set, "lb=") {
			t.Errorf("%.40q was answered with the cookie %q", bad, set)
		}
	}
}

func TestSticky_KeepsItsClientsAtATargetOfWeightZero(t *testing.T) {
	to := named(t, 2)
	before := newPool(t, upstream.Config{To: to, Sticky: "lb", Balance: "first"})
	res, _ := ask(t, before, nil)
	pair, _, _ := strings.Cut(res.Header.Get("Set-Cookie"), ";")
	leaving := newPool(t, upstream.Config{To: to, Sticky: "lb", Weights: []int{0, 1}})
	if _, who := ask(t, leaving, nil, "Cookie", pair); who != "0" {
		t.Errorf("its client went to %s", who)
	}
	if _, who := ask(t, leaving, nil); who != "1" {
		t.Errorf("a new client went to %s", who)
	}
}

func TestNew_RefusesWhatItCannotDo(t *testing.T) {
	to := []string{"http://a", "http://b"}
	for name, cfg := range map[string]upstream.Config{
		"balance":         {To: to, Balance: "random"},
		"hash of nothing": {To: to, Balance: "hash:header:"},
		"hash of a space": {To: to, Balance: "hash:cookie:a b"},
		"cookie":          {To: to, Sticky: "a;b"},
		"weights":         {To: to, Weights: []int{1}},
		"no weight":       {To: to, Weights: []int{0, 0}},
		"retried POST":    {To: to, Retries: upstream.Retries{Max: 1, On: []string{"502"}, Methods: []string{"POST"}}},
		"retry on 200":    {To: to, Retries: upstream.Retries{Max: 1, On: []string{"200"}}},
	} {
		if _, err := upstream.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
