package acmeclient

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// nameRules are what names may be ordered at a CA. What they refuse costs no request, and no step of a rate limit.
type nameRules struct {
	private   bool // the CA is none of the public ones: it may issue for names and addresses that nobody on the Internet owns
	wildcards bool // there is a DNS provider: nothing but dns-01 proves a wildcard (Baseline Requirements 3.2.2.4)
}

// checkNames refuses names that the CA cannot issue for.
func (c *Client) checkNames(names []string) error {
	rules := nameRules{private: c.cfg.Private, wildcards: c.cfg.DNS != nil}
	for _, n := range names {
		if err := rules.check(n); err != nil {
			return err
		}
	}
	return nil
}

// Advice to names that cannot be ordered.
const (
	adviceNobody  = "no CA issues for it; correct or remove the name"
	advicePublic  = "no public CA issues for it; use the internal CA, or a private one"
	adviceCertain = "names must be written as they stand in certificates"
)

// check returns a Problem of the name's own if no CA of this kind can issue for the canonical name or address.
func (r nameRules) check(n string) error {
	fault, advice := nameFault(n)
	if fault == "" && !r.private {
		fault, advice = publicFault(n)
	}
	if fault == "" && strings.HasPrefix(n, "*.") && !r.wildcards {
		fault, advice = "wildcards need dns-01, and no DNS provider is configured", "add a [dns.NAME] with the name's zone, or list the names one by one"
	}
	if fault == "" {
		return nil
	}
	return &Problem{Op: "place the order (nothing was sent)", Type: problemNamespace + "rejectedIdentifier", Identifier: clean(n), scope: ScopeName,
		Detail: fault, Advice: advice}
}

// canonicalName is a DNS name in lower case and A-labels without a trailing dot.
var canonicalName = regexp.MustCompile(`^([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

// nameFault says what no certificate can carry.
func nameFault(n string) (fault, advice string) {
	if ip, err := netip.ParseAddr(n); err == nil {
		if ip.Zone() != "" || ip.Unmap().String() != n { // RFC 8738 §3: the textual form of RFC 5952
			return "the address is not in its shortest form", adviceCertain
		}
		return "", ""
	}
	base := strings.TrimPrefix(n, "*.")
	switch {
	case strings.IndexFunc(base, func(r rune) bool { return r >= 0x80 }) >= 0:
		if ascii, err := idna.Lookup.ToASCII(base); err == nil {
			return fmt.Sprintf("internationalised names are written in A-labels: %s", ascii), adviceCertain
		}
		return "it is no internationalised name either", adviceNobody
	case len(n) > 253:
		return fmt.Sprintf("it has %d bytes, the most is 253", len(n)), adviceNobody
	case strings.Contains(base, "*"):
		return `a wildcard is a single "*." in front`, adviceNobody
	case !canonicalName.MatchString(base):
		return "it is no DNS name in lower case without a trailing dot", adviceCertain
	}
	for label := range strings.SplitSeq(base, ".") {
		if _, err := idna.Punycode.ToUnicode(label); err != nil {
			return fmt.Sprintf("its label %s is no A-label", label), adviceNobody
		}
	}
	return "", ""
}

// specialUse are top-level names that are never delegated (RFC 6761, RFC 6762, RFC 9476, ICANN's reservation of .internal).
var specialUse = []string{"alt", "example", "internal", "invalid", "local", "localhost", "onion", "test"}

// publicFault says what public CAs are not allowed to issue for (Baseline Requirements 4.2.2 and 7.1.4), of what nameFault lets pass.
func publicFault(n string) (fault, advice string) {
	if ip, err := netip.ParseAddr(n); err == nil {
		if !ip.IsGlobalUnicast() || ip.IsPrivate() {
			return "the address is not one of the Internet", advicePublic
		}
		return "", ""
	}
	base := strings.TrimPrefix(n, "*.")
	labels := strings.Split(base, ".")
	top := labels[len(labels)-1]
	switch {
	case len(labels) == 1:
		return "it has a single label", advicePublic
	case slices.Contains(specialUse, top) || strings.HasSuffix("."+base, ".home.arpa"):
		return "." + top + " is reserved for other uses than the public DNS", advicePublic
	case strings.Trim(top, "0123456789") == "":
		return "." + top + " is no top-level domain", adviceNobody
	case strings.Contains(base, "_"):
		return `it has a "_"`, "no public CA issues for it; use a name without \"_\""
	}
	for _, l := range labels {
		if len(l) > 3 && l[2:4] == "--" && !strings.HasPrefix(l, "xn--") {
			return fmt.Sprintf("its label %s is reserved (RFC 5890 §2.3.1)", l), adviceNobody
		}
	}
	if suffix, icann := publicsuffix.PublicSuffix(base); icann && suffix == base {
		return "it is a public suffix: nobody owns it", adviceNobody
	}
	return "", ""
}
