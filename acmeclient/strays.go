package acmeclient

import (
	"context"
	"errors"
	"fmt"
	"net"
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
	strayTime   = 5 * time.Second  // for one look at the list; what was read until then is used
	strayAge    = 10 * time.Second // a list is used for so long at most
	strayShare  = 10               // and for so many times as long as it took to read: after an outage, thousands of names may be in doubt
	listPause   = 10 * time.Minute // until a list that could not be used is asked for again
	noListPause = 24 * time.Hour   // the same of a CA that says that it has none
	maxDownLook = 3                // looks at a CA that fails; then an order is placed without, since perhaps only the list fails
	maxDoubts   = 4096
)

// errNoList is what a CA is for that keeps no list of orders.
var errNoList = errors.New("the CA keeps no list of the account's orders")

// strays are the orders that nobody remembers.
type strays struct {
	turn chan struct{} // holds one: who has the list
	list strayList

	// mu guards what follows; never held during I/O.
	mu     sync.Mutex
	doubts map[string]doubt // by the order's object
	until  time.Time        // when the list may be asked for again
	down   int              // looks in a row that found the CA failing
}

// strayList is what the CA listed as undecided, and nobody has taken since. One that was not read to its end has no time of that.
type strayList struct {
	began, ended time.Time
	orders       []*order
}

// doubt is about an order that may have been placed.
type doubt struct {
	began time.Time // when it was raised
	sent  time.Time // when newOrder was sent; zero: by another process, before we came
}

func newStrays() strays { return strays{turn: make(chan struct{}, 1), doubts: map[string]doubt{}} }

// raise notes that there may be an order.
func (s *strays) raise(object string, d doubt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.doubts) >= maxDoubts {
		for old, d := range s.doubts {
			if time.Since(d.began) >= maxOrderAge { // somebody else has settled it, or nobody wants the name any more
				delete(s.doubts, old)
			}
		}
	}
	if _, known := s.doubts[object]; len(s.doubts) < maxDoubts && (!known || !d.sent.IsZero()) {
		s.doubts[object] = d
	}
}

// settle ends the doubt about the object: there is an order that is stored. If one in doubt had to be placed without the list, the CA works, and its list does not.
func (s *strays) settle(object string, placed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, doubted := s.doubts[object]
	delete(s.doubts, object)
	if doubted && placed && s.down > 0 {
		s.until, s.down = time.Now().Add(listPause), 0
	}
}

func (s *strays) doubtOf(object string) (doubt, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.doubts[object]
	return d, ok
}

func (s *strays) paused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.until)
}

// looked notes how a look ended. It reports whether nothing is to be ordered now, since the CA fails.
func (s *strays) looked(err error) (stop bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && isDown(err) {
		s.down++
		return s.down%maxDownLook != 0
	}
	s.down = 0
	switch {
	case errors.Is(err, errNoList):
		s.until = time.Now().Add(noListPause)
	case err != nil:
		s.until = time.Now().Add(listPause)
	}
	return false
}

// findStray returns the order that an earlier attempt with the CSR placed without storing it, stored now; nil if there is none, as far as can be known. An error is the CA's
// that fails.
func (c *Client) findStray(ctx context.Context, d dialect, a *attempt) (*order, error) {
	if a.shared {
		return nil, nil
	}
	in, doubtful := c.strays.doubtOf(a.object)
	if !doubtful {
		return nil, nil
	}
	o, err := c.takeStray(ctx, d, a, in)
	if o == nil || err != nil {
		return nil, err
	}
	c.log.Info("order found at the CA that was not stored", zap.Strings("names", a.names), zap.String("order", o.url), zap.String("status", o.status))
	a.resumed = true
	return o, c.storeOrder(ctx, d, a, o)
}

// takeStray takes the order for the attempt's names from a list that is new enough.
func (c *Client) takeStray(ctx context.Context, d dialect, a *attempt, in doubt) (*order, error) {
	s := &c.strays
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the account's list of orders: %w", ctx.Err())
	}
	if !s.list.has(a, in) && !s.paused() {
		if err := c.readStrays(ctx, d); err != nil {
			return nil, err
		}
	}
	if time.Since(s.list.began) > strayTime+strayAge {
		s.list = strayList{} // its orders may be others by now
	}
	for i, o := range slices.Backward(s.list.orders) {
		if len(o.identifiers) > 0 && sameIdentifiers(o.identifiers, a.names) && (a.options.profile == "" || o.profile == a.options.profile) {
			s.list.orders = slices.Delete(s.list.orders, i, i+1)
			return o, nil
		}
	}
	return nil, nil
}

// has reports whether the list must have the order in doubt.
func (l *strayList) has(a *attempt, in doubt) bool {
	if time.Since(l.ended) > strayAge {
		return false
	}
	if in.sent.IsZero() { // almost: see strayShare
		return l.ended.Add(strayShare * l.ended.Sub(l.began)).After(a.began)
	}
	return l.began.After(in.sent)
}

// readStrays reads the list. An error means that nothing is to be ordered now.
func (c *Client) readStrays(ctx context.Context, d dialect) error {
	looking, cancel := context.WithTimeout(ctx, strayTime)
	defer cancel()
	began := time.Now()
	orders, err := d.undecided(looking)
	if ctx.Err() != nil {
		return err
	}
	if c.strays.looked(err) {
		return err
	}
	c.strays.list = strayList{began: began, orders: orders}
	if err == nil {
		c.strays.list.ended = time.Now()
	}
	if err != nil && !errors.Is(err, errNoList) {
		c.log.Warn("the account's list of orders cannot be used; orders that were not stored are placed again", zap.Error(err))
	}
	return nil
}

// isDown reports whether the CA fails, cannot be reached or has enough of us: then nothing can be ordered there either. If its list just takes too long, or makes no sense, it can.
func isDown(err error) bool {
	p, ok := errors.AsType[*Problem](err)
	_, odd := errors.AsType[*answerError](err)
	dial, dialing := errors.AsType[*net.OpError](err)
	switch {
	case !ok || odd:
		return false
	case p.Status != 0:
		return p.Status >= 500 && p.Status != http.StatusNotImplemented || p.Status == http.StatusTooManyRequests
	case dialing && dial.Op == "dial":
		return true
	}
	return !errors.Is(err, context.DeadlineExceeded)
}
