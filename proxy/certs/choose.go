package certs

import (
	"net/netip"
	"slices"

	"gatelodge/proxy/hostname"
)

// ChooseCAs returns the CAs that may issue for the canonical name or wildcard, in the order in which they are tried (DESIGN 3.12): those whose
// Names match; if there are none, the internal CA for its names; if it does not serve the name either, the general ones. All in the order of
// the configuration. A name of an in-house CA never goes to a public one because the in-house CA is down.
//
// A site's own list (only) replaces the choice and gives the order; what is on it still serves only the names that it is for.
func ChooseCAs(cas []CA, only []string, name string) []CA {
	if len(only) > 0 {
		return listedCAs(cas, only, name)
	}
	var named, internal, general []CA
	for _, ca := range cas {
		switch {
		case ca.Internal && ca.matches(name):
			internal = append(internal, ca)
		case ca.Internal:
		case len(ca.Names) == 0:
			general = append(general, ca)
		case ca.matches(name):
			named = append(named, ca)
		}
	}
	switch {
	case len(named) > 0:
		return named
	case len(internal) > 0:
		return internal
	}
	return general
}

func listedCAs(cas []CA, only []string, name string) []CA {
	var chosen []CA
	for _, want := range only {
		i := slices.IndexFunc(cas, func(ca CA) bool { return ca.Issuer.Name() == want })
		if i >= 0 && cas[i].serves(name) {
			chosen = append(chosen, cas[i])
		}
	}
	return chosen
}

// serves reports whether the CA may issue for the name at all.
func (ca CA) serves(name string) bool {
	return !ca.Internal && len(ca.Names) == 0 || ca.matches(name)
}

func (ca CA) matches(name string) bool {
	if ip, err := netip.ParseAddr(name); err == nil && ca.Internal && InternalAddress(ip) {
		return true
	}
	return slices.ContainsFunc(ca.Names, func(p string) bool { return hostname.Match(p, name) })
}

// InternalAddress reports whether the address is one that the internal CA serves: private, loopback or link-local. The same address
// means another machine in every network, so no public CA certifies it.
func InternalAddress(ip netip.Addr) bool {
	ip = ip.Unmap()
	return ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast()
}
