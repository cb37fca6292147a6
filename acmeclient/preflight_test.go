package acmeclient

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
	"go.uber.org/zap/zaptest"
)

// serveAt runs a handler on another loopback address at the port where the CA asks.
func serveAt(t *testing.T, n *node, ip string, h http.Handler) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, fmt.Sprint(n.httpPort())))
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ErrorLog: quietLog()}}
	srv.Start()
	t.Cleanup(srv.Close)
}

// TestLook_SaysWhereANameLeads: the fleet's other node is at 127.0.7.2, what has nothing to do with us at 127.0.7.3 to 127.0.7.6, and nobody at 127.0.7.9.
func TestLook_SaysWhereANameLeads(t *testing.T) {
	w := newDNSWorld(t, "example.test.")
	c, _, n, store := setup(t, pebbleOptions{}, func(cfg *Config) { cfg.Preflight, cfg.Resolvers = PreflightAdvise, w.servers[:] })
	c.cfg.HTTPPort = n.httpPort()
	serveAt(t, n, "127.0.7.2", NewResponder(store, zaptest.NewLogger(t)).HTTP(http.NotFoundHandler()))
	serveAt(t, n, "127.0.7.3", http.NotFoundHandler())
	serveAt(t, n, "127.0.7.4", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(strings.Repeat("welcome ", 1<<17)))
	}))
	serveAt(t, n, "127.0.7.5", http.RedirectHandler("http://elsewhere.example.test/", http.StatusFound))
	serveAt(t, n, "127.0.7.6", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+r.Host+r.URL.Path+"x", http.StatusFound) // in a circle
	}))
	for name, records := range map[string][]string{
		"ours": {"A 127.0.0.1"}, "fleet": {"A 127.0.7.2"}, "other": {"A 127.0.7.3"}, "welcome": {"A 127.0.7.4"}, "redirect": {"A 127.0.7.5"}, "circle": {"A 127.0.7.6"},
		"nobody": {"A 127.0.7.9"}, "both": {"A 127.0.0.1", "A 127.0.7.9"}, "cloud": {"A 169.254.169.254"}, "alias": {"CNAME ours.example.test."},
		"dangling": {"CNAME gone.example.test."}, "hollow": {"CNAME text.example.test."}, "text": {`TXT "x"`}, "broken": {"A 127.0.0.1"},
	} {
		for _, r := range records {
			w.add(t, name+".example.test. 60 IN "+r)
		}
	}
	w.set(func(w *dnsWorld) {
		w.refuse = func(m *dns.Msg) bool { return strings.HasPrefix(m.Question[0].Name, "broken.") }
	})
	for _, tt := range []struct {
		name          string
		ours, refused bool
		saw           string // by the first finding
	}{
		{"ours", true, false, ""},
		{"alias", true, false, ""},
		{"fleet", true, false, ""},
		{"both", true, false, "it leads to 127.0.7.9, where nobody answers: connection refused"},
		{"other", false, true, "it leads to 127.0.7.3, where something else answered the question for our challenge (status 404)"},
		{"welcome", false, true, "it leads to 127.0.7.4, where something else answered the question for our challenge (status 200)"},
		{"redirect", false, false, "it leads to 127.0.7.5, which redirects to http://elsewhere.example.test/, where only a CA follows"},
		{"circle", false, false, "it leads to 127.0.7.6, which redirects to http://circle.example.test/"},
		{"nobody", false, true, "it leads to 127.0.7.9, where nobody answers: connection refused"},
		{"cloud", false, true, "it leads to 169.254.169.254, which no CA"},
		{"missing", false, true, "it does not exist in the DNS"},
		{"text", false, true, "it has no addresses"},
		{"dangling", false, true, "its CNAME leads to gone.example.test, which does not exist"},
		{"hollow", false, true, "its CNAME leads to text.example.test, which has no addresses"},
		{"broken", false, false, "its addresses cannot be seen: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, err := c.Look(t.Context(), tt.name+".example.test")
			if err != nil || o.Answers != tt.ours {
				t.Errorf("outlook is %+v, error %v", o, err)
			}
			saw := ""
			if len(o.Findings) > 0 {
				saw = o.Findings[0].Saw
			}
			if (saw == "") != (tt.saw == "") || !strings.HasPrefix(saw, tt.saw) {
				t.Errorf("saw %q, wanted %q", saw, tt.saw)
			}
			if refused := slices.ContainsFunc(o.Findings, func(f Finding) bool { return f.Refuses }); refused != tt.refused {
				t.Errorf("findings are %+v", o.Findings)
			}
			for _, f := range o.Findings {
				if f.Kind == "" || f.Advice == "" || !strings.Contains(o.String(), f.Saw) {
					t.Errorf("finding is %+v, in all %q", f, o)
				}
			}
		})
	}
	if o, err := c.Look(t.Context(), "127.0.0.1"); err != nil || !o.Answers || len(o.Findings) > 0 {
		t.Errorf("an address: %+v, %v", o, err)
	}
	if left, err := store.List(t.Context(), challengePrefix, "", 0); err != nil || len(left) > 0 {
		t.Errorf("answers are left behind: %v, %v", left, err)
	}
	want := "it leads to 127.0.0.1; its challenge URL is answered by us; its CAA records allow the CA"
	if o, _ := c.Look(t.Context(), "ours.example.test"); o.String() != want {
		t.Errorf("says %q, wanted %q", o, want)
	}
}

// TestPreflight_RefusesBeforeTheCAHearsOfIt: pebble itself resolves each name to this machine.
func TestPreflight_RefusesBeforeTheCAHearsOfIt(t *testing.T) {
	w := newDNSWorld(t, "example.test.")
	w.add(t, "ours.example.test. 60 IN A 127.0.0.1", "nobody.example.test. 60 IN A 127.0.7.9")
	require, p, n, store := setup(t, pebbleOptions{}, func(cfg *Config) { cfg.Preflight, cfg.Resolvers = PreflightRequire, w.servers[:] })
	require.cfg.HTTPPort = n.httpPort()
	for name, want := range map[string]string{"missing.example.test": "dns", "nobody.example.test": "connection"} {
		problem := problemOf(t, second(require.Obtain(t.Context(), newRequest(t, name, "ours.example.test"))), ScopeName)
		if kind(problem.Type) != want || problem.Identifier != name || !problem.Own() || problem.Detail == "" || problem.Advice == "" {
			t.Errorf("%s: problem is %+v", name, problem)
		}
	}
	if orders := p.count("POST " + pathOrder); orders != 0 {
		t.Errorf("%d orders", orders)
	}
	obtain(t, require, newRequest(t, "ours.example.test"))

	t.Run("but not for a renewal, since a certificate must not end for what we see wrongly", func(t *testing.T) {
		r := newRequest(t, "missing.example.test")
		r.Renewal = true
		obtain(t, require, r)
	})
	t.Run("and not because our resolver is down", func(t *testing.T) {
		deaf := newClient(t, p, n, store, func(cfg *Config) {
			cfg.Preflight, cfg.Resolvers, cfg.HTTPPort = PreflightRequire, []string{freePort(t)}, n.httpPort()
		})
		obtain(t, deaf, newRequest(t, "missing.example.test"))
	})
	t.Run("nor where DNS proves the name", func(t *testing.T) {
		o := require.look(t.Context(), CAAQuestion{Name: "missing.example.test", Challenges: []string{ChallengeHTTP01, ChallengeDNS01}}, false)
		if len(o.Findings) != 1 || o.Findings[0].Refuses {
			t.Errorf("findings are %+v", o.Findings)
		}
	})
	t.Run("what only advises refuses nothing", func(t *testing.T) {
		advise := newClient(t, p, n, store, func(cfg *Config) { cfg.Preflight, cfg.Resolvers = PreflightAdvise, w.servers[:] })
		asked := func() (n int) {
			w.set(func(w *dnsWorld) { n = len(w.asked) })
			return n
		}
		before := asked()
		obtain(t, advise, newRequest(t, "missing.example.test"))
		if now := asked(); now != before {
			t.Errorf("%d questions to the DNS for an order that the CA takes", now-before)
		}
	})
}

// TestLook_ConnectsToNothingPrivateForAPublicCA: whoever owns a name chooses its addresses.
func TestLook_ConnectsToNothingPrivateForAPublicCA(t *testing.T) {
	w := newDNSWorld(t, "example.test.")
	c, _, n, _ := setup(t, pebbleOptions{}, func(cfg *Config) { cfg.Resolvers = w.servers[:] })
	c.cfg.Private = false
	var hits atomic.Int32
	serveAt(t, n, "127.0.7.2", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	c.cfg.HTTPPort = n.httpPort()
	w.add(t, "inside.example.test. 60 IN A 127.0.7.2", "inside.example.test. 60 IN AAAA ::ffff:127.0.7.2")
	o, err := c.Look(t.Context(), "inside.example.test")
	if err != nil || len(o.Findings) != 1 || !o.Findings[0].Refuses || o.Findings[0].Kind != "dns" || hits.Load() != 0 {
		t.Errorf("outlook is %+v, error %v, after %d requests", o, err, hits.Load())
	}
}

func TestConnectable_KnowsThePublicInternet(t *testing.T) {
	for addr, want := range map[string][2]bool{ // by a public CA, by a private one
		"8.8.8.8": {true, true}, "2606:4700::1111": {true, true},
		"10.0.0.1": {false, true}, "127.0.0.1": {false, true}, "::1": {false, true}, "fd00::1": {false, true}, "100.64.0.1": {false, true},
		"169.254.169.254": {false, false}, "fe80::1": {false, false}, "224.0.0.1": {false, false}, "0.0.0.0": {false, false}, "::": {false, false},
		"255.255.255.255": {false, false}, "203.0.113.7": {false, true}, "2001:db8::1": {false, true}, "64:ff9b::7f00:1": {false, true}, "2002:7f00:1::": {false, true},
	} {
		a := netip.MustParseAddr(addr)
		if got := [2]bool{connectable(a, false), connectable(a, true)}; got != want {
			t.Errorf("%s: %v, wanted %v", addr, got, want)
		}
	}
}

func second[T any](_ T, err error) error { return err }
