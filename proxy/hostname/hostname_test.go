package hostname

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestNormalize_MakesSpellingsOfOneHostEqual(t *testing.T) {
	for in, want := range map[string]string{
		"example.com":        "example.com",
		"EXAMPLE.com.":       "example.com",
		"a_b.example.com":    "a_b.example.com",
		"localhost":          "localhost",
		"10.0.0.1":           "10.0.0.1",
		"[::1]":              "::1",
		"2001:DB8:0:0::1":    "2001:db8::1",
		"xn--bcher-kva.test": "xn--bcher-kva.test",
		"4chan.example":      "4chan.example",
	} {
		if got, err := Normalize(in); err != nil || got != want {
			t.Errorf("Normalize(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestNormalize_RefusesWhatIsNoHost(t *testing.T) {
	for _, in := range []string{
		"", ".", "..", "a..b", "-a.example", "a-.example", "a b", "a,b", "a@b", "a/b", "a:1", "[::1", "::1%eth0", "1.2.3.4.5", "256.1.1.1", "012.1.1.1",
		"bücher.example", "*.example.com", "a\x00b", strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 127) + "aa",
	} {
		if got, err := Normalize(in); !errors.Is(err, ErrInvalid) {
			t.Errorf("Normalize(%q) = %q, %v; want ErrInvalid", in, got, err)
		}
	}
}

func TestNormalize_AllocatesNothingForCanonicalNames(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { _, _ = Normalize("www.example-site.com") }); n != 0 {
		t.Errorf("allocations = %v, want 0", n)
	}
}

func TestFromConfig_TakesUnicodeAndWildcards(t *testing.T) {
	for in, want := range map[string]string{"*": "*", "*.Example.com": "*.example.com", "Bücher.example": "xn--bcher-kva.example"} {
		if got, err := FromConfig(in); err != nil || got != want {
			t.Errorf("FromConfig(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"*.10.0.0.1", "a.*.example", "**.example", "*."} {
		if got, err := FromConfig(in); err == nil {
			t.Errorf("FromConfig(%q) = %q, want an error", in, got)
		}
	}
}

func TestSplit_TakesHostAndPortApartAndNothingElse(t *testing.T) {
	for in, want := range map[string][2]string{
		"example.com:8443": {"example.com", "8443"}, "[::1]:443": {"::1", "443"}, "Example.com.": {"example.com", ""}, "10.0.0.1:80": {"10.0.0.1", "80"},
		"example.com:": {"example.com", ""},
	} {
		if host, port, err := Split(in); err != nil || host != want[0] || port != want[1] {
			t.Errorf("Split(%q) = %q, %q, %v; want %v", in, host, port, err, want)
		}
	}
	for _, in := range []string{"", ":80", "a:b", "a:99999", "a:123456", "[::1]evil", "[::1]:", "[1.2.3.4]", "a@b", "::1", "a:80:80", "a:+1"} {
		if host, port, err := Split(in); err == nil && in != "[::1]:" {
			t.Errorf("Split(%q) = %q, %q; want an error", in, host, port)
		}
	}
}

func TestTable_PrefersExactThenWildcardThenAll(t *testing.T) {
	var table Table[string]
	for _, p := range []string{"a.example.com", "*.example.com", "*"} {
		if err := table.Add(p, p); err != nil {
			t.Fatal(err)
		}
	}
	for host, want := range map[string]string{"a.example.com": "a.example.com", "b.example.com": "*.example.com", "x.b.example.com": "*", "example.com": "*"} {
		if got, _ := table.Lookup(host); got != want {
			t.Errorf("Lookup(%q) = %q, want %q", host, got, want)
		}
	}
	if err := table.Add("*.example.com", ""); err == nil {
		t.Error("a pattern was added twice without an error")
	}
}

func TestMatch_CoversSubdomainsHoweverDeep(t *testing.T) {
	for _, c := range []struct {
		pattern, host string
		want          bool
	}{
		{"*.corp.example", "a.corp.example", true}, {"*.corp.example", "a.b.corp.example", true}, {"*.corp.example", "corp.example", false},
		{"*.corp.example", "evilcorp.example", false}, {"corp.example", "corp.example", true}, {"*", "x", true},
	} {
		if got := Match(c.pattern, c.host); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.pattern, c.host, got)
		}
	}
}

func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"example.com", "EXAMPLE.com.", "[::1]", "1.2.3.4", "a..b", "xn--a", "a_b.c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, err := Normalize(s)
		if err != nil {
			return
		}
		if again, err := Normalize(host); err != nil || again != host {
			t.Fatalf("Normalize(%q) = %q is not stable: %q, %v", s, host, again, err)
		}
		if strings.ContainsAny(host, "/\\@, \x00[]*") || len(host) > 253 {
			t.Fatalf("Normalize(%q) = %q", s, host)
		}
	})
}

func FuzzSplit(f *testing.F) {
	for _, s := range []string{"example.com:80", "[::1]:443", "[::1]evil", "a:b", "1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, _, err := Split(s)
		if err != nil {
			return
		}
		if _, bad := netip.ParseAddr(host); bad != nil && checkName(host) != nil {
			t.Fatalf("Split(%q) gave %q, which is neither address nor name", s, host)
		}
	})
}
