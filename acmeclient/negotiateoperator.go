package acmeclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gatelodge/storage"
)

// hurryInterval bounds how often answers of the CA, rather than time, make the background look.
const hurryInterval = 10 * time.Minute

// hurry makes the background look now: an answer of the CA says that something has changed.
func (g *negotiator) hurry() {
	g.mu.Lock()
	due := time.Since(g.hurriedAt) >= hurryInterval
	if due {
		g.hurriedAt = time.Now()
	}
	g.mu.Unlock()
	if due {
		poke(g.hurried)
	}
}

// closedPause is how long a CA that says that v1 is over is left alone: an hour, for the brownouts that came before the end lasted a day each. But where it may
// have moved to v2, no longer than it takes us to follow: who waits for the CA keeps to this time, too.
func (g *negotiator) closedPause() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known.State == stateUpgrading || time.Since(g.hurriedAt) >= time.Hour { // it is about to be looked at, see hurry
		return upgradePause
	}
	return time.Hour
}

// poke puts something into a channel that holds one, unless it does already.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Probe looks at the CA's directories now, whatever is known: for an operator who has reason to think that something has changed. v2 that is offered by a CA on v1
// is confirmed by a second look at once, not ten minutes later, and used when Probe returns. Of a CA with DirectoryV1 of which nothing is known, it may take half a
// minute to be sure. The error says why a look was no good; what was negotiated before may hold all the same, see the Status.
func (c *Client) Probe(ctx context.Context) (Status, error) {
	if err := c.open(); err != nil {
		return c.Status(), err
	}
	r := c.negotiator.rules
	r.asked = true
	_, err := c.negotiator.lookInTurn(ctx, r)
	poke(c.negotiator.changed)
	return c.Status(), err
}

// Reset forgets for the whole fleet how the CA's protocol was found, and looks anew: the way back to v1 after a downgrade was suspected, and the only one. Other
// nodes follow within five minutes. The account, with the URLs that each protocol knows it by, stays.
func (c *Client) Reset(ctx context.Context) (Status, error) {
	if err := c.open(); err != nil {
		return c.Status(), err
	}
	g := c.negotiator
	if err := g.reset(ctx); err != nil {
		return c.Status(), err
	}
	g.log.Warn("the negotiation was reset by an operator")
	_, err := g.lookInTurn(ctx, g.rules)
	poke(g.changed)
	return c.Status(), err
}

// reset stores that nothing is known. A damaged object is overwritten: that is what an operator resets for.
func (g *negotiator) reset(ctx context.Context) error {
	n := negotiation{Reset: time.Now().UTC()}.about(g.directory, g.directoryV1)
	_, _, err := g.change(ctx, func(negotiation) negotiation { return n })
	var damaged *storage.CorruptError
	if errors.As(err, &damaged) {
		err = g.overwrite(ctx, n)
	}
	if err != nil {
		return fmt.Errorf("reset %s: %w", g.ca, err)
	}
	g.wire.directory.clear()
	g.keep(n)
	return nil
}
