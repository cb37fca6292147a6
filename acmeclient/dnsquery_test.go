package acmeclient

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

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
