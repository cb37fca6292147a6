package acmeclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// CAAQuestion is what a CA asks itself before it issues for a name (RFC 8659).
type CAAQuestion struct {
	Name       string   // canonical, with "*." for a wildcard; addresses have no CAA records
	Identities []string // issuer domain names of the CA: caaIdentities of its directory
	Account    string   // account URL, for accounturi (RFC 8657 §3); empty if there is none
	Challenges []string // challenge types that may be used, for validationmethods (RFC 8657 §4); one that is allowed is enough
}

// CAAError says that the CAA records of a name do not let the CA issue for it.
type CAAError struct {
	Name    string   // that was asked about
	At      string   // the name that has the records: itself or one above
	Records []string // as in a zone file: `0 issue "letsencrypt.org"`
	Why     string
}

func (e *CAAError) Error() string {
	return fmt.Sprintf("CAA records of %s do not allow it: %s (%s)", e.At, e.Why, strings.Join(e.Records, ", "))
}

// ErrCAAUnknown is wrapped by the error of CheckCAA when the DNS does not answer, or only by a failure. A CA would refuse then (RFC 8659 §3), but what we
// cannot see, it may.
var ErrCAAUnknown = errors.New("the CAA records cannot be seen")

// caaTimeout bounds one check.
const caaTimeout = 10 * time.Second

// CheckCAA asks resolvers ("host:port"; none means the system's) what the CAA records of a name say, as a CA does: it climbs from the name to the top and
// stops where there are any (RFC 8659 §3). It returns nil if the CA may issue, a *CAAError if not, and an error that wraps ErrCAAUnknown if nobody can tell.
// DNSSEC is left to the resolvers.
func CheckCAA(ctx context.Context, servers []string, q CAAQuestion) error {
	if _, err := netip.ParseAddr(q.Name); err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, caaTimeout)
	defer cancel()
	base, wildcard := strings.CutPrefix(q.Name, "*.")
	r := newResolvers(servers)
	for at := base; at != ""; _, at, _ = strings.Cut(at, ".") {
		m, err := r.ask(ctx, dns.Fqdn(at), dns.TypeCAA)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCAAUnknown, err)
		}
		set := caaSet(m)
		if len(set) == 0 {
			continue
		}
		if why := set.refuses(q, wildcard); why != "" {
			return &CAAError{Name: q.Name, At: at, Records: set.lines(), Why: why}
		}
		return nil
	}
	return nil
}

// caaRecord is one record of a set.
type caaRecord struct {
	critical   bool
	tag, value string
}

type caaRecords []caaRecord

// maxCAA bounds how many records of one name are looked at.
const maxCAA = 100

// caaSet returns the CAA records of an answer, those of an alias' target included: the resolver has followed it.
func caaSet(m *dns.Msg) (set caaRecords) {
	for _, rr := range m.Answer {
		if c, ok := rr.(*dns.CAA); ok && len(set) < maxCAA {
			set = append(set, caaRecord{critical: c.Flag&0x80 != 0, tag: strings.ToLower(c.Tag), value: c.Value})
		}
	}
	return set
}

// lines is the set for a person.
func (set caaRecords) lines() (lines []string) {
	for _, r := range set {
		flag := 0
		if r.critical {
			flag = 128
		}
		lines = append(lines, fmt.Sprintf("%d %s %q", flag, clean(r.tag), clean(r.value)))
	}
	return lines
}

// knownCAATags may be marked critical: we know what they mean, even if it does not concern us (RFC 8659 §4.1, RFC 9495, CA/Browser Forum).
var knownCAATags = []string{"issue", "issuewild", "iodef", "issuemail", "issuevmc", "contactemail", "contactphone"}

// refuses returns why the set does not let the CA issue, empty if it does.
func (set caaRecords) refuses(q CAAQuestion, wildcard bool) string {
	for _, r := range set {
		if r.critical && !slices.Contains(knownCAATags, r.tag) {
			return fmt.Sprintf("it demands that the CA understand %q", clean(r.tag)) // RFC 8659 §4.1
		}
	}
	tag := "issue"
	if wildcard && slices.ContainsFunc(set, func(r caaRecord) bool { return r.tag == "issuewild" }) {
		tag = "issuewild" // RFC 8659 §4.3
	}
	restricted, why := false, ""
	for _, r := range set {
		if r.tag != tag {
			continue
		}
		restricted = true
		reason := r.refuses(q)
		if reason == "" {
			return ""
		}
		if why == "" || reason != otherCA {
			why = reason // that of the record which names our CA says more
		}
	}
	if !restricted {
		return ""
	}
	return why
}

// otherCA is the reason of a record that is about another CA, or about none.
const otherCA = "the CA is not named"

// refuses returns why this record does not let the CA issue, empty if it does.
func (r caaRecord) refuses(q CAAQuestion) string {
	domain, params, ok := parseIssue(r.value)
	if !ok || !slices.ContainsFunc(q.Identities, func(id string) bool { return domain != "" && strings.EqualFold(id, domain) }) {
		return otherCA
	}
	// RFC 8657 §3 and §4: a parameter that occurs twice cannot be satisfied.
	if uris := params["accounturi"]; len(uris) > 1 || len(uris) == 1 && uris[0] != q.Account {
		return fmt.Sprintf("accounturi is another account's than %s", cmp.Or(q.Account, "ours, which is not made yet"))
	}
	if methods := params["validationmethods"]; len(methods) > 1 || len(methods) == 1 && !anyIn(q.Challenges, strings.Split(methods[0], ",")) {
		return fmt.Sprintf("validationmethods has none of %s", strings.Join(q.Challenges, ", "))
	}
	return ""
}

func anyIn(some, all []string) bool {
	return slices.ContainsFunc(some, func(s string) bool { return slices.Contains(all, s) })
}

// parseIssue reads the value of an issue or issuewild property (RFC 8659 §4.2): an issuer's domain, which may be empty, and parameters by tag. It reports
// false for what is malformed: "MUST be treated as if" nobody may issue.
func parseIssue(value string) (domain string, params map[string][]string, ok bool) {
	head, rest, _ := strings.Cut(value, ";")
	domain = strings.ToLower(strings.Trim(head, " \t"))
	if domain != "" && !canonicalName.MatchString(domain) {
		return "", nil, false
	}
	params = map[string][]string{}
	for param := range strings.SplitSeq(rest, ";") {
		if param = strings.Trim(param, " \t"); param == "" {
			continue
		}
		tag, v, found := strings.Cut(param, "=")
		tag, v = strings.ToLower(strings.Trim(tag, " \t")), strings.Trim(v, " \t")
		odd := strings.IndexFunc(v, func(r rune) bool { return r < 0x21 || r > 0x7e }) >= 0
		if !found || odd || !isParameterTag(tag) {
			return "", nil, false
		}
		params[tag] = append(params[tag], v)
	}
	return domain, params, true
}

// isParameterTag: letters, digits, and hyphens within.
func isParameterTag(s string) bool {
	return s != "" && s[0] != '-' && s[len(s)-1] != '-' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
