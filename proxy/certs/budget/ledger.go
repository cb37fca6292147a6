package budget

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"gatelodge/storage"
)

// slots is into how many slots the time of a limit is divided. What is taken in a slot is spent before it ends, or given back; and it counts
// for the time of the limit after the slot's end, and one slot more for clocks that differ and for requests on their way. So no time of the limit's
// length ever sees more than its count, and at most a twelfth of what would be possible is lost to that.
const slots = 24

// grant is what was taken in one slot, by all processes together.
type grant struct {
	End     int64 `json:"end"` // of the slot, Unix milliseconds
	New     int   `json:"new,omitempty"`
	Renewal int   `json:"renewal,omitempty"`
}

// ledger is one object in storage: what was taken, by account. It is changed by compare-and-swap. Fields of newer programs are lost when it is written.
type ledger struct {
	Accounts map[string][]grant `json:"accounts"`
}

// slotMin is the shortest slot: storage must have answered before it ends.
const slotMin = 5 * time.Second

// Slot is one of the parts into which the time of the limit is divided.
func (l Limit) Slot() time.Duration { return max(l.Per/slots, slotMin) }

// slotEnd is when the slot of the limit ends that now is in.
func (l Limit) slotEnd(now time.Time) time.Time {
	slot := l.Slot().Milliseconds()
	return time.UnixMilli((now.UnixMilli()/slot + 1) * slot)
}

// free is when what was taken in a slot with that end does not count any more.
func (l Limit) free(end int64) time.Time {
	return time.UnixMilli(end).Add(l.Per + l.Slot())
}

// used counts what was taken and still counts.
func (l Limit) used(grants []grant, now time.Time) (fresh, renewals int) {
	for _, g := range grants {
		if now.Before(l.free(g.End)) {
			fresh, renewals = fresh+g.New, renewals+g.Renewal
		}
	}
	return fresh, renewals
}

// room is what may still be taken for such an order: for a new name, what renewals have not taken of their reserve is left alone.
func (c Charge) room(grants []grant, now time.Time) int {
	fresh, renewals := c.Limit.used(grants, now)
	room := c.Limit.Count - fresh - renewals
	if !c.Renewal {
		room -= max(0, c.Reserve-renewals)
	}
	return max(room, 0)
}

// next is when there is room again, if nobody takes anything until then.
func (c Charge) next(grants []grant, now time.Time) time.Time {
	at := now
	for _, g := range slices.SortedFunc(slices.Values(grants), func(a, b grant) int { return int(a.End - b.End) }) {
		if c.room(grants, at) > 0 {
			break
		}
		at = latest(at, c.Limit.free(g.End))
	}
	if c.room(grants, at) == 0 { // a reserve that leaves nothing
		return now.Add(c.Limit.Per)
	}
	return at
}

// add enters what is taken in the slot, or given back if it is less than nothing.
func (l *ledger) add(account string, end int64, fresh, renewals int) {
	grants := l.Accounts[account]
	for i := range grants {
		if grants[i].End == end {
			grants[i].New, grants[i].Renewal = max(0, grants[i].New+fresh), max(0, grants[i].Renewal+renewals)
			return
		}
	}
	if fresh > 0 || renewals > 0 { // what is given back too late does not count any more
		l.Accounts[account] = append(grants, grant{end, fresh, renewals})
	}
}

// tidy drops what does not count any more, and what no clock can have written.
func (l *ledger) tidy(limit Limit, now time.Time) {
	for account, grants := range l.Accounts {
		grants = slices.DeleteFunc(grants, func(g grant) bool {
			return g.New+g.Renewal == 0 || !now.Before(limit.free(g.End)) || g.End > now.Add(limit.Per+limit.Slot()).UnixMilli()
		})
		if l.Accounts[account] = grants; len(grants) == 0 {
			delete(l.Accounts, account)
		}
	}
}

// Blocks that a process takes at a time: a part of what is left, so that the nodes of a fleet do not take it all from each other; one if that is little.
const (
	blockPart = 16
	blockMin  = 4
)

// block is what a process takes at once.
type block struct {
	size int
	end  time.Time // it is spent, or given back, before
	next time.Time // when there is room again, if size is zero
}

// take enters what is given back, and a block for such a charge if there is room; one by force.
func (c Charge) take(l *ledger, back []grant, force bool, now time.Time) block {
	for _, g := range back {
		l.add(c.Account, g.End, -g.New, -g.Renewal)
	}
	l.tidy(c.Limit, now)
	grants := l.Accounts[c.Account]
	room := c.room(grants, now)
	got := block{size: room / blockPart, end: c.Limit.slotEnd(now), next: c.next(grants, now)}
	if got.size < blockMin {
		got.size = min(room, 1)
	}
	if force {
		got.size = max(got.size, 1)
	}
	if c.Renewal {
		l.add(c.Account, got.end.UnixMilli(), 0, got.size)
	} else {
		l.add(c.Account, got.end.UnixMilli(), got.size, 0)
	}
	return got
}

// change reads a ledger, lets f change it and writes it. F is called again if another process was faster; it reports whether there is anything to write. An
// error that is no conflict leaves it unknown whether the change was written.
func (b *Purses) change(ctx context.Context, object string, f func(*ledger) bool) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for try := range ledgerTries {
		l, version, err := b.read(ctx, object)
		if err != nil {
			return err
		}
		if !f(l) {
			return nil
		}
		data, err := json.Marshal(l)
		if err != nil {
			return fmt.Errorf("encode %s: %w", object, err)
		}
		if _, err = b.store.PutIf(ctx, object, data, version); err == nil {
			return nil
		}
		if !errors.Is(err, storage.ErrConflict) {
			return fmt.Errorf("write %s: %w", object, err)
		}
		select {
		case <-time.After(rand.N(ledgerPause << min(try, 5))):
		case <-ctx.Done():
			return fmt.Errorf("write %s: %w", object, context.Cause(ctx))
		}
	}
	return fmt.Errorf("write %s: %w", object, storage.ErrConflict)
}

// How often a ledger is tried that other processes change at the same time, and the first pause between.
const (
	ledgerTries = 20
	ledgerPause = 20 * time.Millisecond
)

// read returns the ledger. A damaged one is put aside and begun anew: the CA's own limits still hold.
func (b *Purses) read(ctx context.Context, object string) (*ledger, storage.Version, error) {
	l, version, err := storage.LoadJSON[ledger](ctx, b.store, object, b.log)
	if err != nil && !errors.Is(err, storage.ErrNotExist) {
		return nil, "", fmt.Errorf("read %s: %w", object, err)
	}
	if l.Accounts == nil {
		l.Accounts = map[string][]grant{}
	}
	for _, grants := range l.Accounts { // nobody writes less than nothing, or what does not fit a sum
		for i := range grants {
			grants[i].New, grants[i].Renewal = min(max(grants[i].New, 0), math.MaxInt32), min(max(grants[i].Renewal, 0), math.MaxInt32)
		}
	}
	return &l, version, nil
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
