package budget

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// Purses keep what the fleet does within its limits. Storage has what was taken by everybody; a process takes a block by compare-and-swap, spends it from
// memory, and gives back what is left when the slot ends. A block of a process that dies counts as spent, until its time has passed. While storage
// does not answer, what a process holds is all that it can spend.
type Purses struct {
	store storage.Store
	log   *zap.Logger
	wake  chan struct{} // has room for one: there is something to give back some day

	refusing func(*Error) // hears of each budget that storage has no room in; returns at once

	mu     sync.Mutex // guards purses and all that is in them; never held during I/O
	purses map[purseKey]*purse
}

type purseKey struct{ budget, account string }

// storeTimeout bounds one reading and writing of a ledger.
const storeTimeout = 10 * time.Second

// purse is what this process holds of one account. Purses that hold nothing and know nothing are dropped.
type purse struct {
	key    purseKey
	object string        // its ledger
	limit  Limit         // as of when something was taken last
	turn   chan struct{} // has room for one: who is in storage for it
	users  int           // who wait for the turn or have it

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

// New makes the purses of a process. They do nothing before the first Pay; GiveBack is to run beside it. Refusing hears of each budget that storage has no room in, and
// returns at once.
func New(store storage.Store, log *zap.Logger, refusing func(*Error)) *Purses {
	return &Purses{store: store, log: log, wake: make(chan struct{}, 1), refusing: refusing, purses: map[purseKey]*purse{}}
}

// Receipt is for one charge that was paid.
type Receipt struct {
	b      *Purses
	charge Charge
	end    time.Time
	kept   bool
}

// Refund gives back what was paid, for what certainly did not happen. It is called once at most.
func (r *Receipt) Refund() {
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

// Pay takes one from the budget. The error is an [*Error] if nothing is left, else that of storage or of ctx. By force it counts, but is not refused.
func (b *Purses) Pay(ctx context.Context, c Charge, force bool) (*Receipt, error) {
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
		if e, refused := errors.AsType[*Error](err); refused && fetched {
			b.refusing(e)
		}
		if r != nil || err != nil {
			return r, err
		}
	}
}

// spend takes one from what the process holds. It returns neither receipt nor error if storage is to be asked.
func (b *Purses) spend(p *purse, c Charge) (*Receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	p.turnOver(now)
	if p.limit != c.Limit { // what was taken under another one may be more than this one allows
		p.turnOver(p.end)
		p.limit = c.Limit
	}
	switch {
	case c.Renewal && p.kept > 0:
		p.kept--
		return &Receipt{b, c, p.end, true}, nil
	case p.fresh > 0:
		p.fresh--
		return &Receipt{b, c, p.end, false}, nil
	}
	if e := p.full(c, now); e != nil {
		return nil, e
	}
	return nil, nil
}

// Full returns the refusal of the budget that is remembered; nil if it may have room.
func (b *Purses) Full(c Charge, now time.Time) *Error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.purses[purseKey{c.Budget, c.Account}]
	if p == nil || p.fresh > 0 && now.Before(p.end) {
		return nil
	}
	return p.full(c, now)
}

func (p *purse) full(c Charge, now time.Time) *Error {
	if r := p.refused[c.class()]; r.limit == c.Limit && now.Before(r.until) {
		return &Error{c.Budget, c.Subject, c.Limit, r.next, r.until}
	}
	return nil
}

func (c Charge) class() int {
	if c.Renewal {
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
func (b *Purses) fetch(ctx context.Context, p *purse, c Charge, force bool) error {
	b.mu.Lock()
	back := p.back
	p.back = nil // whatever becomes of the write: what may have been given back must not be given back twice
	b.mu.Unlock()
	var got block
	err := b.change(ctx, c.Object, func(l *ledger) bool {
		got = c.take(l, back, force, time.Now())
		return got.size > 0 || len(back) > 0
	})
	if err != nil {
		return fmt.Errorf("take from the budget %s of %s: %w", c.Budget, c.Subject, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	p.turnOver(now)
	p.limit = c.Limit
	if got.size == 0 {
		until := now.Add(c.Limit.Slot()) // others may give something back
		if got.next.Before(until) {
			until = got.next
		}
		p.refused[c.class()] = refusal{c.Limit, until, got.next}
		b.wakeUp()
		return &Error{c.Budget, c.Subject, c.Limit, got.next, until}
	}
	p.refused[c.class()] = refusal{}
	if !p.end.Equal(got.end) {
		p.turnOver(p.end) // the limit was changed
	}
	if p.end = got.end; c.Renewal {
		p.kept += got.size
	} else {
		p.fresh += got.size
	}
	b.wakeUp()
	return nil
}

// purseLocked returns the purse of the account.
func (b *Purses) purseLocked(c Charge) *purse {
	key := purseKey{c.Budget, c.Account}
	p := b.purses[key]
	if p == nil {
		p = &purse{key: key, object: c.Object, limit: c.Limit, turn: make(chan struct{}, 1)}
		b.purses[key] = p
	}
	return p
}

func (b *Purses) wakeUp() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// GiveBack returns to storage what is left of slots that have ended, until ctx ends, and then all that is left.
func (b *Purses) GiveBack(ctx context.Context) {
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
func (b *Purses) tidy(ctx context.Context, all bool) (next time.Time) {
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
func (b *Purses) giveBackOf(ctx context.Context, p *purse) {
	p.turn <- struct{}{}
	b.mu.Lock()
	back, limit := p.back, p.limit
	p.back = nil
	b.mu.Unlock()
	err := b.change(ctx, p.object, func(l *ledger) bool {
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
