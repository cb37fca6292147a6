package acmeclient

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/miekg/dns"
	"go.uber.org/zap"

	"gatelodge/storage"
)

// DNSZone is a DNS provider and where it may write.
type DNSZone struct {
	// Name is how errors and logs call it. Required.
	Name string

	// Zones are the domains below which the provider writes. The longest that matches wins, among those of all DNSZones. They need not be where the
	// DNS has its zone cuts: these are found out. At least one, unless there is DelegateTo.
	Zones []string

	// DelegateTo is a domain that people lead the challenges of their names to: "_acme-challenge.NAME CNAME NAME.<DelegateTo>". The provider writes
	// below it as if it were one of Zones; errors about names that nobody can write for tell how to make the CNAME. Empty: no such advice.
	DelegateTo string

	// Resolvers ("host" or "host:port") find CNAMEs, zone cuts and name servers. An authoritative server at a resolver's address is asked at
	// the resolver's port. Empty means the system's.
	Resolvers []string

	// Provider writes and deletes TXT records: a libdns provider, see acmeclient/dnsprovider. It must leave other records of the same name alone. It gets a minute to
	// write one and half of one to remove it, and in addition what it says that it needs, if it is a PatientProvider. Required.
	Provider certmagic.DNSProvider

	// PropagationTimeout is how long to wait until all authoritative servers have a record. Zero means 2 minutes.
	PropagationTimeout time.Duration
}

// PatientProvider is a provider that itself ends a call after some time, which may be long.
type PatientProvider interface{ CallTimeout() time.Duration }

// patience is the time for a call of the provider, which is usual for others.
func (z *DNSZone) patience(usual time.Duration) time.Duration {
	if p, ok := z.Provider.(PatientProvider); ok {
		usual += p.CallTimeout()
	}
	return usual
}

// DNSSolver answers dns-01 (RFC 8555 §8.4) for all Clients of a process. Each record that it makes is in the store before it is in the DNS, so that Sweep
// of any process can remove what a crash left behind. It starts no goroutine that outlives a call; all methods are safe for concurrent use.
type DNSSolver struct {
	zones []*dnsZone // the longest suffix first
	store storage.Store
	log   *zap.Logger
	pace  dnsPace
}

// dnsZone is one suffix of a DNSZone.
type dnsZone struct {
	*DNSZone
	suffix string // canonical, with a final dot
}

const (
	defaultPropagation = 2 * time.Minute
	providerTimeout    = time.Minute      // one call of a provider
	cleanUpTimeout     = 30 * time.Second // one record, while somebody waits for the certificate
	challengeLabel     = "_acme-challenge."
)

// NewDNSSolver makes a DNSSolver over the store that all nodes share. All faults are in one error. It asks nobody anything yet.
func NewDNSSolver(zones []DNSZone, store storage.Store, logger *zap.Logger) (*DNSSolver, error) {
	if len(zones) == 0 || store == nil || logger == nil {
		return nil, errors.New("dns: zones, a store and a logger are required")
	}
	s := &DNSSolver{store: store, log: logger.Named("dns"), pace: defaultDNSPace()}
	var faults []error
	for _, z := range slices.Clone(zones) {
		suffixes, err := z.check()
		if err != nil {
			faults = append(faults, fmt.Errorf("dns %q: %w", z.Name, err))
		}
		if z.PropagationTimeout == 0 {
			z.PropagationTimeout = defaultPropagation
		}
		for _, suffix := range suffixes {
			if i := slices.IndexFunc(s.zones, func(other *dnsZone) bool { return other.suffix == suffix }); i >= 0 {
				faults = append(faults, fmt.Errorf("dns %q: %s belongs to %q already", z.Name, strings.TrimSuffix(suffix, "."), s.zones[i].Name))
			}
			s.zones = append(s.zones, &dnsZone{&z, suffix})
		}
	}
	slices.SortStableFunc(s.zones, func(a, b *dnsZone) int { return len(b.suffix) - len(a.suffix) })
	return s, errors.Join(faults...)
}

// check returns the canonical suffixes, each once, and all faults in one.
func (z *DNSZone) check() (suffixes []string, err error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if z.Name == "" {
		fault("a name is required")
	}
	if z.Provider == nil {
		fault("a provider is required")
	}
	if len(z.Zones) == 0 && z.DelegateTo == "" {
		fault("at least one zone is required")
	}
	domains := slices.Clone(z.Zones)
	if z.DelegateTo != "" {
		domains = append(domains, z.DelegateTo)
	}
	for _, domain := range domains {
		domain = strings.TrimSuffix(strings.ToLower(domain), ".")
		if len(domain) > 253 || !canonicalName.MatchString(domain) {
			fault("%q is not a domain", clean(domain))
		} else if !slices.Contains(suffixes, domain+".") {
			suffixes = append(suffixes, domain+".")
		}
	}
	for _, r := range z.Resolvers {
		host, _, err := net.SplitHostPort(r)
		if r == "" || err == nil && host == "" {
			fault("resolver %q is not an address", clean(r))
		}
	}
	if z.PropagationTimeout < 0 {
		fault("propagation timeout %v is negative", z.PropagationTimeout)
	}
	return suffixes, errors.Join(faults...)
}

// zoneFor returns the zone to write the name in (canonical, with a final dot), nil if there is none.
func (s *DNSSolver) zoneFor(fqdn string) *dnsZone {
	for _, z := range s.zones {
		if dns.IsSubDomain(z.suffix, fqdn) {
			return z
		}
	}
	return nil
}

// resolversFor returns who to ask about a name. A name in no zone of ours is asked about where a delegation to us is expected.
func (s *DNSSolver) resolversFor(fqdn string) resolvers {
	if z := s.zoneFor(fqdn); z != nil {
		return newResolvers(z.Resolvers)
	}
	for _, z := range s.zones {
		if z.DelegateTo != "" {
			return newResolvers(z.Resolvers)
		}
	}
	return newResolvers(s.zones[0].Resolvers)
}

// dnsProblem is a Problem of a name whose record we cannot make. It is never held against the CA, which was not asked.
func dnsProblem(name, op, advice string, err error) *Problem {
	return &Problem{Op: op, Identifier: name, Err: err, Advice: advice, scope: ScopeName}
}

// dnsPace is how often authoritative servers are asked.
type dnsPace struct {
	pauses  []time.Duration // between rounds; the last repeats
	silence time.Duration   // a server that has not answered for so long does not hold up the others
}

func defaultDNSPace() dnsPace {
	return dnsPace{
		pauses: []time.Duration{100 * time.Millisecond, 150 * time.Millisecond, 250 * time.Millisecond, 250 * time.Millisecond, 250 * time.Millisecond,
			500 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second},
		silence: 10 * time.Second,
	}
}

// pause is how long to wait before the next round; n counts from 0.
func (p dnsPace) pause(n int) time.Duration { return p.pauses[min(n, len(p.pauses)-1)] }
