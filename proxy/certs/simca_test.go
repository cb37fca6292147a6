package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"
)

// simCA signs what it is asked to, when it feels like it. It has outages, limits, slow days, bad customers, answers that get lost, and renewal information that
// changes its mind. It begins as an old CA (no renewal information, predecessors mean nothing to it) and learns the new protocol on its upgrade.
type simCA struct {
	w    *simWorld
	name string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey

	mu     sync.Mutex           // guards what follows
	made   map[string][][]byte  // chains by CSR: who asks again for the same gets the same
	leaves map[string]*simLeaf  // by the id of RFC 9773
	newest map[string]*simLeaf  // by name
	epochs map[string]int       // orders by name and epoch of its lease
	open   map[string]*simNode  // orders under way
	failed map[string]time.Time // the last validation that failed
	orders []simOrder
	polls  int
}

// simLeaf is what the CA knows of a certificate.
type simLeaf struct {
	name        string
	begins, end time.Time
	asked, next time.Time // the last answer, and when it said to come again
	window      Window    // of the last answer
}

type simOrder struct {
	name    string
	at      time.Time
	renewal bool
	free    bool // invited by the CA's window
}

func newSimCA(w *simWorld, name string) *simCA {
	f := newFakeCA(w.t, name)
	return &simCA{w: w, name: name, cert: f.cert, key: f.key, made: map[string][][]byte{}, leaves: map[string]*simLeaf{}, newest: map[string]*simLeaf{}, epochs: map[string]int{}, open: map[string]*simNode{}, failed: map[string]time.Time{}}
}

// simIssuer is one process's connection to the CA.
type simIssuer struct {
	*simCA
	node *simNode
}

func (c *simIssuer) Name() string { return c.name }

// Issue implements Issuer.
func (c *simIssuer) Issue(ctx context.Context, r *Request) (*Issued, error) {
	name, d := r.Names[0], c.w.dice
	if err := c.node.wire.stand(ctx); err != nil {
		return nil, err
	}
	if err := c.refuse(ctx, name); err != nil {
		return nil, err
	}
	c.mu.Lock()
	chain := c.made[string(r.CSR)]
	c.mu.Unlock()
	if chain == nil {
		replaces := c.w.modern() && r.Predecessor != nil && r.PredecessorCA == c.name
		undo, err := r.Placing(ctx, replaces)
		if err != nil {
			return nil, err
		}
		if err := c.node.wire.stand(ctx); err != nil {
			undo()
			return nil, err
		}
		c.place(name, r, replaces)
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.open[name] == c.node {
				delete(c.open, name)
			}
		}()
	}
	pause := 2 * time.Second
	c.mu.Lock()
	first := c.newest[name] == nil
	c.mu.Unlock()
	if d.roll("slow", name) < 0.02 || first && c.w.index[name]%5 == 4 {
		pause = 20 * time.Minute // finalize takes its time
	}
	if !sleep(ctx, pause) {
		return nil, context.Cause(ctx)
	}
	if c.w.bad(name, time.Now()) {
		c.mu.Lock()
		c.failed[name] = time.Now()
		c.mu.Unlock()
		return nil, &fakeFailure{scope: ScopeName}
	}
	if chain == nil {
		var err error
		if chain, err = c.sign(r); err != nil {
			return nil, err
		}
	}
	if d.roll("lost", name) < 0.02 {
		return nil, errors.New("simulated: the answer got lost")
	}
	if err := c.node.wire.stand(ctx); err != nil {
		return nil, err
	}
	return &Issued{Chain: chain}, nil
}

// refuse is what the CA says before it does anything.
func (c *simIssuer) refuse(ctx context.Context, name string) error {
	now, d := time.Now(), c.w.dice
	switch {
	case c.w.outage(c.name, now) && d.roll("hang", name) < 0.1:
		<-ctx.Done()
		return context.Cause(ctx)
	case c.w.outage(c.name, now):
		return errors.New("simulated: 503")
	}
	switch x := d.roll("fault", name); {
	case x < 0.005:
		return errors.New("simulated: 500")
	case x < 0.010:
		return &fakeFailure{ScopeAccount, now.Add(20 * time.Minute)}
	case x < 0.012:
		return &fakeFailure{ScopeDomain, now.Add(2 * time.Hour)}
	case x < 0.014:
		return &fakeFailure{ScopeName, now.Add(time.Hour)}
	}
	return nil
}

// place notes an order, and looks whether there may be one.
func (c *simIssuer) place(name string, r *Request, replaces bool) {
	now := time.Now()
	_, fence, held := c.w.store.lease(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	order := simOrder{name: name, at: now, renewal: r.Predecessor != nil}
	if r.Predecessor != nil {
		if old, err := x509.ParseCertificate(r.Predecessor[0]); err == nil {
			leaf := c.leaves[renewalID(old)]
			order.free = replaces && leaf != nil && !leaf.asked.IsZero() && !now.Before(leaf.window.Start) && now.Before(leaf.window.End)
		}
	}
	c.orders = append(c.orders, order)
	epoch := fmt.Sprintf("%s %d", name, fence)
	if c.epochs[epoch]++; c.epochs[epoch] > 1 && !c.node.stood(now) {
		c.w.violated("%d orders for %s under one lease, fence %d", c.epochs[epoch], name, fence)
	}
	if !held && !c.node.stood(now) {
		c.w.violated("an order for %s without its lease", name)
	}
	if other := c.open[name]; other != nil && other != c.node && !other.stood(now) && !c.node.stood(now) {
		c.w.violated("two processes order for %s", name)
	}
	c.open[name] = c.node
	if at, ok := c.failed[name]; ok && now.Sub(at) < time.Minute {
		c.w.violated("an order for %s, %s after it failed", name, now.Sub(at))
	}
	today := 0
	for _, o := range slices.Backward(c.orders) {
		if now.Sub(o.at) > 24*time.Hour {
			break
		}
		if o.name == name {
			today++
		}
	}
	if today > 20 {
		c.w.violated("%d orders for %s in a day", today, name)
	}
	if why := c.needless(name, now); why != "" && !c.node.stood(now) {
		c.w.violated("an order for %s, whose certificate %s", name, why)
	}
	if why := c.w.unwanted(name, now); why != "" {
		c.w.violated("an order for %s, which is %s", name, why)
	}
}

// needless says why nobody needed to order for the name; empty if somebody did.
func (c *simCA) needless(name string, now time.Time) string {
	leaf := c.newest[name]
	if leaf == nil || c.w.revoked(leaf, now) {
		return ""
	}
	if age := now.Sub(leaf.begins); age < scale(leaf.end.Sub(leaf.begins), 0.25) {
		return fmt.Sprintf("is only %s old", age)
	}
	return ""
}

func (c *simIssuer) sign(r *Request) ([][]byte, error) {
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, err
	}
	name, now := r.Names[0], time.Now()
	template := &x509.Certificate{SerialNumber: serial, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(c.w.life(name)), DNSNames: csr.DNSNames}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, csr.PublicKey, c.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.newest[name] = &simLeaf{name: name, begins: leaf.NotBefore, end: leaf.NotAfter}
	c.leaves[renewalID(leaf)] = c.newest[name]
	c.w.issued(name, leaf.NotAfter)
	chain := [][]byte{der, c.cert.Raw}
	c.made[string(r.CSR)] = chain
	return chain, nil
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
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	leaf := c.leaves[id]
	if leaf == nil {
		c.w.violated("asked about a certificate that was never issued: %s", id)
		return RenewalInfo{}, errors.New("no such certificate")
	}
	c.polls++
	if now.Before(leaf.next) && !c.w.shaken(leaf.asked, now) {
		c.w.violated("asked about %s after %s, told to wait %s", leaf.name, now.Sub(leaf.asked), leaf.next.Sub(leaf.asked))
	}
	life := leaf.end.Sub(leaf.begins)
	middle := leaf.begins.Add(scale(life, 2.0/3))
	if life < shortLife {
		middle = leaf.begins.Add(life / 2)
	}
	w := Window{middle.Add(-life / 50), middle.Add(life / 50)}
	if d.fixed("jump", id) < 0.05 && now.Sub(leaf.begins) > life/4 {
		w = Window{w.Start.Add(-life / 8), w.End.Add(-life / 8)}
	}
	if c.w.revoked(leaf, now) {
		w = Window{now.Add(-2 * time.Hour), now.Add(-time.Hour)}
	}
	leaf.asked, leaf.next, leaf.window = now, now.Add(min(c.w.retry, max(life/20, 6*time.Hour))), w
	return RenewalInfo{Window: w, NextCheck: leaf.next}, nil
}

// busiest returns the most orders within such a time, of those that count against the budget.
func (c *simCA) busiest(per time.Duration) (most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var counted []time.Time
	for _, o := range c.orders {
		if !o.free {
			counted = append(counted, o.at)
		}
	}
	slices.SortFunc(counted, time.Time.Compare)
	first := 0
	for i, at := range counted {
		for at.Sub(counted[first]) >= per {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// hours returns how many orders the busiest hour had, and how many an hour had on average.
func (c *simCA) hours(begin, end time.Time) (worst int, mean float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	each, all := map[int]int{}, 0
	for _, o := range c.orders {
		if !o.at.Before(begin) && o.at.Before(end) {
			hour := int(o.at.Sub(begin) / time.Hour)
			each[hour]++
			worst = max(worst, each[hour])
			all++
		}
	}
	return worst, float64(all) / end.Sub(begin).Hours()
}
