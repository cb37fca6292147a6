package certs

import (
	"context"
	"slices"
	"strings"
	"testing"
)

// named is an issuer that is only a name.
type named string

func (n named) Name() string                                   { return string(n) }
func (named) Issue(context.Context, *Request) (*Issued, error) { panic("not asked in this test") }

func TestChooseCAs_FollowsTheOrderOfTheConfiguration(t *testing.T) {
	cas := []CA{
		{Issuer: named("letsencrypt")},
		{Issuer: named("corp"), Names: []string{"*.corp.example"}},
		{Issuer: named("internal"), Names: []string{"localhost", "*.internal"}, Internal: true},
		{Issuer: named("corp2"), Names: []string{"*.corp.example", "*.dev.internal"}},
		{Issuer: named("zerossl")},
	}
	for _, c := range []struct {
		why, name, want string
		only            []string
	}{
		{"a public name goes to the general ones in order", "www.example.com", "letsencrypt zerossl", nil},
		{"a name of the in-house CAs never goes to a public one", "a.corp.example", "corp corp2", nil},
		{"however deep", "a.b.corp.example", "corp corp2", nil},
		{"its wildcard too", "*.corp.example", "corp corp2", nil},
		{"the internal CA has its names to itself", "a.internal", "internal", nil},
		{"but a [[ca]] with names goes before it", "a.dev.internal", "corp2", nil},
		{"private addresses are the internal CA's", "192.168.1.1", "internal", nil},
		{"loopback too", "::1", "internal", nil},
		{"public addresses are not", "192.0.2.1", "letsencrypt zerossl", nil},
		{"a site's own list gives the order", "www.example.com", "zerossl letsencrypt", []string{"zerossl", "letsencrypt"}},
		{"what is on it still serves only its names", "www.example.com", "", []string{"corp", "internal"}},
		{"a CA with names serves any name they match", "a.dev.internal", "internal", []string{"internal"}},
		{"an unknown CA serves nothing", "www.example.com", "", []string{"gone"}},
	} {
		t.Run(c.why, func(t *testing.T) {
			var got []string
			for _, ca := range ChooseCAs(cas, c.only, c.name) {
				got = append(got, ca.Issuer.Name())
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s goes to %v, want %s", c.name, got, c.want)
			}
		})
	}
}

func TestSane_Table(t *testing.T) {
	for _, c := range []struct {
		name             string
		public, internal bool
	}{
		{"example.com", true, true},
		{"a.b.c.d.example.com", true, true},
		{"xn--bcher-kva.example", true, true},
		{"localhost", false, true},
		{"192.0.2.1", false, true},
		{"2001:db8::1", false, true},
		{"_dmarc.example.com", false, false},
		{"www.www.example.com", false, false},
		{"www.example.com", true, true},
		{"a.a.com", true, true},
		{"a.b.b.com", false, false},
		{"www.mail.ftp.com", false, false},
		{"www.mail.example.com", true, true},
		{"mail.www.ftp.shop.example.com", false, false},
	} {
		if got := sane(c.name, false); got != c.public {
			t.Errorf("sane(%q) for a public CA = %v", c.name, got)
		}
		if got := sane(c.name, true); got != c.internal {
			t.Errorf("sane(%q) for the internal CA = %v", c.name, got)
		}
	}
}

func TestObjects_NamesHaveAPlaceOfTheirOwn(t *testing.T) {
	for name, want := range map[string]string{
		"example.com": "certs/example.com", "*.example.com": "certs/_.example.com", "2001:db8::1": "certs/2001:db8::1",
	} {
		if got := certObject(name); got != want {
			t.Errorf("%s lies at %s", name, got)
		}
	}
	if slices.Contains([]string{certObject("_.example.com")}, certObject("*.example.com")) && sane("_.example.com", true) {
		t.Error("a stranger's name could be taken for a wildcard")
	}
}
