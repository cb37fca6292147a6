package acmeclient

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestResolvers_AskWhereAnAnswerIsToBeHad(t *testing.T) {
	w := newDNSWorld(t, "big.test.")
	for i := range 40 { // too much for a datagram
		w.add(t, fmt.Sprintf("big.test. 60 IN TXT %q", strings.Repeat("v", 40+i)))
	}
	r := resolvers{freePort(t), w.servers[0], w.servers[1]}
	m, err := r.ask(t.Context(), "big.test.", dns.TypeTXT)
	if err != nil || m.Truncated || !hasTXT(m, "big.test.", strings.Repeat("v", 79)) {
		t.Errorf("%v, %v", m, err)
	}
	for addr, want := range map[string]string{"127.0.0.2": strings.TrimPrefix(w.servers[1], "127.0.0.2:"), "192.0.2.1": "53"} {
		if got := r.port(addr); got != want {
			t.Errorf("%s is asked at port %s, want %s", addr, got, want)
		}
	}
	w.set(func(w *dnsWorld) { w.refuse = func(*dns.Msg) bool { return true } })
	if _, err := r.ask(t.Context(), "big.test.", dns.TypeTXT); err == nil || strings.Count(err.Error(), "SERVFAIL") != 2 || !strings.Contains(err.Error(), r[0]) {
		t.Errorf("%v", err)
	}
	w.set(func(w *dnsWorld) {
		w.refuse, w.mangle = nil, func(m *dns.Msg) { m.Question[0].Name = "other.test." }
	})
	if _, err := exchangeDNS(t.Context(), w.servers[0], "big.test.", dns.TypeSOA, true); err == nil || !strings.Contains(err.Error(), "another question") {
		t.Errorf("%v", err)
	}
}

func FuzzFollowCNAMEs(f *testing.F) {
	f.Add("a.test. b.test.\nb.test. c.test.")
	f.Add("a.test. a.test.")
	f.Add("a.test. b.test.\nb.test. a.test.")
	f.Add("a.test. 1.\n1. 2.\n2. 3.\n3. 4.\n4. 5.\n5. 6.\n6. 7.\n7. 8.\n8. 9.")
	f.Add("a.test. error")
	f.Fuzz(func(t *testing.T, table string) {
		leads := map[string]string{}
		for line := range strings.Lines(table) {
			if from, to, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok {
				leads[from] = to
			}
		}
		failed, asked := errors.New("no answer"), 0
		chain, err := followCNAMEs("a.test.", func(name string) (string, error) {
			if asked++; leads[name] == "error" {
				return "", failed
			}
			return leads[name], nil
		})
		if asked > maxCNAMEs+1 {
			t.Fatalf("asked %d times", asked)
		}
		if err != nil {
			if !errors.Is(err, errChain) && !errors.Is(err, failed) {
				t.Fatalf("%v", err)
			}
			return
		}
		if chain[0] != "a.test." || leads[chain[len(chain)-1]] != "" || len(slices.Compact(slices.Sorted(slices.Values(chain)))) != len(chain) {
			t.Fatalf("chain %q of %q", chain, table)
		}
	})
}

// FuzzDNSAnswer reads answers as they come from the network.
func FuzzDNSAnswer(f *testing.F) {
	m := new(dns.Msg).SetQuestion("a.example.test.", dns.TypeTXT)
	for _, lines := range [][]string{
		{"a.example.test. 60 IN CNAME B.example.test.", `b.example.test. 60 IN TXT "x" "y"`},
		{`A.example.test. 60 IN TXT "xy"`},
		{"example.test. 60 IN SOA ns.test. h.test. 1 2 3 4 5"},
		{`a.example.test. 60 IN TXT "\000\255"`},
	} {
		m.Answer = nil
		for _, line := range lines {
			rr, err := dns.NewRR(line)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		m := new(dns.Msg)
		if m.Unpack(packed) != nil {
			return
		}
		const fqdn = "a.example.test."
		if c := cnameOf(m, fqdn); c != "" && (c != dns.CanonicalName(c) || !strings.HasSuffix(c, ".")) {
			t.Errorf("CNAME %q is not canonical", c)
		}
		if apex := apexOf(m, fqdn); apex != "" && !strings.HasSuffix("."+fqdn, "."+strings.TrimPrefix(apex, ".")) {
			t.Errorf("zone %q of %s", apex, fqdn)
		}
		if hasTXT(m, fqdn, "xy") && hasTXT(m, "other.test.", "xy") && len(m.Answer) < 2 {
			t.Error("one record of two names")
		}
	})
}
