package devca

import (
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
			return n, newProblem(400, "rejectedIdentifier", "%q is a wildcard and needs dns-01, which this CA does not offer", n.Value)
		}
		if why := dnsNameFault(base); why != "" {
			return n, newProblem(400, "rejectedIdentifier", "%q %s", n.Value, why)
		}
		return n, nil
	}
	return n, newProblem(400, "unsupportedIdentifier", "Identifiers of type %q are not supported", n.Type)
}

// dnsNameFault is the syntax of a host name (RFC 1123 §2.1). Of single labels only localhost is accepted.
func dnsNameFault(name string) string {
	if len(name) > 253 {
		return "is longer than 253 characters"
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "is an IP address in an identifier of type dns"
	}
	labels := strings.Split(name, ".")
	if len(labels) < 2 && name != "localhost" {
		return "has only one label"
	}
	for _, l := range labels {
		if fault := labelFault(l); fault != "" {
			return fault
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return "ends in a numeric label"
	}
	return ""
}

func labelFault(l string) string {
	switch {
	case l == "":
		return "has an empty label"
	case len(l) > 63:
		return "has a label of more than 63 characters"
	case l[0] == '-' || l[len(l)-1] == '-':
		return "has a label that begins or ends with a hyphen"
	}
	for i := range len(l) {
		if ch := l[i]; (ch < 'a' || ch > 'z') && (ch < '0' || ch > '9') && ch != '-' {
			return "has a character that host names do not have"
		}
	}
	return ""
}

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
	p := newProblem(400, bad[0].Type, "%d identifiers are refused", len(bad))
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
