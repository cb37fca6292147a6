package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"go.uber.org/zap"
)

const (
	listEvery   = time.Minute      // a process that serves reads the list so often
	listGrace   = 90 * time.Second // until every one has seen it
	revokeFirst = 5 * time.Minute  // between attempts, doubled each time
	revokeLast  = time.Hour
)

// resumeRevocations reads the list once after the start, and goes on with what others began.
func (m *Manager) resumeRevocations(ctx context.Context) {
	for m.readRevocations(ctx) != nil {
		if !sleep(ctx, listEvery) {
			return
		}
	}
}

func (m *Manager) readRevocations(ctx context.Context) error {
	err := m.revocations.read(ctx)
	if err != nil && ctx.Err() == nil {
		m.log.Warn("the list of revocations cannot be read, trying again in a minute", zap.Error(err))
	}
	m.obey()
	for leaf, r := range *m.revocations.known.Load() {
		if r.Done.IsZero() {
			m.carryOut(leaf)
		}
	}
	return err
}

// heedRevocations is called by each handshake with the time. While handshakes come, the list is read once a minute, and none of them waits. The first one
// after a pause waits for it, so that an idle process, which reads nothing, serves nothing that was revoked meanwhile; if storage does not answer, not for long.
func (m *Manager) heedRevocations(hello *tls.ClientHelloInfo, now time.Time) {
	age := now.Sub(time.Unix(0, m.revocations.readAt.Load()))
	if 0 <= age && age < listEvery { // a clock that was set back tells nothing
		return
	}
	read := m.rereadRevocations()
	if age < 2*listEvery {
		return
	}
	ctx := hello.Context()
	if ctx == nil { // a hello made by hand
		if ctx = m.life(); ctx == nil {
			return
		}
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	select {
	case <-read:
	case <-ctx.Done():
	}
}

// rereadRevocations reads the list in the background. The channel is closed when that, or what somebody else began, has ended.
func (m *Manager) rereadRevocations() <-chan struct{} {
	l := m.revocations
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reading != nil {
		return l.reading
	}
	read := make(chan struct{})
	if !m.goWork(func(ctx context.Context) {
		_ = m.readRevocations(ctx) // it told the log
		l.mu.Lock()
		defer l.mu.Unlock()
		l.readAt.Store(time.Now().UnixNano())
		l.reading = nil
		close(read)
	}) {
		close(read)
		return read
	}
	l.reading = read
	return read
}

// obey drops from memory what must not be served. What was put in its place is loaded by a look at the name.
func (m *Manager) obey() {
	for leaf, r := range *m.revocations.known.Load() {
		if cert := m.cache.cert(r.Name); r.serves() || cert == nil || cert.sum != leaf {
			continue
		}
		m.cache.drop(r.Name)
		if !r.Gone.IsZero() {
			m.planner.plan(r.Name, time.Now())
		}
	}
}

// carryOut works on the revocation in the background, until it is done. It reports whether the Manager runs.
func (m *Manager) carryOut(leaf leafSum) (errand, bool) {
	e := m.revocations.worker(leaf)
	if !e.first {
		return e, true
	}
	w := e.revoker
	run := func(ctx context.Context) {
		for pause := revokeFirst; ; pause = min(2*pause, revokeLast) {
			done, err := m.attemptRevocation(ctx, leaf)
			if ctx.Err() != nil {
				done, err = true, errClosed // the next process goes on
			}
			if err != nil && ctx.Err() == nil && !errors.Is(err, errElsewhere) {
				m.log.Warn("revocation is not done yet", zap.Stringer("certificate", leaf), zap.Bool("given_up", done), zap.Error(err))
			}
			m.revocations.ended(leaf, w, err, done)
			if done {
				return
			}
			if !w.rest(ctx, pause, capped(time.Now(), retryOf(err))) {
				m.revocations.ended(leaf, w, errClosed, true) // whoever has just asked for another attempt waits for it
				return
			}
		}
	}
	if !m.goWork(run) {
		m.revocations.ended(leaf, w, errClosed, true)
		return e, false
	}
	return e, true
}

// rest waits until the next attempt: for the pause, or until somebody asks for one, but not before the CA's own word. It reports whether ctx still lives.
func (w *revoker) rest(ctx context.Context, pause time.Duration, retryAt time.Time) bool {
	if !sleep(ctx, max(0, time.Until(retryAt))) {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-w.again:
	case <-timer.C:
	}
	return true
}
