package acmeclient

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"
)

// How long the background leaves the CA alone.
const (
	firstRetry     = time.Second // while nothing is known: doubled up to lastRetry
	lastRetry      = 15 * time.Minute
	suspectedProbe = 15 * time.Minute // while a downgrade is suspected
	troubleProbe   = time.Hour        // while v1, or the move to v2, is in trouble
	nodeSpread     = 5 * time.Minute  // within which the nodes of a fleet come to a shared time, so that the first spares the others the look
)

// watch keeps the negotiation and the v2 directory up to date until ctx ends, so that no handshake has to.
func (g *negotiator) watch(ctx context.Context) {
	for failures := 0; ; {
		n, err := g.current(ctx)
		wait := g.pause(n, err, failures, time.Now())
		g.setNextLook(time.Now().Add(wait))
		hurried, changed, ok := g.waited(ctx, wait)
		if !ok {
			return
		}
		if changed {
			continue
		}
		if err == nil && !hurried && g.othersWereFirst(ctx, n) {
			continue
		}
		_, err = g.lookInBackground(ctx, n.State)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			failures = 0
			continue
		}
		failures++
		g.log.Warn("no good news of the CA's directory", zap.Int("attempt", failures), zap.Error(err))
	}
}

// othersWereFirst reports whether the fleet has moved on since n: one look by whichever node suffices where all share what it shows.
func (g *negotiator) othersWereFirst(ctx context.Context, n negotiation) bool {
	now, _, err := g.read(ctx)
	if err != nil {
		return false
	}
	g.keep(now)
	return now.State != n.State || now.State == stateV1 && now.Trouble == "" && now.NextProbe.After(time.Now())
}

// lookInBackground is lookInTurn without regard to what is known to be fresh, unless an Obtain was first at the start.
func (g *negotiator) lookInBackground(ctx context.Context, was negotiationState) (negotiation, error) {
	c := &g.wire.directory
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return negotiation{}, ctx.Err()
	}
	n, err := g.current(ctx)
	if err != nil || n.State != was {
		return n, err
	}
	return g.lookAround(ctx, n, g.rules)
}

// pause returns how long to leave the CA alone.
func (g *negotiator) pause(n negotiation, err error, failures int, now time.Time) time.Duration {
	backoff := time.Duration(0)
	if failures > 0 {
		backoff = min(firstRetry<<min(failures-1, 20), lastRetry)
	}
	speaks := n.speaks(g.rules)
	switch {
	case err != nil || speaks == "" && n.State != stateSuspected:
		return jitter(backoff, 0.2)
	case n.State == stateSuspected:
		return jitter(suspectedProbe, 0.2)
	case speaks == ProtocolV2:
		return max(g.pauseV2(n, now), jitter(backoff, 0.2))
	case n.State == stateUpgrading && n.Trouble == "":
		return max(n.Since.Add(upgradePause).Sub(now), backoff) + rand.N(nodeSpread)
	case n.Trouble != "":
		return jitter(troubleProbe, 0.2)
	case g.rules.protocol == ProtocolV1:
		return jitter(probeInterval, 0.2)
	}
	return max(n.NextProbe.Sub(now), 0) + rand.N(nodeSpread)
}

// pauseV2: the directory of v2 is each node's own.
func (g *negotiator) pauseV2(n negotiation, now time.Time) time.Duration {
	age, failing, ok := g.wire.directory.age(now)
	switch {
	case !n.AbsentFirst.IsZero():
		return max(n.AbsentFirst.Add(absencePause).Sub(now), 0) + time.Second
	case !ok:
		return 0
	case failing:
		return jitter(directoryRefresh, 0.2)
	}
	return max(jitter(directoryAge*5/6, 0.1)-age, 0)
}

// waited waits for d, or until somebody is in a hurry, or until something is known that changes the wait; not ok when ctx has ended.
func (g *negotiator) waited(ctx context.Context, d time.Duration) (hurried, changed, ok bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return false, false, true
	case <-g.hurried:
		return true, false, true
	case <-g.changed:
		return false, true, true
	case <-ctx.Done():
		return false, false, false
	}
}

// jitter returns d, give or take the part of it.
func jitter(d time.Duration, part float64) time.Duration {
	return time.Duration(float64(d) * (1 + part*(2*rand.Float64()-1)))
}
