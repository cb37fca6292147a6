package acmeclient

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// An order may be known to the CA alone: the process that placed it died before it could store it, or the answer was lost. CAs that keep a list of an account's orders
// (RFC 8555 §7.1.2.1; Boulder has none, and gives out such an order again when the names are ordered again) are asked for it then, so that it is continued instead of
// another one being placed.
const (
	strayTime    = 15 * time.Second // for one look at the list; then another order is placed
	strayAge     = 10 * time.Second // a list is used for so long at most
	strayShare   = 10               // and for so many times as long as it took to read: after an outage, thousands of names may be in doubt
	noListPause  = 24 * time.Hour   // until a CA without a list is asked for one again
	maxListPages = 200
	maxDoubts    = 4096
)

// Of a long list only the ends are read: orders stand there in the order of their time, in either direction.
const (
	listHead = 8
	listTail = 32
)

// errNoList is what a CA is for that keeps no list of orders.
var errNoList = errors.New("the CA keeps no list of the account's orders")

// strays are the orders that nobody remembers.
type strays struct {
	turn chan struct{} // holds one: who has what follows
	seen time.Time     // when the list was begun to be read
	good time.Duration // how long it is used for those that others left behind
	none time.Time     // when the CA was found to have none
	list []*order      // that were undecided then

	// mu guards what follows; never held during I/O.
	mu      sync.Mutex
	doubts  map[string]time.Time // by the order's object: when a newOrder was sent that had no answer
	settled map[string]bool      // objects that were looked for
}

func newStrays() strays {
	return strays{turn: make(chan struct{}, 1), doubts: map[string]time.Time{}, settled: map[string]bool{}}
}

// lostAnswer notes that there may be an order.
func (s *strays) lostAnswer(object string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.doubts) < maxDoubts {
		s.doubts[object] = now
	}
}

// doubt reports whether the attempt may have an order already, and since when if it was this process that placed it.
func (s *strays) doubt(a *attempt) (since time.Time, doubtful bool) {
	if a.shared {
		return time.Time{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	since, ours := s.doubts[a.object]
	return since, ours || a.again && !s.settled[a.object]
}

// settle ends the doubt about the object.
func (s *strays) settle(object string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.doubts, object)
	if len(s.settled) >= maxDoubts {
		clear(s.settled) // that costs a look at most
	}
	s.settled[object] = true
}

// findStray returns the order that an earlier attempt with the CSR placed without storing it, stored now; nil if there is none, as far as can be known. An error is the CA's
// that does not answer at all.
func (c *Client) findStray(ctx context.Context, d dialect, a *attempt) (*order, error) {
	since, doubtful := c.strays.doubt(a)
	if !doubtful {
		return nil, nil
	}
	o, err := c.takeStray(ctx, d, a, since)
	if err != nil && (ctx.Err() != nil || isDown(err)) {
		return nil, err
	}
	c.strays.settle(a.object)
	if err != nil && !errors.Is(err, errNoList) {
		c.log.Warn("the account's list of orders cannot be used; an order that was not stored is placed again", zap.Strings("names", a.names), zap.Error(err))
	}
	if o == nil {
		return nil, nil
	}
	c.log.Info("order found at the CA that was not stored", zap.Strings("names", a.names), zap.String("order", o.url), zap.String("status", o.status))
	a.resumed = true
	return o, c.storeOrder(ctx, d, a, o)
}

// takeStray takes the order for the attempt's names from a list that is newer than since, or than the attempt if that is zero: almost, see strayShare.
func (c *Client) takeStray(ctx context.Context, d dialect, a *attempt, since time.Time) (*order, error) {
	s := &c.strays
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if time.Since(s.none) < noListPause {
		return nil, errNoList
	}
	if since.IsZero() {
		since = a.began.Add(-s.good)
	}
	if !s.seen.After(since) {
		looking, cancel := context.WithTimeout(ctx, strayTime)
		defer cancel()
		began := time.Now()
		list, err := d.undecided(looking)
		if errors.Is(err, errNoList) {
			s.none = began
		}
		if err != nil {
			return nil, err
		}
		s.seen, s.list, s.good = began, list, min(strayShare*time.Since(began), strayAge)
	}
	for i, o := range slices.Backward(s.list) {
		if len(o.identifiers) > 0 && sameIdentifiers(o.identifiers, a.names) && (a.options.profile == "" || o.profile == a.options.profile) {
			s.list = slices.Delete(s.list, i, i+1)
			return o, nil
		}
	}
	return nil, nil
}

// isDown reports whether the CA fails, cannot be reached or has enough of us: then nothing can be ordered there either. If just the list takes too long, it can.
func isDown(err error) bool {
	p, ok := errors.AsType[*Problem](err)
	return ok && p.Op == opReadAccount && !errors.Is(err, context.DeadlineExceeded) && (p.Status == 0 || p.Status >= 500 || p.Status == http.StatusTooManyRequests)
}
