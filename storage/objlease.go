package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

// LeaseTimes are the times of leases by compare-and-swap. The zero value means 30 s, 10 s and 1 s.
type LeaseTimes struct {
	// Lease is how long a holder may go on without having been able to renew. A dead holder's lease goes to somebody else after an eighth more.
	Lease time.Duration

	// Beat is how often it is renewed: a third of Lease.
	Beat time.Duration

	// Poll is how often one who waits looks, give or take a quarter.
	Poll time.Duration
}

func (t LeaseTimes) withDefaults() (LeaseTimes, error) {
	if t == (LeaseTimes{}) {
		t = LeaseTimes{Lease: 30 * time.Second, Beat: 10 * time.Second, Poll: time.Second}
	}
	if t.Beat <= 0 || t.Poll <= 0 || t.Lease < 2*t.Beat {
		return t, fmt.Errorf("times of leases %+v: the beat must be half of the lease at most, and none zero", t)
	}
	return t, nil
}

// leaseObjects is where leases are kept: a Store's objects, or a part of them.
type leaseObjects interface {
	// get returns errUnchanged for an object that is at version unless; an empty unless is none.
	get(ctx context.Context, name string, unless Version) ([]byte, Version, error)
	putIf(ctx context.Context, name string, data []byte, v Version) (Version, error)
}

// casLeases are leases by nothing but compare-and-swap, between any number of processes and hosts.
//
// One object stands for each lease that anybody ever had, see leaseRecord. Who wants the lease writes itself into it if it is absent or free; who has it
// rewrites it each Beat; who releases it marks it free. One who waits looks each Poll. If the object has been at one version for a Lease and an
// eighth, by the clock of the one who looks, its holder has stopped, since it takes itself for lost a Lease after it sent its last beat: the lease is
// taken over. It is taken over at once if the holder is known to have died on this host (see witness). No clock of another host is read, and clocks here count on whatever the date is set to.
//
// A holder whose process or machine pauses cannot know that it has lost until it runs again. What it writes must be guarded by Lease.Fence and PutIf.
type casLeases struct {
	objects leaseObjects
	times   LeaseTimes
	log     *zap.Logger
	holder  string   // of all leases of this process; no other has the same
	host    *witness // knows which processes of this host are dead; nil: none

	calls *openCalls     // those that wait for a lease
	tasks sync.WaitGroup // beats, and claims that are taken back
	turns Turns          // one caller of this process at a time has or wants a lease

	mu   sync.Mutex // guards what follows; never held while waiting
	held map[*casLease]struct{}
	seen map[string]sighting
}

// A sighting is a version of a lease that somebody else holds. It outlives the call that saw it, so that callers with little time find a dead holder too.
type sighting struct {
	version Version
	first   time.Time     // when it was first seen; with its monotonic clock
	valid   time.Duration // the holder's Lease
	fence   uint64
	witness string // see leaseRecord
}

// maxSightings bounds what is remembered. A forgotten one costs a longer wait.
const maxSightings = 4096

func newCASLeases(objects leaseObjects, times LeaseTimes, log *zap.Logger, w *witness) *casLeases {
	if log == nil {
		log = zap.NewNop()
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	return &casLeases{
		objects: objects, times: times, log: log, holder: fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()), host: w,
		calls: newOpenCalls(), held: make(map[*casLease]struct{}), seen: make(map[string]sighting),
	}
}

// Lease waits until the caller has the lease. A failure of the store ends the wait at once, or, if somebody else was seen to hold the lease, after a
// LeaseTimes.Lease of failures.
func (c *casLeases) Lease(ctx context.Context, name string) (Lease, error) {
	wait, end, err := c.calls.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("lease %s: %w", name, err)
	}
	defer end()
	if err := c.turns.Take(wait, name); err != nil {
		return nil, fmt.Errorf("wait for lease %s: %w", name, err)
	}
	l, err := c.acquire(wait, name)
	if err != nil {
		c.turns.Give(name)
		return nil, fmt.Errorf("lease %s: %w", name, err)
	}
	c.start(ctx, l)
	return l, nil
}

// acquire looks until the lease can be claimed, and claims it.
func (c *casLeases) acquire(ctx context.Context, name string) (*casLease, error) {
	var answered time.Time // when the store last did; zero until then
	for {
		version, fence, claimable, err := c.look(ctx, name)
		pause := c.untilNextLook(name)
		switch {
		case err == nil && claimable:
			l, err := c.claim(ctx, name, version, nextFence(fence))
			switch {
			case err == nil && time.Now().Before(l.validUntil):
				return l, nil
			case err == nil: // the answer took so long, or this process stood still, that somebody else may have it again
			case !errors.Is(err, ErrConflict):
				return nil, err
			}
			answered, pause = time.Now(), c.times.Poll/20 // see who has it
		case err == nil:
			answered = time.Now()
		case ctx.Err() != nil, answered.IsZero(), time.Since(answered) > c.times.Lease:
			return nil, err
		}
		if err := sleep(ctx, jitter(pause)); err != nil {
			return nil, err
		}
	}
}

// look reads who has the lease. It can be claimed at that version if it is absent (the empty version), free, left over from this process, or its holder has stopped or died.
func (c *casLeases) look(ctx context.Context, name string) (v Version, fence uint64, claimable bool, err error) {
	known := c.sighting(name)
	data, v, err := c.objects.get(ctx, name, known.version)
	if corrupt, ok := errors.AsType[*CorruptError](err); ok {
		data, v, err = nil, corrupt.Version, nil
	}
	switch {
	case errors.Is(err, ErrNotExist):
		return "", 0, true, nil
	case errors.Is(err, errUnchanged):
		v = known.version
	case err != nil:
		return "", 0, false, err
	}
	if v == known.version && v != "" {
		return v, known.fence, c.host.sawDie(known.witness) || time.Since(known.first) > known.valid+known.valid/8, nil
	}
	record, err := parseLeaseRecord(data)
	if err != nil { // whoever wrote it had a reason to: it passes like that of a dead holder
		c.log.Error("object of a lease is damaged, waiting until it has not changed for long enough", zap.String("lease", name), zap.Error(err))
		record = leaseRecord{State: leaseHeld}
	}
	if record.State == leaseFree || record.Holder == c.holder || c.host.sawDie(record.Witness) {
		return v, record.Fence, true, nil
	}
	c.see(name, sighting{version: v, first: time.Now(), valid: record.valid(c.times.Lease), fence: record.Fence, witness: record.Witness})
	return v, record.Fence, false, nil
}

// claim writes this process into the lease's object at version v.
func (c *casLeases) claim(ctx context.Context, name string, v Version, fence uint64) (*casLease, error) {
	l := &casLease{c: c, name: name, stopped: make(chan struct{})}
	l.record = leaseRecord{State: leaseHeld, Holder: c.holder, Witness: c.host.name(), Fence: fence, LeaseMS: c.times.Lease.Milliseconds()}
	l.validUntil = time.Now().Add(c.times.Lease)
	is, err := c.objects.putIf(ctx, name, l.record.encode(), v)
	if err == nil {
		c.forget(name, v)
		l.version = is
		return l, nil
	}
	if !errors.Is(err, ErrConflict) { // it may be ours, and we do not want it any more
		c.tasks.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.times.Beat)
			defer cancel()
			if err := l.free(ctx); err != nil {
				c.log.Debug("claim could not be taken back", zap.String("lease", name), zap.Error(err))
			}
		})
	}
	return nil, err
}

// close ends calls that wait, gives up what is held, and waits for all that runs.
func (c *casLeases) close(cause error) error {
	c.calls.close(cause) // from here on nothing is added to held
	c.mu.Lock()
	held := make([]*casLease, 0, len(c.held))
	for l := range c.held {
		held = append(held, l)
	}
	c.mu.Unlock()

	errs := make([]error, len(held))
	var wg sync.WaitGroup
	for i, l := range held {
		wg.Go(func() { errs[i] = l.end(context.Background(), ErrLeaseLost) })
	}
	wg.Wait()
	c.tasks.Wait()
	return errors.Join(errs...)
}
