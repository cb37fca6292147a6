package proxy

import (
	"crypto/tls"
	"fmt"
)

// ParseGroups returns the key exchange groups of these names, for Config.Groups: "X25519MLKEM768", "P-256" and so on, as RFC 8446 §4.2.7 and its registry have
// them with the common spelling of the curves.
func ParseGroups(names []string) ([]tls.CurveID, error) {
	groups := make([]tls.CurveID, 0, len(names))
	for _, name := range names {
		group, ok := groupNames[name]
		if !ok {
			return nil, fmt.Errorf("proxy: there is no key exchange group %q", name)
		}
		groups = append(groups, group)
	}
	return groups, nil
}

// groupNames is never modified.
var groupNames = map[string]tls.CurveID{
	"X25519MLKEM768":     tls.X25519MLKEM768,
	"SecP256r1MLKEM768":  tls.SecP256r1MLKEM768,
	"SecP384r1MLKEM1024": tls.SecP384r1MLKEM1024,
	"X25519":             tls.X25519,
	"P-256":              tls.CurveP256,
	"P-384":              tls.CurveP384,
	"P-521":              tls.CurveP521,
}
