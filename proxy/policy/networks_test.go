package policy_test

import (
	"math/rand/v2"
	"net/http"
	"net/netip"
	"testing"

	"gatelodge/proxy/policy"
)

func TestNetworks_DenyGoesBeforeAllow(t *testing.T) {
	n, err := policy.NewNetworks(policy.NetworksConfig{
		Allow: prefixes("10.0.0.0/8", "2001:db8::/32"), Deny: prefixes("10.1.0.0/16", "2001:db8:bad::/48"), Client: clientOf,
	})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, n, ok)
	for client, want := range map[string]int{
		"10.0.0.1": 200, "10.255.255.255": 200, "10.1.2.3": 403, "11.0.0.0": 403, "9.255.255.255": 403,
		"2001:db8::1": 200, "2001:db8:bad::1": 403, "2001:db9::": 403, "::ffff:10.0.0.1": 200, "fe80::1%eth0": 403, "": 403,
	} {
		if a := get(t, s, clientField, client); a.StatusCode != want {
			t.Errorf("client %q got %d, want %d", client, a.StatusCode, want)
		}
	}
}

func TestNetworks_DenyAloneLetsOthersThrough(t *testing.T) {
	n, err := policy.NewNetworks(policy.NetworksConfig{Deny: prefixes("192.0.2.0/25"), Client: clientOf})
	if err != nil {
		t.Fatal(err)
	}
	h := n.Wrap(http.HandlerFunc(ok))
	for client, want := range map[string]int{"192.0.2.127": 403, "192.0.2.128": 200, "2001:db8::1": 200, "": 200} {
		if got := ask(h, client); got != want {
			t.Errorf("client %q got %d, want %d", client, got, want)
		}
	}
}

func TestNetworks_RefusesWhatIsNone(t *testing.T) {
	for name, cfg := range map[string]policy.NetworksConfig{
		"no network":                     {Allow: []netip.Prefix{{}}, Client: clientOf},
		"half of it IPv4, half IPv6":     {Deny: prefixes("::ffff:0:0/90"), Client: clientOf},
		"nobody to look at":              {Allow: prefixes("10.0.0.0/8")},
		"no network in the second place": {Allow: prefixes("10.0.0.0/8"), Deny: []netip.Prefix{{}}, Client: clientOf},
	} {
		if _, err := policy.NewNetworks(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// The list is searched as sorted ranges; asking every network must come to the same.
func TestNetworks_DecidesAsEveryNetworkAskedInTurn(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func() netip.Addr {
		if rng.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, byte(rng.IntN(4)), byte(rng.IntN(256)), byte(rng.IntN(256))})
		}
		return netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 7: byte(rng.IntN(4)), 15: byte(rng.IntN(256))})
	}
	for range 200 {
		var list []netip.Prefix
		for range rng.IntN(20) {
			a := random()
			p, err := a.Prefix(a.BitLen() - rng.IntN(24))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, p)
		}
		var who netip.Addr
		n, err := policy.NewNetworks(policy.NetworksConfig{Deny: list, Client: func(*http.Request) netip.Addr { return who }})
		if err != nil {
			t.Fatal(err)
		}
		h := n.Wrap(http.HandlerFunc(ok))
		for range 50 {
			who = random()
			want := 200
			for _, p := range list {
				if p.Contains(who) {
					want = 403
				}
			}
			if got := ask(h, ""); got != want {
				t.Fatalf("%v in %v: %d, want %d", who, list, got, want)
			}
		}
	}
}

func BenchmarkNetworks_TenThousand(b *testing.B) {
	var list []netip.Prefix
	for i := range 10_000 {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(1 + i/250), byte(i % 250), 0, 0}), 24))
	}
	who := addr("192.0.2.1")
	n, err := policy.NewNetworks(policy.NetworksConfig{Deny: list, Client: func(*http.Request) netip.Addr { return who }})
	if err != nil {
		b.Fatal(err)
	}
	h := n.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(nil, nil)
	}
}
