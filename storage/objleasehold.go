package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

// casLease is a Lease that one goroutine keeps by beats.
type casLease struct {
	c    *casLeases
	name string

	ctx    context.Context // the holder's work
	cancel context.CancelCauseFunc

	stop    context.CancelFunc // ends the beats, one under way too
	stopped chan struct{}      // closed when they have ended

	// These belong to claim, then to the beats until stopped is closed, then to end.
	record     leaseRecord
	version    Version   // of the lease's object as we last wrote it; empty: to be read
	validUntil time.Time // a Lease after the last beat that came through was sent

	once sync.Once
	err  error // of the release; written once
}

// start makes a claimed lease the caller's.
func (c *casLeases) start(ctx context.Context, l *casLease) {
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	beats, stop := context.WithCancel(context.Background()) // they go on after ctx, until the release
	l.stop = stop
	c.mu.Lock()
	c.held[l] = struct{}{}
	c.mu.Unlock()
	c.tasks.Go(func() {
		defer close(l.stopped)
		l.keep(beats)
	})
}

func (l *casLease) Context() context.Context { return l.ctx }
func (l *casLease) Fence() uint64            { return l.record.Fence }

// keep renews the lease until ctx ends or it is lost.
func (l *casLease) keep(ctx context.Context) {
	next := l.validUntil.Add(l.c.times.Beat - l.c.times.Lease)
	for {
		if next.After(l.validUntil) {
			next = l.validUntil
		}
		if sleep(ctx, time.Until(next)) != nil {
			return
		}
		if !time.Now().Before(l.validUntil) {
			l.lose("no beat came through in time")
			return
		}
		pause, err := l.beat(ctx)
		if errors.Is(err, ErrLeaseLost) {
			l.lose("somebody else has it")
			return
		}
		if err != nil && ctx.Err() == nil {
			l.c.log.Warn("lease could not be renewed, trying again", zap.String("lease", l.name), zap.Duration("left", time.Until(l.validUntil)), zap.Error(err))
		}
		next = time.Now().Add(pause)
	}
}

// beat renews once and returns how long to wait for the next.
func (l *casLease) beat(ctx context.Context) (pause time.Duration, err error) {
	ctx, cancel := context.WithDeadline(ctx, l.validUntil)
	defer cancel()
	times, sent := l.c.times, time.Now()
	if l.version != "" {
		record := l.record
		record.Beat++
		v, err := l.c.objects.putIf(ctx, l.name, record.encode(), l.version)
		if err == nil {
			l.record.Beat, l.version, l.validUntil = record.Beat, v, sent.Add(times.Lease)
			return times.Beat - time.Since(sent), nil
		}
		if !errors.Is(err, ErrConflict) {
			return jitter(times.Beat / 5), err
		}
	}
	if l.version, err = l.findOurs(ctx); err != nil {
		return jitter(times.Beat / 5), err
	}
	return times.Beat / 20, nil // a beat of ours came through whose answer did not: it counts from when it was sent, so beat again
}

// findOurs returns the version of the lease's object if it still says that l has it, or ErrLeaseLost.
func (l *casLease) findOurs(ctx context.Context) (Version, error) {
	data, v, err := l.c.objects.get(ctx, l.name, "")
	if _, damaged := errors.AsType[*CorruptError](err); damaged || errors.Is(err, ErrNotExist) {
		return "", ErrLeaseLost
	}
	if err != nil {
		return "", err
	}
	is, err := parseLeaseRecord(data)
	if err != nil || is.State != leaseHeld || is.Holder != l.record.Holder || is.Fence != l.record.Fence {
		return "", ErrLeaseLost
	}
	return v, nil
}

func (l *casLease) lose(why string) {
	l.cancel(ErrLeaseLost)
	l.c.log.Warn("lease lost, its work is told to stop", zap.String("lease", l.name), zap.Uint64("fence", l.record.Fence), zap.String("reason", why))
}

// Release implements Lease. It tries for a Beat at most; if the store cannot be reached, others get the lease after a LeaseTimes.Lease and an eighth.
func (l *casLease) Release(ctx context.Context) error { return l.end(ctx, context.Canceled) }

// end tells the holder's work to stop before anybody else can begin, and gives the lease up, even one that was lost: it may not have been taken yet.
func (l *casLease) end(ctx context.Context, cause error) error {
	l.once.Do(func() {
		l.cancel(cause)
		l.stop()
		<-l.stopped
		ctx, cancel := context.WithTimeout(ctx, l.c.times.Beat)
		defer cancel()
		if err := l.free(ctx); err != nil {
			l.err = fmt.Errorf("release lease %s: %w", l.name, err)
		}
		l.c.mu.Lock()
		delete(l.c.held, l)
		l.c.mu.Unlock()
		l.c.turns.Give(l.name)
	})
	return l.err
}

// free marks the lease free if it is still ours.
func (l *casLease) free(ctx context.Context) (err error) {
	record := l.record
	record.State = leaseFree
	for range 3 { // a beat that was given up may come through before it
		if l.version == "" {
			if l.version, err = l.findOurs(ctx); errors.Is(err, ErrLeaseLost) {
				return nil // somebody else has it, or had it, or we did not even get it
			} else if err != nil {
				return err
			}
		}
		if _, err = l.c.objects.putIf(ctx, l.name, record.encode(), l.version); !errors.Is(err, ErrConflict) {
			return err
		}
		l.version = ""
	}
	return err
}
