package acmeclient

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Preflight is whether, and when, we look at a name ourselves, as in the configuration key issue.preflight: at its addresses, at its CAA records, and at the URL
// at which a CA would look for our answer.
type Preflight string

// The kinds of Preflight. What works costs nothing but with PreflightRequire.
const (
	PreflightOff     Preflight = "off"
	PreflightAdvise  Preflight = "advise"  // once a CA has refused the name, by Client.Look: nothing waits for it, and nothing is refused
	PreflightRequire Preflight = "require" // before an order too, which is not placed if the CA could not succeed, as far as we can see
)

const (
	preflightTimeout  = 5 * time.Second // for a name
	preflightParallel = 8               // names of one order that are looked at together
)

// Finding is something that keeps a CA from validating a name, or may.
type Finding struct {
	Kind   string // the problem type that a CA would have for it, without its namespace: "dns", "caa", "connection", "unauthorized"
	Saw    string // half a sentence, of which the name is the subject
	Advice string // what to do

	// Refuses: PreflightRequire does not order. What we could not see refuses nothing: a resolver of ours that is down must not put names off for a day.
	Refuses bool
}

// Outlook is how a name looks from here. A CA stands elsewhere: where this server cannot reach its own public address (hairpin NAT), it sees what no CA does.
type Outlook struct {
	Addresses []netip.Addr // that the DNS has for it, or itself
	Answers   bool         // the name's challenge URL led to our own answer
	CAA       bool         // its CAA records allow the CA
	Findings  []Finding
}

// String is the Outlook in words that follow the name.
func (o Outlook) String() string {
	var parts []string
	for _, f := range o.Findings {
		parts = append(parts, f.Saw+" ("+f.Advice+")")
	}
	if len(o.Addresses) > 0 && !slices.ContainsFunc(o.Findings, func(f Finding) bool { return f.Kind != "caa" }) { // else they were named
		parts = append(parts, "it leads to "+listed(o.Addresses))
	}
	if o.Answers {
		parts = append(parts, "its challenge URL is answered by us")
	}
	if o.CAA {
		parts = append(parts, "its CAA records allow the CA")
	}
	return strings.Join(parts, "; ")
}

// Look looks at a name or wildcard as the CA would, for 5 s at most, and orders nothing. It asks the DNS, the store and the name's own addresses, and connects to
// none that are not for the public if the CA is one.
func (c *Client) Look(ctx context.Context, name string) (Outlook, error) {
	if err := c.open(); err != nil {
		return Outlook{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	q := CAAQuestion{Name: name, Challenges: c.types(name)}
	if d, err := c.speaker(ctx); err == nil { // else nobody knows what the CA is called in CAA records
		q.Identities = identitiesOf(d)
		if acct := c.accounts.get(); acct != nil {
			q.Account = acct.at(d.protocol())
		}
	}
	return c.look(ctx, q, false), nil
}

// look asks all there is to ask about a name together; or for its CAA records only.
func (c *Client) look(ctx context.Context, q CAAQuestion, onlyCAA bool) (o Outlook) {
	ctx, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	var caa []Finding
	var g errgroup.Group
	g.Go(func() error {
		caa, o.CAA = c.lookAtCAA(ctx, q)
		return nil
	})
	byAddress := slices.Contains(q.Challenges, ChallengeHTTP01) || slices.Contains(q.Challenges, ChallengeTLSALPN01)
	var rest []Finding
	if byAddress && !onlyCAA {
		rest = c.lookAtAddresses(ctx, q, &o)
	}
	_ = g.Wait()                                       // no function returns an error
	if slices.Contains(q.Challenges, ChallengeDNS01) { // the order may be proved without an address
		for i := range rest {
			rest[i].Refuses = false
		}
	}
	o.Findings = append(rest, caa...)
	return o
}

// lookAtAddresses finds out where the name leads, and whether we are there.
func (c *Client) lookAtAddresses(ctx context.Context, q CAAQuestion, o *Outlook) (findings []Finding) {
	var usable []netip.Addr
	if addr, err := netip.ParseAddr(q.Name); err == nil {
		o.Addresses, usable = []netip.Addr{addr}, []netip.Addr{addr}
	} else {
		o.Addresses, usable, findings = c.locateName(ctx, q.Name)
	}
	if len(usable) == 0 || !slices.Contains(q.Challenges, ChallengeHTTP01) {
		return findings
	}
	answers, more := c.askOurselves(ctx, q.Name, usable)
	o.Answers = answers
	return append(findings, more...)
}

// lookAtCAA asks what the CAA records say, if the CA says what it is called in them. It also reports whether they positively allow the CA.
func (c *Client) lookAtCAA(ctx context.Context, q CAAQuestion) ([]Finding, bool) {
	if len(q.Identities) == 0 {
		return nil, false
	}
	err := CheckCAA(ctx, c.cfg.Resolvers, q)
	switch {
	case err == nil:
		return nil, true
	case errors.Is(err, ErrCAAUnknown): // a CA would refuse, if it cannot see them either (RFC 8659 §3)
		return []Finding{{Kind: "caa", Saw: err.Error(), Advice: "its name servers, and the resolvers of this server, must answer questions for CAA records"}}, false
	}
	return []Finding{{Kind: "caa", Saw: err.Error(), Advice: adviceCAA, Refuses: true}}, false
}

// preflight refuses an order that the CA could not complete, as far as we can see, before it costs anything there. If the names have a certificate, only what the
// CA itself looks up with every order counts: we may see wrongly, and a certificate must not end for that, while a renewal that fails costs little.
func (c *Client) preflight(ctx context.Context, d dialect, a *attempt) error {
	if c.cfg.Preflight != PreflightRequire {
		return nil
	}
	outlooks := make([]Outlook, len(a.names))
	var g errgroup.Group
	g.SetLimit(preflightParallel)
	for i, name := range a.names {
		q := CAAQuestion{Name: name, Identities: identitiesOf(d), Account: a.account.at(d.protocol()), Challenges: c.types(name)}
		g.Go(func() error {
			outlooks[i] = c.look(ctx, q, a.renewal)
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	for i, name := range a.names {
		for _, f := range outlooks[i].Findings {
			if f.Refuses {
				return f.problem(name)
			}
			c.log.Warn("the CA may not be able to validate the name", zap.String("name", name), zap.String("saw", f.Saw), zap.String("advice", f.Advice))
		}
	}
	return ctx.Err()
}

// problem is the finding as the reason of a refusal of our own.
func (f Finding) problem(name string) *Problem {
	return &Problem{Op: "look at the name (nothing was sent)", Type: problemNamespace + f.Kind, Identifier: name, scope: ScopeName, Detail: f.Saw, Advice: f.Advice, own: true}
}

// identitiesOf returns what the CA is called in CAA records.
func identitiesOf(d dialect) []string {
	switch d := d.(type) {
	case *v2:
		return d.dir.caa
	case *v1:
		return d.dir.caa
	}
	return nil
}

// checkResolvers refuses addresses that nobody can ask.
func checkResolvers(servers []string, fault func(format string, args ...any)) {
	for _, s := range servers {
		if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
			fault("resolver %q: \"host:port\" is allowed", s)
		}
	}
}
