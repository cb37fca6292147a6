package certs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/certs/permission"
)

// ErrNotManaged is wrapped by Retry for names that no site wants a certificate for from us.
var ErrNotManaged = errors.New("certs: no site wants a certificate for the name from a CA")

// A Forgiver is an Issuer that remembers what its CA refused until later. It can forget that for some names, and, even without any, what was said of the CA as a whole: that it
// is out of order, or not to be used as configured. Limits of accounts, domains and addresses stay.
type Forgiver interface {
	Forgive(ctx context.Context, names []string) error
}

// Retried is what came of a Retry. The zero value: the name is tried now.
type Retried struct {
	Next      time.Time // not before then: Budget.Failures has no room for another attempt
	Limited   time.Time // not before then: the CAs for the name limit us
	Serves    time.Time // nothing is to be tried: until then a certificate serves
	Renews    time.Time // with Serves: when it will be renewed
	Abandoned string    // why the name was given up: it is looked at once more, and nothing is ordered while that is so
}

// Bounds of eachFailure.
const (
	failurePage      = 1000 // failures listed at a time
	failuresTogether = 16   // names looked at together
)

// Retry lets a host or wildcard that is held back be tried now: a person says that the reason is gone. What its CA said about this name alone, or of itself, is forgotten too;
// limits of accounts, domains and addresses stay, and so do our budgets. It does not wait for the result.
//
// Other processes of the fleet learn of it by the certificate, or by the next failure: it is this one that tries, whoever has the name's share of the work.
func (m *Manager) Retry(ctx context.Context, name string) (Retried, error) {
	r := m.rules.Load()
	t, ok := r.managed(name)
	if !ok || t.brief {
		return Retried{}, fmt.Errorf("%w: %s", ErrNotManaged, name)
	}
	done, err := m.retry(ctx, r, t)
	if second, ok := r.secondOf(t); ok && err == nil && m.failures.remembered(second.name) != nil {
		var also Retried
		if also, err = m.retry(ctx, r, second); also.Serves.IsZero() && !done.Serves.IsZero() {
			done = also // the second is what is tried
		}
	}
	return done, err
}

// RetryAll is Retry for every name with a stored failure, and for what waits for a failing CA. It lists, so it is for operators only. It returns how many names it found to be tried.
func (m *Manager) RetryAll(ctx context.Context) (int, error) {
	var found atomic.Int64
	if err := m.forgive(ctx, m.rules.Load().CAs); err != nil {
		return 0, err
	}
	m.queue.hasten("")
	err := m.eachFailure(ctx, func(r *rules, t target) error {
		done, err := m.retry(ctx, r, t)
		if err == nil && done.Serves.IsZero() && done.Abandoned == "" {
			found.Add(1)
		}
		return err
	})
	return int(found.Load()), err
}

// eachFailure lists the stored failures and calls f for each, a few at a time, until a page of them has had an error. Names that nobody wants any more are passed over.
func (m *Manager) eachFailure(ctx context.Context, f func(*rules, target) error) error {
	for after, more := "", true; more; {
		names, err := m.store.List(ctx, failureObject(""), after, failurePage)
		if err != nil {
			return fmt.Errorf("list failures: %w", err)
		}
		if more = len(names) == failurePage; len(names) > 0 {
			after = names[len(names)-1]
		}
		if err := m.eachOfPage(ctx, names, f); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) eachOfPage(ctx context.Context, objects []string, f func(*rules, target) error) error {
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		faults []error
		places = make(chan struct{}, failuresTogether)
		r      = m.rules.Load()
	)
	for _, object := range objects {
		name := nameOfFile(strings.TrimPrefix(object, failureObject("")))
		t, ok := r.managed(name)
		if !ok || t.brief || ctx.Err() != nil {
			continue
		}
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			if err := f(r, t); err != nil {
				mu.Lock()
				faults = append(faults, fmt.Errorf("%s: %w", name, err))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errors.Join(append(faults, ctx.Err())...)
}

// retry lifts what holds the certificate back and sets the next attempt going.
func (m *Manager) retry(ctx context.Context, r *rules, t target) (Retried, error) {
	now := time.Now()
	rec, err := m.failures.read(ctx, t.name)
	if err != nil {
		return Retried{}, err
	}
	if err := m.forgive(ctx, r.cas(t), subject(t.name)); err != nil {
		return Retried{}, err
	}
	if rec.backingOff(now) {
		again := *rec
		again.RetryAt, again.Paused = time.Time{}, false
		again.Next = latest(now, rec.room(r.Budget.Failures))
		if err := m.failures.rewrite(ctx, t.name, &again); err != nil {
			return Retried{}, err
		}
		m.log.Info("name is tried again by an operator's wish", zap.String("name", t.name), zap.Time("next_attempt", again.Next))
		if again.Next.After(now) {
			if m.planner.knows(t.name) {
				m.planner.plan(t.name, again.Next)
			}
			return Retried{Next: again.Next}, nil
		}
	}
	limited := m.queue.hasten(t.name)
	var done Retried
	if it, known := m.planner.get(t.name); known {
		done, err = m.lookNow(ctx, it)
	} else {
		done, err = m.tryNow(ctx, r, t)
	}
	if done == (Retried{}) {
		done.Limited = limited
	}
	return done, err
}

// forgive has the CAs forget what they refused.
func (m *Manager) forgive(ctx context.Context, cas []CA, names ...string) error {
	for _, ca := range cas {
		if f, ok := ca.Issuer.(Forgiver); ok {
			if err := f.Forgive(ctx, names); err != nil {
				return fmt.Errorf("forget what CA %s refused: %w", ca.Issuer.Name(), err)
			}
		}
	}
	return nil
}

// lookNow has the planner look at a name that it knows.
func (m *Manager) lookNow(ctx context.Context, it planItem) (Retried, error) {
	now, cert := time.Now(), m.cache.cert(it.name)
	if it.stale || !m.fresh(cert, now) {
		var err error
		if cert, _, err = m.fetch(ctx, it.name); err != nil {
			return Retried{}, err
		}
	}
	if m.fresh(cert, now) && m.unsaved.get(it.name) == nil {
		return m.needless(cert), nil
	}
	m.planner.insist(it.name)
	return Retried{Abandoned: it.gone.Why}, nil
}

// needless is the answer for a name that has what it needs.
func (m *Manager) needless(cert *certificate) Retried {
	return Retried{Serves: cert.until, Renews: m.renewAt(cert)}
}

// tryNow orders a certificate for a name that the planner does not know, if it needs one. Without a site that lists it, it still needs its permission.
func (m *Manager) tryNow(ctx context.Context, r *rules, t target) (Retried, error) {
	v, cert, err := m.lookAt(ctx, r, t, netip.Addr{})
	switch {
	case err != nil:
		return Retried{}, err
	case v == denied:
		return Retried{}, fmt.Errorf("%w: %s", permission.ErrDenied, subject(t.name))
	case v == loaded && m.fresh(cert, time.Now()):
		return m.needless(cert), nil
	}
	_, err = m.act(t, v, cert, nil)
	if _, parked := errors.AsType[*UnavailableError](err); parked {
		err = nil // it waits for its CA, whose next trial comes soon
	}
	return Retried{}, err
}

// hasten lets CAs that fail be tried at once, and takes the name's order, or all for the empty name, along. Those that limit us are left alone; if the name's order can go to no
// other, hasten returns when it can.
func (q *queue) hasten(name string) (limited time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ctx == nil || q.ctx.Err() != nil {
		return time.Time{}
	}
	now := time.Now()
	for _, o := range q.orders {
		if o.state != orderParked || name != "" && o.name != name {
			continue
		}
		for _, ca := range o.cas {
			if c := q.circuits[ca]; c != nil && c.open {
				c.hasten(now)
			}
		}
		if o.withheld == nil {
			o.after = time.Time{}
		}
	}
	q.resumeLocked()
	if o := q.orders[name]; o != nil && o.state == orderParked {
		limited = q.limitedLocked(o, now)
	}
	return limited
}

// limitedLocked returns when the first of the CAs for the order lets itself be asked again; zero if one does now.
func (q *queue) limitedLocked(o *order, now time.Time) (until time.Time) {
	for _, ca := range o.cas {
		c := q.circuits[ca]
		if c == nil || !c.open || !c.until.After(now) {
			return time.Time{}
		}
		if until.IsZero() || c.until.Before(until) {
			until = c.until
		}
	}
	return until
}

// nameOfFile is the reverse of fileName.
func nameOfFile(file string) string {
	if strings.HasPrefix(file, "_.") {
		return "*" + file[1:]
	}
	return file
}
