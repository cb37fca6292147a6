package certs

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

// ErrNoRenewalInfo is wrapped by the error of a RenewalInformer whose CA has no renewal information. The certificate is renewed by its lifetime, and the CA is
// asked again in a day: CAs learn. After three such answers in a row it is asked about no other certificate either.
var ErrNoRenewalInfo = errors.New("certs: the CA has no renewal information")

// How the CAs are asked. In a handshake they never are.
const (
	firstWithin  = time.Hour        // of a new certificate, or of one that was not watched: the first question
	infoTimeout  = 30 * time.Second // one question
	infoTogether = 4                // questions at a time
	infoPause    = 50 * time.Millisecond
	infoHold     = 10 * time.Minute // that a question is left to whoever is asking it
	infoNone     = 24 * time.Hour   // after ErrNoRenewalInfo
	infoFails    = 3                // answers without information in a row after which a CA is left alone, if it fails for a minute first
	infoLeave    = time.Hour        // and for that long at most
)

// roundPause is the time between two rounds of questions.
func roundPause(names int) time.Duration {
	return min(max(time.Duration(names)*60*time.Millisecond, time.Minute), 10*time.Minute)
}

// inform asks the CAs when certificates should be renewed, until ctx ends.
func (m *Manager) inform(ctx context.Context) {
	for m.planner.awaitCheck(ctx) {
		due := m.planner.dueChecks(time.Now(), infoHold)
		for shard := range indexShards {
			if names := due[shard]; len(names) > 0 {
				m.informShard(ctx, shard, names)
			}
		}
		if !sleep(ctx, roundPause(m.planner.size())) {
			return
		}
	}
}

// question is a certificate that its CA is to be asked about.
type question struct {
	name string
	item planItem
	ca   RenewalInformer
}

// informShard asks about the names of one shard of the index, if it is ours and nobody else has said that he asks.
func (m *Manager) informShard(ctx context.Context, shard int, names []string) {
	now := time.Now()
	if !m.members.owns(shard) {
		return
	}
	if !m.index.asks(shard, now) {
		if !m.anyQuestion(names) {
			return
		}
		others, err := m.syncShard(ctx, shard, true)
		if err != nil && ctx.Err() == nil {
			m.log.Warn("index cannot be used, renewal information is asked for later", zap.Int("shard", shard), zap.Error(err))
		}
		if others.After(now) {
			m.planner.leaveChecks(names, others)
		}
		if err != nil || others.After(now) {
			return
		}
	}
	questions := make(chan question)
	var askers sync.WaitGroup
	for range min(infoTogether, len(names)) {
		askers.Go(func() {
			for q := range questions {
				m.askRenewal(ctx, q)
				sleep(ctx, infoPause)
			}
		})
	}
	for _, name := range names {
		if q, ok := m.question(name); ok {
			questions <- q
		}
	}
	close(questions)
	askers.Wait()
}

// anyQuestion reports whether there is anything to ask about these names; of the others it says when to look again.
func (m *Manager) anyQuestion(names []string) bool {
	some := false
	for _, name := range names {
		_, ok := m.question(name)
		some = some || ok
	}
	return some
}

// question says whom to ask about the certificate. If that is nobody, now, it says when to look again.
func (m *Manager) question(name string) (question, bool) {
	now, r := time.Now(), m.rules.Load()
	it, _ := m.planner.get(name)
	_, managed := r.managed(name)
	ca := r.informer(it.ca)
	if !r.ARI || !managed || ca == nil || it.said == nil || it.id == "" || !now.Before(it.ends) {
		m.planner.recheck(name, now.Add(infoNone))
		return question{}, false
	}
	if it.said.Next > now.Unix() { // another process has asked
		m.planner.recheck(name, unixTime(it.said.Next))
		return question{}, false
	}
	if until, none := m.informants.left(it.ca, now); until.After(now) {
		until = until.Add(scale(infoHold, fraction(name)))
		if none && it.said.Renew != 0 {
			m.learn(name, it.said.without(now, until))
		}
		m.planner.recheck(name, until)
		return question{}, false
	}
	return question{name, it, ca}, true
}

// informer returns the CA of that name if it can be asked, else nil.
func (r *rules) informer(name string) RenewalInformer {
	for _, ca := range r.CAs {
		if ca.Issuer.Name() == name {
			informer, _ := ca.Issuer.(RenewalInformer)
			return informer
		}
	}
	return nil
}

// askRenewal asks one question and draws the conclusions.
func (m *Manager) askRenewal(ctx context.Context, q question) {
	if until, _ := m.informants.left(q.item.ca, time.Now()); until.After(time.Now()) || ctx.Err() != nil {
		return // it failed, or said that it has none, a moment ago
	}
	asking, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	cert := q.item.identity
	info, err := q.ca.RenewalInfo(asking, cert.id)
	now := time.Now()
	before := m.planner.suggested(cert.name, cert.leaf)
	switch {
	case ctx.Err() != nil: // we are closing
	case errors.Is(err, ErrNoRenewalInfo):
		if m.informants.none(q.item.ca, now) {
			m.log.Info("CA has no renewal information, certificates are renewed by their lifetime", zap.String("ca", q.item.ca), zap.Error(err))
		}
		m.heard(q.item, before, before.without(now, now.Add(infoNone)))
	case err != nil:
		misses := m.planner.missed(cert.name)
		m.planner.recheck(cert.name, latest(now.Add(min(infoHold<<min(misses, 10), checkUsual)), capped(now, retryOf(err))))
		if until := m.informants.failed(q.item.ca, err, now); !until.IsZero() {
			m.log.Warn("CA gives no renewal information, what it said last holds", zap.String("ca", q.item.ca), zap.Time("next_attempt", until), zap.Error(err))
		}
	default:
		m.informants.worked(q.item.ca)
		m.planner.answered(cert.name)
		m.heard(q.item, before, m.levelled(before, before.hear(cert, info, now), cert))
	}
}

// levelled moves a time that was chosen just now to an hour of the same window that is less crowded.
func (m *Manager) levelled(before, s suggestion, cert identity) suggestion {
	w := Window{unixTime(s.Start), earliest(unixTime(s.End), cert.ends)}
	if s.Renew == 0 || s.Renew == before.Renew || s.over() || !m.rules.Load().Spread {
		return s
	}
	m.planner.mu.Lock()
	defer m.planner.mu.Unlock()
	at := m.planner.levels.choose(Window{w.Start, w.Start.Add(scale(w.End.Sub(w.Start), 0.9))}, unixTime(s.Renew), cert.spread())
	if at.After(unixTime(s.Start)) {
		s.Renew = at.Unix()
	}
	return s
}

// heard keeps what the CA said: in memory, and in the index for others and for the next start.
func (m *Manager) heard(it planItem, before, s suggestion) {
	if before.Renew != s.Renew {
		fields := []zap.Field{
			zap.String("name", it.name), zap.String("ca", it.ca), zap.Time("window_start", unixTime(s.Start)), zap.Time("window_end", unixTime(s.End)),
			zap.Time("renew_at", unixTime(s.Renew)), zap.String("explanation", s.URL),
		}
		switch {
		case s.over():
			m.log.Warn("CA wants the certificate replaced now", fields...)
		case before.Renew != 0:
			m.log.Info("CA wants the certificate renewed at another time", fields...)
		default:
			m.log.Debug("CA says when to renew the certificate", fields...)
		}
	}
	m.learn(it.name, s)
	m.index.told(it.name)
}

// learn plans the renewal anew if what the CA said changes its time.
func (m *Manager) learn(name string, s suggestion) {
	if !m.planner.learn(name, s) || !m.rules.Load().ARI {
		return
	}
	if s.Renew != 0 {
		m.planner.plan(name, unixTime(s.Renew))
	} else {
		m.planner.plan(name, time.Now()) // by its lifetime, which a look tells
	}
}

// renewAt is when the certificate should be renewed: when its CA says, else by its own lifetime.
func (m *Manager) renewAt(c *certificate) time.Time {
	if s := m.planner.suggested(c.name, c.leaf()); s.Renew != 0 && m.rules.Load().ARI {
		return unixTime(s.Renew)
	}
	if slot := m.planner.slotOf(c.name, c.leaf()); !slot.IsZero() && slot.Before(c.renewAt) {
		return slot
	}
	return c.renewAt
}

// fresh reports whether the certificate serves and need not be replaced yet either.
func (m *Manager) fresh(c *certificate, now time.Time) bool {
	return c.serves(now) && now.Before(m.renewAt(c)) && m.revocations.of(c) == nil
}
