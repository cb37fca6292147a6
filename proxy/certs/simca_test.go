package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// simCA issues what it is asked to, when it feels like it. It has outages, limits, slow days, bad customers, answers that get lost, and renewal information that
// changes its mind. It may begin as an old CA (no renewal information, predecessors mean nothing to it) and learn the new protocol on its upgrade. The world's mutex
// guards it.
type simCA struct {
	w    *simWorld
	name string
	mint simMint

	orders, polls int
	hours         map[int]int       // orders by hour
	counted       simTimes          // orders that count against the budget, as far back as its time goes
	domains       map[int]*simTimes // first orders by registered domain
}

// simTimes are moments, oldest first.
type simTimes []time.Time

// add enters a moment and returns how many there are in the time before.
func (s *simTimes) add(at time.Time, per time.Duration) int {
	*s = append(*s, at)
	first := 0
	for at.Sub((*s)[first]) >= per {
		first++
	}
	*s = slices.Delete(*s, 0, first)
	return len(*s)
}

// simHold is a Retry-After: nobody who was told orders before.
type simHold struct{ told, until time.Time }

// simLeaf is what the CA knows of a certificate.
type simLeaf struct {
	nth          int // of its name
	begins, ends time.Time
	stored       bool      // in the bucket
	asked, next  time.Time // the last answer, and when it said to come again
	window       Window    // of the last answer
	told         time.Time // when it said so first
}

func (l *simLeaf) life() time.Duration { return l.ends.Sub(l.begins) }

func newSimCA(w *simWorld, name string) *simCA {
	return &simCA{w: w, name: name, mint: newSimMint(w.t), hours: map[int]int{}, domains: map[int]*simTimes{}}
}

// simIssuer is one process's connection to the CA.
type simIssuer struct {
	*simCA
	node *simNode
}

func (c *simIssuer) Name() string { return c.name }

// Issue implements Issuer.
func (c *simIssuer) Issue(ctx context.Context, r *Request) (*Issued, error) {
	n := c.w.called(r.Names[0])
	if err := c.node.wire.stand(ctx); err != nil {
		return nil, err
	}
	if err := c.refuse(ctx, n); err != nil {
		return nil, err
	}
	request := hash64(string(r.CSR))
	known := func() bool {
		c.w.mu.Lock()
		defer c.w.mu.Unlock()
		return n.request == request
	}()
	if !known {
		if err := c.order(ctx, n, r); err != nil {
			return nil, err
		}
		defer c.over(n)
	}
	if !sleep(ctx, c.pause(n)) {
		return nil, context.Cause(ctx)
	}
	if c.w.bad(n, time.Now()) {
		c.reject(n)
		return nil, &fakeFailure{scope: ScopeName}
	}
	leaf, err := c.sign(n, r, request)
	if err != nil {
		return nil, err
	}
	if c.w.dice.roll("lost", n.name) < 0.02 {
		c.w.hinders(n, time.Hour)
		return nil, errors.New("simulated: the answer got lost")
	}
	if err := c.node.wire.stand(ctx); err != nil {
		return nil, err
	}
	return &Issued{Chain: [][]byte{leaf}}, nil
}

// order pays for an order and places it.
func (c *simIssuer) order(ctx context.Context, n *simName, r *Request) error {
	replaces := c.w.modern() && r.Predecessor != nil && r.PredecessorCA == c.name
	undo, err := r.Placing(ctx, replaces)
	if err != nil {
		c.w.hinders(n, 0)
		return err
	}
	if err := c.node.wire.stand(ctx); err != nil {
		undo()
		return err
	}
	c.place(n, r, replaces)
	return nil
}

// over notes that the process does not work on the order any more.
func (c *simIssuer) over(n *simName) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if n.open == c.node {
		n.open = nil
	}
}

// pause is how long the CA works on an order: finalizing takes its time.
func (c *simIssuer) pause(n *simName) time.Duration {
	c.w.mu.Lock()
	first := n.leaf == nil
	c.w.mu.Unlock()
	if c.w.dice.roll("slow", n.name) < 0.02 || first && n.number%5 == 4 {
		return 20 * time.Minute
	}
	return 2 * time.Second
}

// reject notes that the name could not be validated.
func (c *simIssuer) reject(n *simName) {
	now := time.Now()
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	n.failed = now
	n.row++
	if !c.w.shaken(now.Add(-c.w.failures.Per), now) { // else what they were remembered by may be lost
		c.w.within(&n.failures, now, c.w.failures, "failures of "+n.name)
	}
}

// refuse is what the CA says before it does anything.
func (c *simIssuer) refuse(ctx context.Context, n *simName) error {
	now, d := time.Now(), c.w.dice
	switch {
	case c.w.outage(c.name, now) && d.roll("hang", n.name) < 0.1:
		<-ctx.Done()
		return context.Cause(ctx)
	case c.w.outage(c.name, now):
		return errors.New("simulated: 503")
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	switch x := d.roll("fault", n.name); {
	case x < 0.005:
		c.w.hindersLocked(n, time.Hour)
		return errors.New("simulated: 500")
	case x < 0.010:
		c.node.held = simHold{now, now.Add(20 * time.Minute)}
		c.w.hindered = latest(c.w.hindered, now.Add(2*time.Hour))
		return &fakeFailure{ScopeAccount, c.node.held.until}
	case x < 0.012:
		h := simHold{now, now.Add(2 * time.Hour)}
		c.node.domains[n.customer()] = h
		for _, other := range c.w.siblings(n) {
			c.w.hindersLocked(other, 4*time.Hour)
		}
		return &fakeFailure{ScopeDomain, h.until}
	case x < 0.014:
		n.held = simHold{now, now.Add(time.Hour)}
		c.w.hindersLocked(n, 3*time.Hour)
		return &fakeFailure{ScopeName, n.held.until}
	}
	return nil
}

// place notes an order, and looks whether there may be one.
func (c *simIssuer) place(n *simName, r *Request, replaces bool) {
	now := time.Now()
	_, fence, held := c.w.store.lease(n.name)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	old, free := n.leafOf(r.Predecessor), false
	if old != nil && replaces && !old.asked.IsZero() {
		free = !now.Before(old.window.Start) && now.Before(old.window.End)
	}
	c.orders++
	c.hours[int(now.Sub(c.w.begin)/time.Hour)]++
	if n.fence != fence {
		n.fence, n.placed = fence, 0
	}
	n.placed++
	if !c.node.stood(now) { // else it is late, and cannot know
		c.w.allowed(c, n, old, now, held, free)
	}
	n.open = c.node
	if got := n.orders.add(now, 24*time.Hour); got > 20 {
		c.w.violated("%d orders for %s in a day", got, n.name)
	}
	if why := c.w.unwanted(n, now); why != "" {
		c.w.violated("an order for %s, which is %s", n.name, why)
	}
}

// leafOf is the certificate of the name that the chain is of.
func (n *simName) leafOf(chain [][]byte) *simLeaf {
	if chain == nil {
		return nil
	}
	_, nth, _ := simSerialOf(chain[0])
	return n.nth(nth)
}

func (n *simName) nth(nth int) *simLeaf {
	for _, leaf := range []*simLeaf{n.leaf, n.before} {
		if leaf != nil && leaf.nth == nth {
			return leaf
		}
	}
	return nil
}

// sign returns the certificate for the request: the same one for the same request.
func (c *simIssuer) sign(n *simName, r *Request, request uint64) ([]byte, error) {
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return nil, err
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if n.request != request {
		begins := time.Now().Add(-time.Hour).Truncate(time.Second)
		leaf := &simLeaf{nth: 1, begins: begins, ends: begins.Add(time.Hour + c.w.life(n))}
		if n.leaf != nil {
			leaf.nth = n.leaf.nth + 1
		}
		n.leaf, n.before, n.request, n.row = leaf, n.leaf, request, 0
		c.w.expectsLocked(n)
	}
	return c.mint.certificate(csr.DNSNames[0], simSerial(n.number, n.leaf.nth), csr.RawSubjectPublicKeyInfo, n.leaf.begins, n.leaf.ends), nil
}

// RenewalInfo implements RenewalInformer.
func (c *simIssuer) RenewalInfo(ctx context.Context, id string) (RenewalInfo, error) {
	now, d := time.Now(), c.w.dice
	if err := c.node.wire.stand(ctx); err != nil {
		return RenewalInfo{}, err
	}
	switch {
	case !c.w.modern():
		return RenewalInfo{}, fmt.Errorf("simulated: a CA of the old kind: %w", ErrNoRenewalInfo)
	case c.w.outage(c.name, now):
		return RenewalInfo{}, errors.New("simulated: 503")
	case d.now("info", id) < 0.005:
		return RenewalInfo{}, errors.New("simulated: 500")
	}
	number, nth, ok := simID(id)
	if !ok || number >= len(c.w.names) {
		return RenewalInfo{}, fmt.Errorf("simulated: no certificate %q", id)
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	n := c.w.names[number]
	leaf := n.nth(nth)
	if leaf == nil {
		return RenewalInfo{}, fmt.Errorf("simulated: no certificate %q", id)
	}
	c.polls++
	if now.Before(leaf.next) && !c.node.stood(now) && !c.w.shaken(leaf.asked, now) {
		c.w.violated("asked about %s after %s, told to wait %s", n.name, now.Sub(leaf.asked), leaf.next.Sub(leaf.asked))
	}
	c.w.inform(n, leaf, now)
	return RenewalInfo{Window: leaf.window, NextCheck: leaf.next}, nil
}

// inform chooses what the CA says of a certificate.
func (w *simWorld) inform(n *simName, leaf *simLeaf, now time.Time) {
	life := leaf.life()
	middle := leaf.begins.Add(scale(life, 2.0/3))
	if life < shortLife {
		middle = leaf.begins.Add(life / 2)
	}
	window := Window{middle.Add(-life / 50), middle.Add(life / 50)}
	if now.Sub(leaf.begins) > life/4 && w.dice.fixed("jump", n.name, leaf.begins.String()) < 0.05 {
		window = Window{window.Start.Add(-life / 8), window.End.Add(-life / 8)}
	}
	if w.revoked(n, leaf, now) {
		window = Window{now.Add(-2 * time.Hour), now.Add(-time.Hour)}
	}
	if leaf.window != window {
		leaf.told = now
	}
	leaf.asked, leaf.next, leaf.window = now, now.Add(min(w.retry, max(life/20, 6*time.Hour))), window
}

// worst returns how many orders the busiest hour had, and how many an hour had on average.
func (c *simCA) worst(from, to time.Time) (worst int, mean float64) {
	first, last, all := int(from.Sub(c.w.begin)/time.Hour), int(to.Sub(c.w.begin)/time.Hour), 0
	for hour := first; hour < last; hour++ {
		worst = max(worst, c.hours[hour])
		all += c.hours[hour]
	}
	return worst, float64(all) / float64(max(last-first, 1))
}
