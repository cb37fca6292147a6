package proxy

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"gatelodge/proxy/hostname"
)

type nowhere struct{}

func (nowhere) RoundTrip(*http.Request) (*http.Response, error) { return nil, http.ErrServerClosed }

// testExchange is a request on its way to the site a.test.
func testExchange(t testing.TB) *exchange {
	t.Helper()
	set := Settings{Sites: []Site{{Name: "a.test", Hosts: []string{"a.test", "*.a.test"}, Upstream: nowhere{}}}}
	table, err := NewTable(set.Sites)
	if err != nil {
		t.Fatal(err)
	}
	r := &http.Request{
		Method: http.MethodGet, Host: "a.test", RequestURI: "/path?q=1", URL: &url.URL{Path: "/path", RawQuery: "q=1"}, ProtoMajor: 2,
		Header: http.Header{"User-Agent": {"x"}, "Accept": {"*/*"}, "Cookie": {"a=b"}, "Accept-Language": {"en"}},
	}
	return &exchange{
		r: r.WithContext(t.Context()), conn: &conn{peer: netip.MustParseAddr("192.0.2.1"), version: 0x304, site: "a.test"}, srv: &Server{},
		state: &state{Settings: set, table: table}, site: &set.Sites[0], id: "id",
	}
}

// The budgets are what the steps cost today, and gate: a request crosses each of them.
func TestSteps_StayWithinTheirAllocations(t *testing.T) {
	x := testExchange(t)
	for _, c := range []struct {
		name string
		want float64
		step func()
	}{
		{"check", 0, func() {
			if f := x.check(); f != nil {
				t.Fatal(f)
			}
		}},
		{"find the site", 0, func() { _, _ = x.state.table.Site("a.test") }},
		{"identify", 1, x.identify},
		{"clean the header", 0, func() { cleanRequestHeader(x.r.Header, false) }},
		{"set the forwarded fields", 2, func() { x.setForwarded(x.r.Header) }}, // the values, and the address as text
		{"record without a log", 0, func() { x.srv.cfg.Metrics = noMetrics{}; x.record() }},
	} {
		if n := testing.AllocsPerRun(200, c.step); n > c.want {
			t.Errorf("%s: %v allocations, budget %v", c.name, n, c.want)
		}
	}
	in := &informer{x: x}
	if n := testing.AllocsPerRun(200, func() { _ = x.outgoing(in) }); n > 8 {
		t.Errorf("outgoing: %v allocations, budget 8", n)
	}
}

func TestParseForwardedFor_ReadsFromTheRightUntilNonsense(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "",
		"192.0.2.1":                       "192.0.2.1",
		"192.0.2.1, 192.0.2.2":            "192.0.2.1 192.0.2.2",
		"192.0.2.1,192.0.2.2\n192.0.2.3":  "192.0.2.1 192.0.2.2 192.0.2.3",
		"x, 192.0.2.2":                    "192.0.2.2",
		"192.0.2.1, x":                    "",
		"192.0.2.1,,192.0.2.2":            "192.0.2.2",
		"192.0.2.1:80, [2001:db8::1]:443": "192.0.2.1 2001:db8::1",
		"2001:db8::1, [2001:db8::2]":      "2001:db8::1 2001:db8::2",
		"::ffff:192.0.2.1":                "192.0.2.1",
		"fe80::1%eth0":                    "",
		"unknown, 192.0.2.1":              "192.0.2.1",
		strings.Repeat("192.0.2.1, ", 40) + "192.0.2.2": strings.Repeat("192.0.2.1 ", 31) + "192.0.2.2",
	} {
		var fields []string
		if in != "" {
			fields = strings.Split(in, "\n")
		}
		var got []string
		for _, a := range parseForwardedFor(fields) {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q = %q, want %q", in, got, want)
		}
	}
}

func FuzzForwardedFor(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "192.0.2.1, [2001:db8::1]:80", "x,,\t192.0.2.1:1", "::ffff:1.2.3.4%x", strings.Repeat("1.1.1.1,", 50)} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		addrs := parseForwardedFor([]string{one, two})
		if len(addrs) > maxForwarded {
			t.Fatalf("%d addresses", len(addrs))
		}
		var text []string
		for _, a := range addrs {
			if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
				t.Fatalf("%q gave %v", one, a)
			}
			text = append(text, a.String())
		}
		// What we write is read by the next proxy as what we meant.
		if again := parseForwardedFor([]string{strings.Join(text, ", ")}); len(again) != len(addrs) {
			t.Fatalf("%q, %q: %v is read again as %v", one, two, addrs, again)
		}
	})
}

// FuzzCheck sends Host and target through the checks: what passes has a canonical host and a target that is forwarded byte by byte.
func FuzzCheck(f *testing.F) {
	for _, s := range [][2]string{{"a.test", "/"}, {"[::1]:80", "/a%2Fb?x"}, {"A.test.", "//x/y"}, {"a@b", "*"}, {"a.test", "http://a.test/x"}, {"a.test", "/#"}, {"a", "/a|b%2f"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, host, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		x := &exchange{r: &http.Request{Method: http.MethodGet, Host: host, RequestURI: target, URL: u, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}}}
		if x.check() != nil {
			return
		}
		if again, err := hostname.Normalize(x.host); err != nil || again != x.host {
			t.Fatalf("host %q became %q", host, x.host)
		}
		path := pathOf(target)
		want := path
		if u.RawQuery != "" || u.ForceQuery {
			want += "?" + u.RawQuery
		}
		if got := outgoingURL(x.r, x.outgoingPath()).RequestURI(); got != want {
			t.Fatalf("target %q goes out as %q, want %q", target, got, want)
		}
	})
}

func TestWantedUpgrade_ForwardsOneProtocolThatIsNotHTTP2(t *testing.T) {
	for _, c := range []struct{ connection, upgrade, want string }{
		{"Upgrade", "websocket", "websocket"}, {"keep-alive, upgrade", "SPDY/3.1", "SPDY/3.1"}, {"", "websocket", ""}, {"upgrade", "h2c", ""}, {"upgrade", "H2", ""},
		{"upgrade", "websocket, h2c", ""}, {"upgrade", "", ""}, {"upgrades", "websocket", ""},
	} {
		r := &http.Request{ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Connection": {c.connection}, "Upgrade": {c.upgrade}}}
		if got := wantedUpgrade(r); got != c.want {
			t.Errorf("Connection: %s, Upgrade: %s = %q, want %q", c.connection, c.upgrade, got, c.want)
		}
	}
}
