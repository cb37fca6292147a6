package acmeclient

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/acme"
)

// placeable refuses an order that the CA has told us not to place, or that could not be completed: where dns-01 is the only way, there must be a
// provider that can write for the name.
func (c *Client) placeable(ctx context.Context, names []string) error {
	if err := c.limits.check(ctx, names); err != nil {
		return err
	}
	for _, n := range names {
		if identify(n).Type != "dns" || slices.ContainsFunc(c.types(n), func(typ string) bool { return typ != ChallengeDNS01 }) {
			continue
		}
		if _, err := c.cfg.DNS.locate(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// types returns the challenge types for the name or wildcard, in the order in which they are tried. Wildcards can be proved by dns-01 only, and are even if
// other names are not.
func (c *Client) types(name string) []string {
	if strings.HasPrefix(name, "*.") {
		return []string{ChallengeDNS01}
	}
	return c.rotation.order(name, c.cfg.Challenges)
}

// presentDNS makes the record that answers a dns-01 challenge. What is returned is made, beside an error, too.
func (c *Client) presentDNS(ctx context.Context, a *attempt, name string, ch *challenge) (*dnsRecord, error) {
	place, err := c.cfg.DNS.locate(ctx, name)
	if err != nil {
		return nil, err
	}
	keyAuth, err := (&acme.Client{Key: a.account.key}).HTTP01ChallengeResponse(ch.token) // RFC 8555 §8.1, the same for all types
	if err != nil {
		return nil, fmt.Errorf("make the key authorization: %w", err)
	}
	return c.cfg.DNS.present(ctx, place, name, ch.token, keyAuth)
}

// awaitDNS returns when the servers of the zone have the record. Only then is the CA told, of all challenges of the order: a resolver of its that saw one of
// two records of the same name, as a name and its wildcard have, would keep that answer.
func (c *Client) awaitDNS(ctx context.Context, _ dialect, _ *attempt, s *solving) error {
	if s.record == nil || s.told {
		return nil
	}
	return c.cfg.DNS.wait(ctx, s.record)
}
