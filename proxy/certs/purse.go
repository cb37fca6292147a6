package certs

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// Blocks that a process takes at a time: a part of what is left, so that the nodes of a fleet do not take it all from each other; one if that is little.
const (
	blockPart = 16
	blockMin  = 4
)

// ledgerShards is how many ledgers there are for domains of a CA, and for tenants: accounts are small and short-lived, so objects of their own would be garbage.
const ledgerShards = 64

// budgets keep what the fleet orders within its limits. Storage has what was taken by everybody; a process takes a block by compare-and-swap, spends it from
// memory, and gives back what is left when the slot ends. A block of a process that dies counts as spent, until its time has passed. While storage
// does not answer, what a process holds is all that it can spend.
type budgets struct {
	store storage.Store
	log   *zap.Logger
	wake  chan struct{} // has room for one: there is something to give back some day

	refusing func(*BudgetError) // hears of each budget that storage has no room in

	mu     sync.Mutex // guards purses and all that is in them; never held during I/O
	purses map[purseKey]*purse
}

type purseKey struct{ budget, account string }

// purse is what this process holds of one account. Purses that hold nothing and know nothing are dropped.
type purse struct {
	key   purseKey
	limit Limit         // as of when something was taken last
	turn  chan struct{} // has room for one: who is in storage for it
	users int           // who wait for the turn or have it

	end   time.Time // of the slot that follows is from
	fresh int       // for any order
	kept  int       // for renewals

	back []grant // of earlier slots, to be given back with the next write

	refused [2]refusal // the last refusals, of new names and of renewals
}

// refusal is what we remember of a budget without room.
type refusal struct {
	limit Limit
	until time.Time // not looked at again before
	next  time.Time // when there should be room
}

func newBudgets(store storage.Store, log *zap.Logger) *budgets {
	return &budgets{store: store, log: log, wake: make(chan struct{}, 1), refusing: func(*BudgetError) {}, purses: map[purseKey]*purse{}}
}

// receipt is one order paid for.
type receipt struct {
	b      *budgets
	charge charge
	end    time.Time
	kept   bool
}

// refund gives back what was paid for an order that was not placed for certain.
func (r *receipt) refund() {
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	p := r.b.purseLocked(r.charge)
	switch now := time.Now(); {
	case !p.end.Equal(r.end) || !now.Before(p.end):
		g := grant{End: r.end.UnixMilli(), New: 1}
		if r.kept {
			g.New, g.Renewal = 0, 1
		}
		p.back = append(p.back, g)
	case r.kept:
		p.kept++
	default:
		p.fresh++
	}
	r.b.wakeUp()
}

// pay takes one order from the budget, or returns a BudgetError, or an error of storage. By force it counts, but is not refused.
func (b *budgets) pay(ctx context.Context, c charge, force bool) (*receipt, error) {
	b.mu.Lock()
	p := b.purseLocked(c)
	p.users++
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		p.users--
		b.mu.Unlock()
	}()
	for {
		if r, err := b.spend(p, c); r != nil || err != nil && !force {
			return r, err
		}
		select {
		case p.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		r, err := b.spend(p, c) // another order may have brought a block meanwhile
		fetched := r == nil && (err == nil || force)
		if fetched {
			err = b.fetch(ctx, p, c, force)
		}
		<-p.turn
		if e := asBudget(err); e != nil && fetched {
			b.refusing(e)
		}
		if r != nil || err != nil {
			return r, err
		}
	}
}

// spend takes one order from what the process holds. It returns neither receipt nor error if storage is to be asked.
func (b *budgets) spend(p *purse, c charge) (*receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	p.turnOver(now)
	switch {
	case c.renewal && p.kept > 0:
		p.kept--
		return &receipt{b, c, p.end, true}, nil
	case p.fresh > 0:
		p.fresh--
		return &receipt{b, c, p.end, false}, nil
	}
	if e := p.full(c, now); e != nil {
		return nil, e
	}
	return nil, nil
}

// full returns the refusal of the budget that is remembered.
func (b *budgets) full(c charge, now time.Time) *BudgetError {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.purses[purseKey{c.budget, c.account}]
	if p == nil || p.fresh > 0 && now.Before(p.end) {
		return nil
	}
	return p.full(c, now)
}

func (p *purse) full(c charge, now time.Time) *BudgetError {
	if r := p.refused[c.class()]; r.limit == c.limit && now.Before(r.until) {
		return &BudgetError{c.budget, c.subject, c.limit, r.next, r.until}
	}
	return nil
}

func (c charge) class() int {
	if c.renewal {
		return 1
	}
	return 0
}

// turnOver puts what is left of a slot that has ended aside.
func (p *purse) turnOver(now time.Time) {
	if now.Before(p.end) {
		return
	}
	if p.fresh+p.kept > 0 {
		p.back = append(p.back, grant{p.end.UnixMilli(), p.fresh, p.kept})
	}
	p.fresh, p.kept = 0, 0
}

// fetch takes a block from storage, or remembers that there is none. It has the purse's turn.
func (b *budgets) fetch(ctx context.Context, p *purse, c charge, force bool) error {
	b.mu.Lock()
	back := p.back
	p.back = nil // whatever becomes of the write: what may have been given back must not be given back twice
	b.mu.Unlock()
	var block int
	var end time.Time
	var next time.Time
	wrote := false
	err := b.change(ctx, c.object(), func(l *ledger) bool {
		now := time.Now()
		for _, g := range back {
			l.add(c.account, g.End, -g.New, -g.Renewal)
		}
		l.tidy(c.limit, now)
		room := c.room(l.Accounts[c.account], now)
		if block = room / blockPart; block < blockMin {
			block = min(room, 1)
		}
		if force {
			block = max(block, 1)
		}
		end, next = c.limit.slotEnd(now), c.next(l.Accounts[c.account], now)
		if block > 0 && c.renewal {
			l.add(c.account, end.UnixMilli(), 0, block)
		} else if block > 0 {
			l.add(c.account, end.UnixMilli(), block, 0)
		}
		wrote = block > 0 || len(back) > 0
		return wrote
	})
	if err != nil {
		return &storageError{fmt.Errorf("take from the budget %s of %s: %w", c.budget, c.subject, err)}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	p.turnOver(now)
	p.limit = c.limit
	if block == 0 {
		until := earliest(next, now.Add(c.limit.slot())) // others may give something back
		p.refused[c.class()] = refusal{c.limit, until, next}
		b.wakeUp()
		return &BudgetError{c.budget, c.subject, c.limit, next, until}
	}
	p.refused[c.class()] = refusal{}
	if !p.end.Equal(end) {
		p.turnOver(p.end) // the limit was changed
	}
	if p.end = end; c.renewal {
		p.kept += block
	} else {
		p.fresh += block
	}
	b.wakeUp()
	return nil
}

// purseLocked returns the purse of the account.
func (b *budgets) purseLocked(c charge) *purse {
	key := purseKey{c.budget, c.account}
	p := b.purses[key]
	if p == nil {
		p = &purse{key: key, limit: c.limit, turn: make(chan struct{}, 1)}
		b.purses[key] = p
	}
	return p
}

// object is where the ledger of the charge's account lies.
func (c charge) object() string { return ledgerObject(c.budget, c.account) }

func (b *budgets) wakeUp() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// giveBack returns what is left of slots that have ended, until ctx ends, and then all that is left.
func (b *budgets) giveBack(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
			defer cancel()
			b.tidy(last, true)
			return
		case <-b.wake:
		case <-timer.C:
		}
		if next := b.tidy(ctx, false); !next.IsZero() {
			timer.Reset(max(time.Until(next), time.Second))
		}
	}
}

// tidy gives back what is left and drops empty purses. It returns when there is something to do again; zero means never.
func (b *budgets) tidy(ctx context.Context, all bool) (next time.Time) {
	b.mu.Lock()
	now := time.Now()
	var due []*purse
	for key, p := range b.purses {
		if all {
			p.turnOver(p.end)
		}
		p.turnOver(now)
		until := latest(p.refused[0].until, p.refused[1].until)
		switch {
		case len(p.back) > 0 && p.users == 0:
			due = append(due, p)
			p.users++
		case len(p.back) > 0:
			next = now // whoever uses it takes that along
		case p.users == 0 && p.fresh+p.kept == 0 && !until.After(now):
			delete(b.purses, key)
			continue
		}
		at := p.end
		if p.fresh+p.kept == 0 {
			at = until
		}
		if at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	b.mu.Unlock()
	for _, p := range due {
		b.giveBackOf(ctx, p)
	}
	if len(due) > 0 && next.IsZero() {
		next = now.Add(time.Minute) // to drop those
	}
	return next
}

// giveBackOf returns what is left of a purse's earlier slots. If storage does not take it, it counts until its time has passed.
func (b *budgets) giveBackOf(ctx context.Context, p *purse) {
	p.turn <- struct{}{}
	b.mu.Lock()
	back, limit := p.back, p.limit
	p.back = nil
	b.mu.Unlock()
	err := b.change(ctx, ledgerObject(p.key.budget, p.key.account), func(l *ledger) bool {
		for _, g := range back {
			l.add(p.key.account, g.End, -g.New, -g.Renewal)
		}
		l.tidy(limit, time.Now())
		return len(back) > 0
	})
	<-p.turn
	if err != nil {
		b.log.Debug("what was left of a budget could not be given back", zap.String("budget", p.key.budget), zap.Error(err))
	}
	b.mu.Lock()
	p.users--
	b.mu.Unlock()
}
