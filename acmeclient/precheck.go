package acmeclient

import (
	"context"
	"errors"
	"net"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// CAACheck is whether the CAA records of the names are looked at before an order, as in the configuration key issue.preflight.
type CAACheck string

// The ways to look at CAA records.
const (
	CAAOff     CAACheck = "off"
	CAAAdvise  CAACheck = "advise"  // a refusal that is to be expected is logged, and the order placed
	CAARequire CAACheck = "require" // names whose records do not allow the CA, or cannot be seen, are not ordered
)

// caaParallel bounds how many names of one order are looked up at a time.
const caaParallel = 8

// caaUnseenPause is when a name whose records could not be seen is tried again.
const caaUnseenPause = time.Minute

// checkCAA looks whether the CAA records of the names let the CA issue, before that costs an order. A CA that does not say what it is called in CAA
// records is not checked.
func (c *Client) checkCAA(ctx context.Context, d dialect, a *attempt) error {
	identities := identitiesOf(d)
	if c.cfg.CheckCAA == CAAOff || len(identities) == 0 {
		return nil
	}
	errs := make([]error, len(a.names))
	var g errgroup.Group
	g.SetLimit(caaParallel)
	for i, name := range a.names {
		g.Go(func() error {
			errs[i] = CheckCAA(ctx, c.cfg.Resolvers, CAAQuestion{
				Name: name, Identities: identities, Account: a.account.at(d.protocol()), Challenges: c.types(name),
			})
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	for i, name := range a.names {
		if errs[i] == nil {
			continue
		}
		p := caaProblem(name, errs[i])
		if c.cfg.CheckCAA == CAARequire {
			return p
		}
		c.log.Warn("the CA will hardly issue for the name", zap.String("name", name), zap.Error(errs[i]), zap.String("advice", p.Advice))
	}
	return ctx.Err()
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

// caaProblem is the Problem of a name that fails the check. A name server of the name's owner that fails is the name's affair, too.
func caaProblem(name string, err error) *Problem {
	p := &Problem{Op: "check the CAA records (nothing was sent)", Identifier: name, scope: ScopeName, Detail: err.Error()}
	if errors.Is(err, ErrCAAUnknown) {
		p.Type, p.retryAt = problemNamespace+"dns", time.Now().Add(caaUnseenPause)
		p.Advice = "the name servers of the name, or the resolvers of this server, must answer questions for CAA records"
		return p
	}
	p.Type, p.Advice = problemNamespace+"caa", adviceCAA
	return p
}

// checkResolvers refuses addresses that nobody can ask.
func checkResolvers(servers []string, fault func(format string, args ...any)) {
	for _, s := range servers {
		if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
			fault("resolver %q: \"host:port\" is allowed", s)
		}
	}
}
