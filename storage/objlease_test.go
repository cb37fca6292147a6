package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// Leases by compare-and-swap in simulated time, over Memory. Each node has a line of its own to the objects, which the test can disturb.

// A line is what lies between a node and the objects.
type line struct {
	objects *Memory

	mu      sync.Mutex
	disturb func(ctx context.Context, op string, do func() error) error // nil: nothing does
	sent    map[string]int
}

func (l *line) set(disturb func(ctx context.Context, op string, do func() error) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.disturb = disturb
}

func (l *line) count(op string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent[op]
}

func (l *line) send(ctx context.Context, op string, do func() error) error {
	l.mu.Lock()
	disturb := l.disturb
	if l.sent == nil {
		l.sent = make(map[string]int)
	}
	l.sent[op]++
	l.mu.Unlock()
	if disturb == nil {
		return do()
	}
	return disturb(ctx, op, do)
}

// What do writes in get and putIf is read only if send returns no error: a request that was given up may still be under way.

func (l *line) get(ctx context.Context, name string, unless Version) ([]byte, Version, error) {
	var data []byte
	var v Version
	err := l.send(ctx, "get", func() (err error) {
		if data, v, err = l.objects.Get(context.WithoutCancel(ctx), name); err == nil && v == unless {
			return errUnchanged
		}
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return data, v, nil
}

func (l *line) putIf(ctx context.Context, name string, data []byte, want Version) (Version, error) {
	var v Version
	err := l.send(ctx, "put", func() (err error) {
		v, err = l.objects.PutIf(context.WithoutCancel(ctx), name, data, want)
		return err
	})
	if err != nil {
		return "", err
	}
	return v, nil
}

var errDown = errors.New("no answer")

func down(context.Context, string, func() error) error { return errDown }

// deaf lets requests through and loses the answers.
func deaf(_ context.Context, _ string, do func() error) error {
	do()
	return errDown
}

// hanging answers nothing until the caller gives up.
func hanging(ctx context.Context, _ string, _ func() error) error {
	<-ctx.Done()
	return ended(ctx)
}

// onPut disturbs writes only.
func onPut(disturb func(context.Context, string, func() error) error) func(context.Context, string, func() error) error {
	return func(ctx context.Context, op string, do func() error) error {
		if op != "put" {
			return do()
		}
		return disturb(ctx, op, do)
	}
}

// node is a process with production's times.
func node(t *testing.T, objects *Memory) (*casLeases, *line) {
	t.Helper()
	times, err := LeaseTimes{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	l := &line{objects: objects}
	return newCASLeases(l, times, zap.NewNop(), nil), l
}

func take(t *testing.T, c *casLeases) *casLease {
	t.Helper()
	l, err := c.Lease(t.Context(), "issue/a.example")
	if err != nil {
		t.Fatal(err)
	}
	return l.(*casLease)
}

func release(t *testing.T, l Lease) {
	t.Helper()
	if err := l.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

func closeNode(t *testing.T, c *casLeases) {
	t.Helper()
	if err := c.close(errS3Closed); err != nil {
		t.Error(err)
	}
}

// simulate runs a test in a bubble with two nodes on the same objects.
func simulate(t *testing.T, test func(t *testing.T, objects *Memory, a, b *casLeases, lineA, lineB *line)) {
	synctest.Test(t, func(t *testing.T) {
		objects := NewMemory()
		a, lineA := node(t, objects)
		b, lineB := node(t, objects)
		test(t, objects, a, b, lineA, lineB)
		lineA.set(nil)
		lineB.set(nil)
		closeNode(t, a)
		closeNode(t, b)
	})
}

func TestCASLease_IsKeptByBeatsForAsLongAsItsHolderLives(t *testing.T) {
	simulate(t, func(t *testing.T, _ *Memory, a, b *casLeases, lineA, lineB *line) {
		held := take(t, a)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := b.Lease(ctx, "issue/a.example"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the other node after an hour: %v", err)
		}
		if held.Context().Err() != nil {
			t.Errorf("the holder's context: %v", context.Cause(held.Context()))
		}
		if puts := lineA.count("put"); puts < 355 || puts > 362 {
			t.Errorf("%d writes in an hour, want one each 10 s", puts)
		}
		if gets := lineB.count("get"); gets < 3000 || gets > 4500 {
			t.Errorf("%d reads of the one who waits in an hour, want about one a second", gets)
		}
		release(t, held)
	})
}

func TestCASLease_PassesWithinTheNextLookAfterARelease(t *testing.T) {
	simulate(t, func(t *testing.T, _ *Memory, a, b *casLeases, lineA, _ *line) {
		held := take(t, a)
		if lineA.count("get") != 1 || lineA.count("put") != 1 {
			t.Errorf("requests for a lease: %v", lineA.sent)
		}
		go func() {
			time.Sleep(5 * time.Second)
			release(t, held)
			release(t, held)
		}()
		start := time.Now()
		next := take(t, b)
		if waited := time.Since(start); waited < 5*time.Second || waited > 6250*time.Millisecond+time.Millisecond {
			t.Errorf("got it after %v", waited)
		}
		if next.Fence() <= held.Fence() {
			t.Errorf("fence %d after %d", next.Fence(), held.Fence())
		}
		if cause := context.Cause(held.Context()); cause != context.Canceled {
			t.Errorf("cause after the release: %v", cause)
		}
		release(t, next)
		if lineA.count("put") != 2 {
			t.Errorf("requests of the first holder: %v, want 2 writes", lineA.sent)
		}
	})
}

func TestCASLease_OfAHolderThatDiedIsTakenOverNoSoonerThanItsLease(t *testing.T) {
	simulate(t, func(t *testing.T, _ *Memory, a, b *casLeases, lineA, _ *line) {
		held := take(t, a)
		time.Sleep(65 * time.Second) // the last beat is 5 s ago
		lineA.set(hanging)           // whose process is killed sends nothing more; its context is not there to be cancelled
		start := time.Now()
		last := start.Add(25 * time.Second)
		next := take(t, b)
		if took := time.Now(); took.Before(last) {
			t.Errorf("taken over %v before the holder's lease ended", last.Sub(took))
		}
		// 30 s and an eighth from its first look, and the next look
		if waited := time.Since(start); waited < 33*time.Second || waited > 36*time.Second {
			t.Errorf("taken over after %v", waited)
		}
		if next.Fence() <= held.Fence() {
			t.Errorf("fence %d after %d", next.Fence(), held.Fence())
		}
		if !errors.Is(context.Cause(held.Context()), ErrLeaseLost) {
			t.Errorf("the old holder's context: %v", context.Cause(held.Context()))
		}
		release(t, next)
	})
}

func TestCASLease_IsFoundDeadByCallersWhoseTimeIsShorterThanALease(t *testing.T) {
	simulate(t, func(t *testing.T, _ *Memory, a, b *casLeases, lineA, _ *line) {
		take(t, a)
		lineA.set(hanging)
		start := time.Now()
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			l, err := b.Lease(ctx, "issue/a.example")
			cancel()
			if err == nil {
				release(t, l)
				break
			}
			if time.Since(start) > 45*time.Second {
				t.Fatalf("not found dead after %v: %v", time.Since(start), err)
			}
		}
	})
}

func TestCASLease_IsLostALeaseAfterTheLastBeatWhenTheStoreIsAway(t *testing.T) {
	for name, outage := range map[string]func(context.Context, string, func() error) error{"refusing": down, "hanging": hanging} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T, _ *Memory, a, _ *casLeases, lineA, _ *line) {
				held := take(t, a)
				time.Sleep(11 * time.Second) // one beat, at 10 s
				lineA.set(outage)
				start := time.Now()
				<-held.Context().Done()
				if lasted := time.Since(start); lasted != 29*time.Second {
					t.Errorf("lost %v after the store went away, want 29 s: a lease after the beat", lasted)
				}
				if !errors.Is(context.Cause(held.Context()), ErrLeaseLost) {
					t.Errorf("cause: %v", context.Cause(held.Context()))
				}
				if err := held.Release(t.Context()); name == "refusing" && err == nil {
					t.Error("a release that nobody heard returned nil")
				}
			})
		})
	}
}

func TestCASLease_SurvivesAnOutageShorterThanItself(t *testing.T) {
	simulate(t, func(t *testing.T, _ *Memory, a, b *casLeases, lineA, lineB *line) {
		held := take(t, a)
		waiting := make(chan struct{})
		go func() {
			defer close(waiting)
			l, err := b.Lease(t.Context(), "issue/a.example")
			if err != nil {
				t.Errorf("a wait that had begun ended with the outage: %v", err)
				return
			}
			release(t, l)
		}()
		synctest.Wait()
		for range 20 {
			lineA.set(down)
			lineB.set(down)
			time.Sleep(15 * time.Second)
			lineA.set(nil)
			lineB.set(nil)
			time.Sleep(10 * time.Second)
		}
		if held.Context().Err() != nil {
			t.Errorf("context: %v", context.Cause(held.Context()))
		}
		release(t, held)
		<-waiting
	})
}

func TestCASLease_KnowsItsOwnBeatWhoseAnswerWasLost(t *testing.T) {
	simulate(t, func(t *testing.T, _ *Memory, a, _ *casLeases, lineA, _ *line) {
		held := take(t, a)
		for range 10 {
			lineA.set(onPut(deaf))
			time.Sleep(14 * time.Second)
			lineA.set(nil)
			time.Sleep(10 * time.Second)
		}
		lineA.set(onPut(deaf))
		time.Sleep(11 * time.Second)
		lineA.set(nil)
		if held.Context().Err() != nil {
			t.Errorf("context: %v", context.Cause(held.Context()))
		}
		release(t, held) // at a version that it does not know
		start := time.Now()
		release(t, take(t, a))
		if waited := time.Since(start); waited > 0 {
			t.Errorf("the released lease was had after %v", waited)
		}
	})
}

func TestCASLease_ClaimWhoseAnswerWasLostStandsInNobodysWay(t *testing.T) {
	simulate(t, func(t *testing.T, _ *Memory, a, b *casLeases, lineA, _ *line) {
		first := true
		lineA.set(onPut(func(_ context.Context, _ string, do func() error) error {
			err := do()
			if first {
				first, err = false, errDown
			}
			return err
		}))
		if _, err := a.Lease(t.Context(), "issue/a.example"); !errors.Is(err, errDown) {
			t.Fatalf("claim without an answer: %v", err)
		}
		synctest.Wait()
		start := time.Now()
		release(t, take(t, b))
		if waited := time.Since(start); waited > 2*time.Second {
			t.Errorf("the other node waited %v", waited)
		}
	})
}

func TestCASLease_LeftOverFromThisProcessIsClaimedAtOnce(t *testing.T) {
	simulate(t, func(t *testing.T, _ *Memory, a, _ *casLeases, lineA, _ *line) {
		held := take(t, a)
		lineA.set(down)
		if err := held.Release(t.Context()); !errors.Is(err, errDown) {
			t.Errorf("release: %v", err)
		}
		lineA.set(nil)
		start := time.Now()
		again := take(t, a)
		if waited := time.Since(start); waited > 0 || again.Fence() <= held.Fence() {
			t.Errorf("had after %v, fence %d after %d", waited, again.Fence(), held.Fence())
		}
		release(t, again)
	})
}

// A process that is stopped (SIGSTOP, a machine's pause) sends its beats late and notices late; here its line is what stops.
func TestCASLease_PausedHolderDoesNotTakeBackWhatIsHeldByAnother(t *testing.T) {
	simulate(t, func(t *testing.T, objects *Memory, a, b *casLeases, lineA, _ *line) {
		held := take(t, a)
		resume := make(chan struct{})
		lineA.set(func(_ context.Context, _ string, do func() error) error {
			<-resume
			return do()
		})
		next := take(t, b)
		close(resume)
		<-held.Context().Done()
		if !errors.Is(context.Cause(held.Context()), ErrLeaseLost) {
			t.Errorf("cause: %v", context.Cause(held.Context()))
		}
		release(t, held) // does nothing to its successor
		time.Sleep(time.Minute)
		if next.Context().Err() != nil {
			t.Errorf("the successor lost it: %v", context.Cause(next.Context()))
		}
		record := recordIn(t, objects)
		if record.Holder != b.holder || record.State != leaseHeld {
			t.Errorf("the object says %+v", record)
		}
		release(t, next)
	})
}

func recordIn(t *testing.T, objects *Memory) leaseRecord {
	t.Helper()
	data, _, err := objects.Get(t.Context(), "issue/a.example")
	if err != nil {
		t.Fatal(err)
	}
	record, err := parseLeaseRecord(data)
	if err != nil {
		t.Fatal(err)
	}
	return record
}

func TestCASLease_FencesGoUpWhateverTheClocksSay(t *testing.T) {
	simulate(t, func(t *testing.T, objects *Memory, a, _ *casLeases, _, _ *line) {
		ahead := uint64(time.Now().Add(24 * time.Hour).UnixMicro()) // of a node whose clock is a day fast
		record := leaseRecord{State: leaseFree, Holder: "fast/1/x", Fence: ahead, LeaseMS: 30000}
		if _, err := objects.Put(t.Context(), "issue/a.example", record.encode()); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			l := take(t, a)
			if want := ahead + uint64(i) + 1; l.Fence() != want {
				t.Errorf("fence %d, want %d", l.Fence(), want)
			}
			release(t, l)
		}
		if err := objects.Delete(t.Context(), "issue/a.example"); err != nil { // swept
			t.Fatal(err)
		}
		l := take(t, a)
		if want := uint64(time.Now().UnixMicro()); l.Fence() != want {
			t.Errorf("fence %d after the object was swept, want the clock's %d", l.Fence(), want)
		}
		release(t, l)
	})
}

func TestCASLease_DamagedRecordsPassLikeThoseOfDeadHolders(t *testing.T) {
	for _, damage := range []string{"", "{", `{"state":"held"}`, `{"state":"gone","holder":"x","fence":1}`, `{"state":"held","holder":"x","fence":18446744073709551615}`} {
		t.Run(fmt.Sprintf("%q", damage), func(t *testing.T) {
			simulate(t, func(t *testing.T, objects *Memory, a, _ *casLeases, _, _ *line) {
				if _, err := objects.Put(t.Context(), "issue/a.example", []byte(damage)); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				l := take(t, a)
				if waited := time.Since(start); waited < 30*time.Second || waited > 36*time.Second {
					t.Errorf("had after %v", waited)
				}
				release(t, l)
			})
		})
	}
}

func TestCASLease_ForeignRecordCannotMakeOthersWaitForEver(t *testing.T) {
	simulate(t, func(t *testing.T, objects *Memory, a, _ *casLeases, _, _ *line) {
		record := leaseRecord{State: leaseHeld, Holder: "x", Fence: 1, LeaseMS: 1 << 60}
		if _, err := objects.Put(t.Context(), "issue/a.example", record.encode()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		l := take(t, a)
		if waited := time.Since(start); waited > 70*time.Minute {
			t.Errorf("had after %v", waited)
		}
		release(t, l)
	})
}

func TestCASLease_CloseGivesUpWhatIsHeldAndEndsWaits(t *testing.T) {
	simulate(t, func(t *testing.T, _ *Memory, a, b *casLeases, _, _ *line) {
		held := take(t, a)
		waiting := make(chan error)
		go func() {
			_, err := b.Lease(t.Context(), "issue/a.example")
			waiting <- err
		}()
		synctest.Wait()
		closeNode(t, b)
		if err := <-waiting; !errors.Is(err, errS3Closed) {
			t.Errorf("a wait that Close ended: %v", err)
		}
		closeNode(t, a)
		if !errors.Is(context.Cause(held.Context()), ErrLeaseLost) {
			t.Errorf("a lease that Close gave up: %v", context.Cause(held.Context()))
		}
		release(t, held)
		if _, err := a.Lease(t.Context(), "issue/a.example"); !errors.Is(err, errS3Closed) {
			t.Errorf("lease after Close: %v", err)
		}
	})
}

func TestCASLease_FailsAtOnceWhenTheStoreIsAway(t *testing.T) {
	simulate(t, func(t *testing.T, _ *Memory, a, _ *casLeases, lineA, _ *line) {
		lineA.set(down)
		start := time.Now()
		if _, err := a.Lease(t.Context(), "issue/a.example"); !errors.Is(err, errDown) || time.Since(start) > 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// weather disturbs a line at random: slow, refused, applied without an answer, stopped for longer than a lease. A caller that gives up goes, but what it
// has sent arrives.
func weather(random *rand.Rand) func(context.Context, string, func() error) error {
	var mu sync.Mutex // guards random
	return func(ctx context.Context, _ string, do func() error) error {
		mu.Lock()
		kind, there, back := random.IntN(20), randomPause(random), randomPause(random)
		mu.Unlock()
		answer := make(chan error, 1)
		go func() {
			time.Sleep(there)
			if kind == 0 {
				answer <- errDown
				return
			}
			err := do()
			time.Sleep(back)
			if kind < 3 {
				err = errDown
			}
			answer <- err
		}()
		select {
		case err := <-answer:
			return err
		case <-ctx.Done():
			return ended(ctx)
		}
	}
}

func randomPause(random *rand.Rand) time.Duration {
	if random.IntN(30) == 0 {
		return time.Duration(random.Int64N(int64(2 * time.Minute)))
	}
	return time.Duration(random.Int64N(int64(3 * time.Second)))
}

// Whatever the lines do, no two contexts of holders live at the same time, and fences go up. Processes that pause themselves are storehammer's subject.
func TestCASLease_ExcludesInAnyWeather(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { surviveWeather(t, seed) })
		})
	}
}

func surviveWeather(t *testing.T, seed uint64) {
	objects := NewMemory()
	var mu sync.Mutex
	var current *casLease
	var sections, lost int
	var lastFence uint64
	var work, nodes sync.WaitGroup
	for n := range uint64(5) {
		random := rand.New(rand.NewPCG(seed, n))
		c, l := node(t, objects)
		l.set(weather(rand.New(rand.NewPCG(seed, 100+n))))
		work.Go(func() {
			for until := time.Now().Add(3 * time.Hour); time.Now().Before(until); {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.Int64N(int64(3*time.Minute))))
				held, err := c.Lease(ctx, "issue/a.example")
				if err != nil {
					cancel()
					time.Sleep(time.Second)
					continue
				}
				lease := held.(*casLease)
				mu.Lock()
				if current != nil && current.ctx.Err() == nil {
					t.Errorf("fence %d is held while %d is", lease.Fence(), current.Fence())
				}
				if lease.Fence() <= lastFence {
					t.Errorf("fence %d after %d", lease.Fence(), lastFence)
				}
				current, lastFence = lease, lease.Fence()
				sections++
				mu.Unlock()
				sleep(lease.Context(), time.Duration(random.Int64N(int64(time.Minute))))
				if errors.Is(context.Cause(lease.Context()), ErrLeaseLost) {
					mu.Lock()
					lost++
					mu.Unlock()
				}
				lease.Release(t.Context())
				cancel()
			}
		})
		nodes.Go(func() {
			work.Wait()
			c.close(errS3Closed)
		})
	}
	nodes.Wait()
	time.Sleep(5 * time.Minute) // what was given up arrives
	if sections < 50 {
		t.Errorf("%d sections in three hours", sections)
	}
	t.Logf("%d sections, %d leases lost", sections, lost)
}
