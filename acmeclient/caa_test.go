package acmeclient

import (
	"errors"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const ourAccount = "https://ca.test/acct/1"

// question asks for a name at the CA "ca.test", which may use http-01 and tls-alpn-01.
func question(name string) CAAQuestion {
	return CAAQuestion{Name: name, Identities: []string{"ca.test", "ca.example"}, Account: ourAccount, Challenges: []string{ChallengeTLSALPN01, ChallengeHTTP01}}
}

func TestCAARecords_LetOnlyTheNamedCAIssue(t *testing.T) {
	for _, tt := range []struct {
		name     string
		set      caaRecords
		plain    string // why a plain name is refused; empty: it is not
		wildcard string
	}{
		{"our CA", caaRecords{{tag: "issue", value: "ca.test"}}, "", ""},
		{"our CA's other name, in capitals, with space", caaRecords{{tag: "issue", value: "  CA.Example \t"}}, "", ""},
		{"another CA", caaRecords{{tag: "issue", value: "other.test"}}, otherCA, otherCA},
		{"another CA beside ours", caaRecords{{tag: "issue", value: "other.test"}, {tag: "issue", value: "ca.test"}}, "", ""},
		{"nobody", caaRecords{{tag: "issue", value: ";"}}, otherCA, otherCA},
		{"nobody, by nothing", caaRecords{{tag: "issue", value: ""}}, otherCA, otherCA},
		{"malformed counts as nobody", caaRecords{{tag: "issue", value: "ca.test; accounturi"}}, otherCA, otherCA},
		{"malformed domain", caaRecords{{tag: "issue", value: "ca..test"}}, otherCA, otherCA},
		{"no wildcards", caaRecords{{tag: "issue", value: "ca.test"}, {tag: "issuewild", value: ";"}}, "", otherCA},
		{"wildcards only", caaRecords{{tag: "issue", value: ";"}, {tag: "issuewild", value: "ca.test"}}, otherCA, ""},
		{"wildcards of another CA do not concern plain names", caaRecords{{tag: "issuewild", value: "other.test"}}, "", otherCA},
		{"reports only", caaRecords{{tag: "iodef", value: "mailto:caa@example.com"}}, "", ""},
		{"mail only", caaRecords{{critical: true, tag: "issuemail", value: "other.test"}}, "", ""},
		{"something unknown", caaRecords{{tag: "future", value: "x"}, {tag: "issue", value: "ca.test"}}, "", ""},
		{"something unknown and critical", caaRecords{{critical: true, tag: "future", value: "x"}, {tag: "issue", value: "ca.test"}}, "future", "future"},
		{"our account", caaRecords{{tag: "issue", value: "ca.test; accounturi=" + ourAccount}}, "", ""},
		{"another account", caaRecords{{tag: "issue", value: "ca.test; accounturi=https://ca.test/acct/2"}}, "accounturi", "accounturi"},
		{"another account at one CA, ours at the other", caaRecords{{tag: "issue", value: "other.test"}, {tag: "issue", value: "ca.test; accounturi=https://ca.test/acct/2"}}, "accounturi", "accounturi"},
		{"two accounts in one record", caaRecords{{tag: "issue", value: "ca.test; accounturi=" + ourAccount + "; accounturi=" + ourAccount}}, "accounturi", "accounturi"},
		{"two accounts in two records", caaRecords{{tag: "issue", value: "ca.test; accounturi=https://ca.test/acct/2"}, {tag: "issue", value: "ca.test;accounturi=" + ourAccount}}, "", ""},
		{"a method of ours", caaRecords{{tag: "issue", value: "ca.test; validationmethods=dns-01,http-01"}}, "", ""},
		{"another method", caaRecords{{tag: "issue", value: "ca.test; validationmethods=dns-01"}}, "validationmethods", "validationmethods"},
		{"methods twice", caaRecords{{tag: "issue", value: "ca.test; validationmethods=http-01; validationmethods=http-01"}}, "validationmethods", "validationmethods"},
		{"an unknown parameter", caaRecords{{tag: "issue", value: "ca.test; policy = ev ; x-1=y"}}, "", ""},
		{"account and method", caaRecords{{tag: "issue", value: "ca.test;accounturi=" + ourAccount + ";validationmethods=tls-alpn-01"}}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for wildcard, want := range map[bool]string{false: tt.plain, true: tt.wildcard} {
				got := tt.set.refuses(question("www.example.com"), wildcard)
				if (got == "") != (want == "") || !strings.Contains(got, want) {
					t.Errorf("wildcard %v: %q, wanted %q", wildcard, got, want)
				}
			}
		})
	}
}

func TestCheckCAA_ClimbsToTheNextRecords(t *testing.T) {
	w := newDNSWorld(t, "example.test.", "closed.test.")
	w.add(t,
		`example.test. 60 IN CAA 0 issue "ca.test"`,
		`closed.example.test. 60 IN CAA 0 issue ";"`,
		`wild.example.test. 60 IN CAA 0 issuewild "other.test"`,
		`closed.test. 60 IN CAA 0 issue "other.test"`,
		`www.example.test. 60 IN A 127.0.0.1`,
		`alias.example.test. 60 IN CNAME www.closed.test.`,     // has no records itself: the climb goes on from the alias, not from its target
		`pinned.example.test. 60 IN CNAME pinned.closed.test.`, // the target has
		`pinned.closed.test. 60 IN CAA 0 issue ";"`,
	)
	for _, tt := range []struct {
		name, at string // empty: allowed
	}{
		{"example.test", ""},
		{"www.example.test", ""},
		{"a.b.c.example.test", ""},
		{"*.example.test", ""},
		{"closed.example.test", "closed.example.test"},
		{"www.closed.example.test", "closed.example.test"},
		{"wild.example.test", ""},
		{"*.wild.example.test", "wild.example.test"},
		{"www.closed.test", "closed.test"},
		{"alias.example.test", ""},
		{"pinned.example.test", "pinned.example.test"},
		{"no.records.at.all.test", ""},
		{"192.0.2.1", ""},
	} {
		err := CheckCAA(t.Context(), w.servers[:], question(tt.name))
		var refused *CAAError
		if tt.at == "" && err != nil || tt.at != "" && (!errors.As(err, &refused) || refused.At != tt.at || refused.Name != tt.name || len(refused.Records) == 0) {
			t.Errorf("%s: %v, wanted records at %q", tt.name, err, tt.at)
		}
	}
}

func TestCheckCAA_CannotTellWhatTheDNSDoesNotAnswer(t *testing.T) {
	w := newDNSWorld(t, "example.test.")
	w.add(t, `example.test. 60 IN CAA 0 issue ";"`)
	t.Run("SERVFAIL", func(t *testing.T) {
		w.set(func(w *dnsWorld) {
			w.refuse = func(m *dns.Msg) bool { return strings.HasPrefix(m.Question[0].Name, "www.") }
		})
		if err := CheckCAA(t.Context(), w.servers[:], question("www.example.test")); !errors.Is(err, ErrCAAUnknown) {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("nobody is there", func(t *testing.T) {
		if err := CheckCAA(t.Context(), []string{freePort(t)}, question("www.example.test")); !errors.Is(err, ErrCAAUnknown) {
			t.Errorf("error is %v", err)
		}
	})
	t.Run("one of two is there", func(t *testing.T) {
		w.set(func(w *dnsWorld) { w.refuse = nil })
		var refused *CAAError
		if err := CheckCAA(t.Context(), []string{freePort(t), w.servers[0]}, question("www.example.test")); !errors.As(err, &refused) {
			t.Errorf("error is %v", err)
		}
	})
}

// TestObtain_LooksAtCAARecordsFirst: pebble calls itself pebble.letsencrypt.org, and does not look at CAA records.
func TestObtain_LooksAtCAARecordsFirst(t *testing.T) {
	w := newDNSWorld(t, "example.test.")
	w.add(t,
		`open.example.test. 60 IN CAA 0 issue "pebble.letsencrypt.org"`,
		`closed.example.test. 60 IN CAA 0 issue "other.test"`,
		`moved.example.test. 60 IN CAA 0 issue "pebble.letsencrypt.org; accounturi=https://ca.test/acct/1"`,
		`dns.example.test. 60 IN CAA 0 issue "pebble.letsencrypt.org; validationmethods=dns-01"`,
	)
	for _, name := range []string{"open", "closed", "moved", "dns", "broken", "www.open", "plain"} {
		w.add(t, name+`.example.test. 60 IN A 127.0.0.1`)
	}
	w.set(func(w *dnsWorld) {
		w.refuse = func(m *dns.Msg) bool {
			return m.Question[0].Name == "broken.example.test." && m.Question[0].Qtype == dns.TypeCAA
		}
	})
	c, p, n, store := setup(t, pebbleOptions{})
	client := func(preflight Preflight) *Client {
		return newClient(t, p, n, store, func(cfg *Config) {
			cfg.Preflight, cfg.Resolvers, cfg.HTTPPort = preflight, w.servers[:], n.httpPort()
		})
	}
	advise, require := client(PreflightAdvise), client(PreflightRequire)
	for _, name := range []string{"closed", "moved", "dns"} {
		r := newRequest(t, name+".example.test", "open.example.test")
		before := p.count("POST " + pathOrder)
		_, err := require.Obtain(t.Context(), r)
		problem := problemOf(t, err, ScopeName)
		if kind(problem.Type) != "caa" || !problem.Own() || problem.Identifier != name+".example.test" || p.count("POST "+pathOrder) != before {
			t.Errorf("%s: problem is %+v after %d orders", name, problem, p.count("POST "+pathOrder)-before)
		}
	}
	for _, name := range []string{"open.example.test", "www.open.example.test", "plain.example.test", "broken.example.test", "127.0.0.1"} {
		obtain(t, require, newRequest(t, name))
	}
	obtain(t, advise, newRequest(t, "closed.example.test"))
	obtain(t, c, newRequest(t, "closed.example.test")) // off

	p.rewrite(editDirectory(func(dir map[string]any) { delete(dir["meta"].(map[string]any), "caaIdentities") }))
	obtain(t, client(PreflightRequire), newRequest(t, "closed.example.test")) // nothing to compare with
}

func FuzzParseIssue(f *testing.F) {
	for _, s := range []string{
		"letsencrypt.org", " ; ", "", ";", "ca.test; accounturi=https://ca.test/acct/1; validationmethods=http-01,dns-01", "ca.test;a=b;;c=d",
		"%%%%%", "ca.test; =x", "ca.test; -a=b", "ca.test; a b=c", "\x00", "ca.test\t;\ta=b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		domain, params, ok := parseIssue(value)
		if !ok && (domain != "" || len(params) != 0) {
			t.Errorf("%q: %q, %v", value, domain, params)
		}
		q := CAAQuestion{Name: "www.example.com", Identities: []string{"ca.test", ""}, Account: "a", Challenges: []string{"http-01"}}
		set := caaRecords{{tag: "issue", value: value}}
		if set.refuses(q, false) == "" && !strings.Contains(strings.ToLower(value), "ca.test") {
			t.Errorf("%q lets ca.test issue", value)
		}
		for _, line := range set.lines() {
			if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) {
				t.Errorf("line %q", line)
			}
		}
	})
}
