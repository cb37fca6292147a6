package devca

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

func cutWildcard(name string) (base string, ok bool) { return strings.CutPrefix(name, "*.") }

// canonicalName lower-cases a name and says why it cannot be on a certificate.
func canonicalName(n identifier, wildcards bool) (identifier, *problem) {
	switch n.Type {
	case identIP:
		// RFC 8738 §3: the textual form of RFC 5952, so exactly what netip prints.
		ip, err := netip.ParseAddr(n.Value)
		if err != nil || ip.String() != n.Value || ip.Zone() != "" || ip.Is4In6() {
			return n, malformed("%q is not an IP address in its canonical form", n.Value)
		}
		return n, nil
	case identDNS:
		n.Value = strings.ToLower(n.Value)
		base, wild := cutWildcard(n.Value)
		if wild && !wildcards {
			return n, rejected("Cannot issue for %q: a wildcard needs dns-01, which this CA does not offer", n.Value)
		}
		if fault := dnsNameFault(base); fault != "" {
			return n, rejected("Cannot issue for %q: %s", n.Value, fault)
		}
		return n, nil
	}
	return n, newProblem(http.StatusBadRequest, "unsupportedIdentifier", "Identifiers of type %q are not supported", n.Type)
}

func rejected(format string, args ...any) *problem {
	return newProblem(http.StatusBadRequest, "rejectedIdentifier", format, args...)
}

// maxLabels is Boulder's.
const maxLabels = 10

// dnsNameFault is the syntax of a host name (RFC 1123 §2.1), in Boulder's words. Of single labels only localhost is accepted.
func dnsNameFault(name string) string {
	if name == "localhost" {
		return ""
	}
	labels := strings.Split(name, ".")
	_, notIP := netip.ParseAddr(name)
	switch {
	case strings.HasSuffix(name, "."):
		return "Domain name ends in a dot"
	case len(name) > 253:
		return "Domain name is longer than 253 bytes"
	case notIP == nil:
		return "The ACME server can not issue a certificate for an IP address"
	case len(labels) > maxLabels:
		return "Domain name has more than 10 labels (parts)"
	case len(labels) < 2:
		return "Domain name needs at least one dot"
	case strings.Trim(labels[len(labels)-1], "0123456789") == "":
		return "Domain name does not end with a valid public suffix (TLD)"
	}
	for _, l := range labels {
		switch {
		case l == "":
			return "Domain name can not have two dots in a row"
		case len(l) > 63:
			return "Domain has a label (component between dots) longer than 63 bytes"
		case l[0] == '-' || l[len(l)-1] == '-' || strings.IndexFunc(l, notLDH) >= 0:
			return "Domain name contains an invalid character"
		}
	}
	return ""
}

// notLDH reports whether a character is not a letter, digit or hyphen.
func notLDH(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' }

// canonicalNames does all of an order's names. RFC 8555 §6.7.1: with several at fault, each has its subproblem.
func canonicalNames(names []identifier, wildcards bool) ([]identifier, error) {
	if len(names) == 0 {
		return nil, malformed("The order has no identifiers")
	}
	if len(names) > maxNames {
		return nil, malformed("The order has %d identifiers; at most %d are allowed", len(names), maxNames)
	}
	var good []identifier
	var bad []problem
	for _, n := range names {
		clean, p := canonicalName(n, wildcards)
		if p != nil {
			p.Identifier = &identifier{n.Type, n.Value}
			bad = append(bad, *p)
			continue
		}
		if !slices.Contains(good, clean) {
			good = append(good, clean)
		}
	}
	switch len(bad) {
	case 0:
		return good, nil
	case 1:
		bad[0].Identifier = nil
		return nil, &bad[0]
	}
	p := newProblem(http.StatusBadRequest, bad[0].Type, "%d identifiers are refused", len(bad))
	p.Subproblems = bad
	return nil, p
}

// describe lists names for the log.
func describe(names []identifier) string {
	var s []string
	for _, n := range names {
		s = append(s, n.Value)
	}
	return strings.Join(s, ", ")
}
