package storage

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"
)

// maxLater bounds the copies that wait to be written, 8 MB or so. What comes beyond is copied when it is read again.
const maxLater = 1024

// laterCopy is a copy to be written in the background, unless the name's copy has changed by then.
type laterCopy struct {
	name string
	n    *copyName // the entry counts as a user
	seen int
	c    *copied
}

// later queues a copy. n is locked. The goroutine that writes lives only while there is work; Close waits for it.
func (l *LocalCopy) later(name string, n *copyName, c *copied) {
	kept := *c
	kept.data = slices.Clone(c.data) // the caller of Get owns its bytes
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.queue) >= maxLater {
		return
	}
	n.users++
	n.queued = c.version
	l.queue = append(l.queue, laterCopy{name, n, n.change(), &kept})
	l.workLocked()
}

// workLocked makes somebody work on the queue.
func (l *LocalCopy) workLocked() {
	if !l.busy && !l.closed {
		l.busy = true
		l.work.Go(l.background)
	}
}

// sweepLaterLocked sweeps once after the start, once a day, and when there are too many copies.
func (l *LocalCopy) sweepLaterLocked() {
	if l.sweepDueLocked() {
		l.workLocked()
	}
}

func (l *LocalCopy) sweepDueLocked() bool {
	return !l.closed && (l.swept.IsZero() || time.Since(l.swept) > 24*time.Hour || l.count > l.cfg.MaxObjects)
}

// background writes what is queued, and sweeps if it is time. What is queued when Close comes is written still: it is little.
func (l *LocalCopy) background() {
	for {
		l.mu.Lock()
		switch {
		case len(l.queue) > 0:
			next := l.queue[0]
			l.queue = l.queue[1:]
			l.mu.Unlock()
			l.writeLater(next)
		case l.sweepDueLocked():
			l.mu.Unlock()
			l.sweep()
		default:
			l.busy = false
			l.mu.Unlock()
			return
		}
	}
}

func (l *LocalCopy) writeLater(next laterCopy) {
	defer l.leave(next.name, next.n)
	next.n.lock()
	defer next.n.unlock()
	if next.n.queued == next.c.version {
		next.n.queued = ""
	}
	if next.n.now() != next.seen {
		return
	}
	fresh := l.copyOf(l.life, next.name) == nil
	if err := l.writeCopy(l.life, next.name, next.c); err != nil {
		l.trouble("local copy could not be written", next.name, err)
	} else if fresh {
		l.counted(1)
	}
}

// agedCopy is a copy by its age.
type agedCopy struct {
	name string
	seen time.Time
}

// sweep removes copies that are of no use and, if there are too many, those confirmed longest ago until a tenth of the room is free.
func (l *LocalCopy) sweep() {
	names, good, err := l.survey(l.life)
	if err != nil && l.life.Err() == nil {
		l.trouble("local copies cannot be listed", "", err)
	}
	slices.SortFunc(good, func(a, b agedCopy) int { return a.seen.Compare(b.seen) })
	removed := 0
	if over := len(good) - l.cfg.MaxObjects; over > 0 {
		for _, a := range good[:min(over+l.cfg.MaxObjects/10, len(good))] {
			l.forget(a)
			removed++
		}
	}
	l.mu.Lock()
	l.count, l.swept = len(good)-removed, time.Now()
	l.mu.Unlock()
	if removed += names - len(good); removed > 0 {
		l.log.Info("local copies swept", zap.Int("removed", removed), zap.Int("left", names-removed))
	}
}

// survey returns how many copies there were and which are good, and removes the others.
func (l *LocalCopy) survey(ctx context.Context) (names int, good []agedCopy, err error) {
	for _, prefix := range l.cfg.Prefixes {
		err := eachName(ctx, l.local, prefix, func(name string) {
			names++
			c, err := l.readCopy(ctx, name)
			switch {
			case c != nil:
				good = append(good, agedCopy{name, c.seen})
			case err == nil:
				l.forget(agedCopy{name: name})
			default:
				good = append(good, agedCopy{name, time.Now()}) // we do not know
			}
		})
		if err != nil {
			return names, good, err
		}
	}
	return names, good, nil
}

// forget removes a copy unless it was made or confirmed meanwhile.
func (l *LocalCopy) forget(a agedCopy) {
	n := l.enter(a.name)
	defer l.leave(a.name, n)
	n.lock()
	defer n.unlock()
	if c := l.copyOf(l.life, a.name); c == nil || !c.seen.After(a.seen) {
		l.mustDelete(l.life, n, a.name)
	}
}
