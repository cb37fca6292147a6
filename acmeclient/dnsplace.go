package acmeclient

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// maxCNAMEs bounds a chain of CNAMEs, as resolvers do.
const maxCNAMEs = 8

// dnsPlace is where the record for a name is written. Names are canonical with a final dot.
type dnsPlace struct {
	zone *dnsZone
	fqdn string // of the record
	apex string // of the zone in the DNS
}

// locate finds out where the record that proves control over a name or wildcard belongs: at its _acme-challenge, or where CNAMEs lead from there. The error
// is a Problem of the name that says what to do. Where strangers' CNAMEs lead us to, we add a random value for a minute and nothing else.
func (s *DNSSolver) locate(ctx context.Context, name string) (*dnsPlace, error) {
	start := challengeLabel + strings.TrimPrefix(name, "*.") + "."
	chain, err := s.follow(ctx, start)
	if err != nil {
		return nil, err
	}
	p := &dnsPlace{fqdn: chain[len(chain)-1]}
	if p.zone = s.zoneFor(p.fqdn); p.zone == nil {
		return nil, s.nowhere(name, chain)
	}
	if p.apex, err = newResolvers(p.zone.Resolvers).apex(ctx, p.fqdn); err != nil {
		return nil, dnsProblem(name, "find the DNS zone", "the resolvers must know "+p.zone.suffix[:len(p.zone.suffix)-1]+"; check `resolvers`", err)
	}
	return p, nil
}

// follow returns the names from start to where its CNAMEs end.
func (s *DNSSolver) follow(ctx context.Context, start string) ([]string, error) {
	r := s.resolversFor(start)
	lookup := func(fqdn string) (string, error) {
		m, err := r.ask(ctx, fqdn, dns.TypeCNAME)
		if err != nil {
			return "", err
		}
		return cnameOf(m, fqdn), nil
	}
	name := strings.TrimSuffix(strings.TrimPrefix(start, challengeLabel), ".")
	chain, err := followCNAMEs(start, lookup)
	if err != nil {
		advice := "the resolvers must answer; check `resolvers`"
		if errors.Is(err, errChain) {
			advice = "correct the CNAME records from " + strings.TrimSuffix(start, ".") + " on"
		}
		return nil, dnsProblem(name, "follow the CNAMEs of "+strings.TrimSuffix(start, "."), advice, err)
	}
	if len(chain) == 1 || s.zoneFor(start) == nil {
		return chain, nil
	}
	// "*.example.org CNAME web.example.net" answers for _acme-challenge.example.org as long as there is nothing. In a zone of ours, our record takes precedence.
	sibling, err := lookup(strings.ToLower(rand.Text()) + start[len(challengeLabel)-1:])
	if err == nil && sibling == chain[1] {
		return chain[:1], nil
	}
	return chain, nil
}

// errChain is a chain of CNAMEs that somebody has to correct.
var errChain = errors.New("the CNAMEs lead nowhere")

// followCNAMEs returns the names from start to the one that lookup, which returns a name's CNAME or nothing, has no CNAME of.
func followCNAMEs(start string, lookup func(string) (string, error)) ([]string, error) {
	chain := []string{start}
	for {
		next, err := lookup(chain[len(chain)-1])
		switch {
		case err != nil:
			return nil, err
		case next == "":
			return chain, nil
		case slices.Contains(chain, next):
			return nil, fmt.Errorf("%w: %s leads back to %s", errChain, clean(chain[len(chain)-1]), clean(next))
		case len(chain) > maxCNAMEs:
			return nil, fmt.Errorf("%w: more than %d of them", errChain, maxCNAMEs)
		}
		chain = append(chain, next)
	}
}

// nowhere is the Problem of a name whose record no provider of ours can write.
func (s *DNSSolver) nowhere(name string, chain []string) *Problem {
	start := strings.TrimSuffix(chain[0], ".")
	p := dnsProblem(name, "find a DNS provider", "add the name's zone to `zones` of a [dns.NAME]", nil)
	p.Detail = "no configured zone has " + start
	if len(chain) > 1 {
		p.Detail = fmt.Sprintf("%s is a CNAME that leads to %s, which is in no configured zone", start, clean(strings.TrimSuffix(chain[len(chain)-1], ".")))
	}
	for _, z := range s.zones {
		if z.DelegateTo != "" {
			p.Advice = fmt.Sprintf("make the record \"%s CNAME %s.%s\"", start, strings.TrimPrefix(name, "*."), strings.TrimSuffix(strings.ToLower(z.DelegateTo), "."))
			break
		}
	}
	return p
}

// apex returns the zone that a name is in: answers about it, and that there is none, carry the zone's SOA (RFC 2308 §3); where they do not, its
// parents are asked.
func (r resolvers) apex(ctx context.Context, fqdn string) (string, error) {
	for i, end := 0, false; !end; i, end = dns.NextLabel(fqdn, i) {
		m, err := r.ask(ctx, fqdn[i:], dns.TypeSOA)
		if err != nil {
			return "", err
		}
		apex := apexOf(m, fqdn)
		if dns.CountLabel(apex) > 1 {
			return apex, nil
		}
		if apex != "" {
			break // the answer of a top-level domain: nothing below it exists
		}
	}
	return "", fmt.Errorf("no zone has %s", clean(fqdn))
}
