// Package dnsprovider makes the DNS providers that acmeclient writes the records of dns-01 with, from the keys of a configuration.
//
// rfc2136, cloudflare and acmedns are libdns providers; exec runs a program. Each takes "the provider's own" keys:
//
//	rfc2136     server      "host" or "host:port" of the primary; port 53 without
//	            key_name    of the TSIG key
//	            key_alg     "hmac-sha256" (default), "hmac-sha1", "hmac-sha224", "hmac-sha384" or "hmac-sha512"
//	            key         secret: the TSIG key in base64
//	cloudflare  token       secret: an API token with Zone.DNS:Edit
//	            zone_token  secret, optional: an API token with Zone:Read, if token lacks it
//	acmedns     server      URL of the API
//	            username    \
//	            password     > as the API's /register answered; password is a secret
//	            subdomain   /
//	            accounts    instead of these four, secret: accounts as acme-dns-client keeps them (JSON)
//	exec        command     absolute path, or a list: the path and its first arguments
//	            timeout     of one run; default "1m", at most "10m"
//
// Secrets are references, which the caller resolves. No error says a secret.
package dnsprovider

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"
)

// New makes the provider of a kind ("rfc2136", ...) from its own keys, whose values are as TOML gives them. resolve returns the secret that a reference
// leads to; its errors must not say the secret. All faults are in one error. Nothing is asked of the provider.
func New(kind string, own map[string]any, resolve func(ref string) (string, error)) (certmagic.DNSProvider, error) {
	build, ok := builders()[kind]
	if !ok {
		return nil, fmt.Errorf("provider %q: %s are supported", kind, strings.Join(Kinds(), ", "))
	}
	s := newSettings(own, resolve)
	p := build(s)
	if err := s.faults(kind); err != nil {
		return nil, err
	}
	return p, nil
}

// builders returns how each kind is made. Faults are left in the settings; the provider does not count if there are any.
func builders() map[string]func(*settings) certmagic.DNSProvider {
	return map[string]func(*settings) certmagic.DNSProvider{
		"rfc2136":    newRFC2136,
		"cloudflare": newCloudflare,
		"acmedns":    newACMEDNS,
		"exec":       newExec,
	}
}

// Kinds returns what New can make, sorted.
func Kinds() []string {
	var kinds []string
	for kind := range builders() {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	return kinds
}
