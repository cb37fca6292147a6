package acmeclient

import (
	"errors"
	"strings"
	"testing"
)

func TestNameRules_RefuseWhatNoCACanIssueFor(t *testing.T) {
	public, private := nameRules{wildcards: true}, nameRules{private: true, wildcards: true}
	long := strings.Repeat("a.", 126) // 252 bytes
	for _, tt := range []struct {
		name            string
		public, private string // what the refusal says; empty: taken
	}{
		{"example.com", "", ""},
		{"www.xn--mnchen-3ya.de", "", ""},
		{"*.example.com", "", ""},
		{"*.a.b.example.com", "", ""},
		{"192.0.2.1", "", ""},
		{"2001:db8::1", "", ""},
		{"github.io", "", ""}, // a private suffix has an owner
		{long + "c", "", ""},

		{"intranet", "single label", ""},
		{"*.localhost", "single label", ""},
		{"app.internal", "reserved", ""},
		{"printer.home.arpa", "reserved", ""},
		{"a_b.example.com", `"_"`, ""},
		{"co.uk", "public suffix", ""},
		{"*.co.uk", "public suffix", ""},
		{"ab--cd.example.com", "reserved (RFC 5890", ""},
		{"example.42", "top-level", ""},
		{"10.0.0.1", "not one of the Internet", ""},
		{"127.0.0.1", "not one of the Internet", ""},
		{"fe80::1", "not one of the Internet", ""},

		{"münchen.de", "A-labels: xn--mnchen-3ya.de", "A-labels: xn--mnchen-3ya.de"},
		{"xn--a-ecp.example.com", "", ""},
		{"xn--99999999999.example.com", "no A-label", "no A-label"},
		{"A.com", "lower case", "lower case"},
		{"a.com.", "trailing dot", "trailing dot"},
		{"a..com", "no DNS name", "no DNS name"},
		{"-a.com", "no DNS name", "no DNS name"},
		{strings.Repeat("a", 64) + ".com", "no DNS name", "no DNS name"},
		{"a.com:443", "no DNS name", "no DNS name"},
		{"", "no DNS name", "no DNS name"},
		{long + "cd", "254 bytes", "254 bytes"},
		{"*.*.example.com", "wildcard", "wildcard"},
		{"www.*.com", "wildcard", "wildcard"},
		{"*", "wildcard", "wildcard"},
		{"2001:db8:0::1", "shortest form", "shortest form"},
		{"::ffff:192.0.2.1", "shortest form", "shortest form"},
		{"fe80::1%eth0", "shortest form", "shortest form"},
		{"*.192.0.2.1", "top-level", ""},
	} {
		for _, rules := range []struct {
			nameRules
			want string
		}{{public, tt.public}, {private, tt.private}} {
			err := rules.check(tt.name)
			if rules.want == "" {
				if err != nil {
					t.Errorf("private %v: %v", rules.private, err)
				}
				continue
			}
			var p *Problem
			if !errors.As(err, &p) || p.Scope() != ScopeName || p.Advice == "" || kind(p.Type) != "rejectedIdentifier" || !strings.Contains(p.Detail, rules.want) {
				t.Errorf("%s, private %v: %v, wanted %q", tt.name, rules.private, err, rules.want)
			}
		}
	}
	if err := (nameRules{}).check("*.example.com"); err == nil || !strings.Contains(err.Error(), "dns-01") {
		t.Errorf("wildcard without dns-01: %v", err)
	}
}

func TestObtain_RefusesAnImpossibleNameBeforeAnyRequest(t *testing.T) {
	c, p, _, _ := setup(t, pebbleOptions{})
	c.cfg.Private = false
	_, err := c.Obtain(t.Context(), newRequest(t, "www.example.test"))
	if problem := problemOf(t, err, ScopeName); problem.Identifier != "www.example.test" || p.count() != 0 {
		t.Errorf("problem is %+v after %d requests", problem, p.count())
	}
}
