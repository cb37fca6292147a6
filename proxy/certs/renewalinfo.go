package certs

import (
	"context"
	"errors"
	"fmt"
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
	infoHold     = 10 * time.Minute // that other processes leave a question to the one that claimed it
	infoNone     = 24 * time.Hour   // after ErrNoRenewalInfo
	infoFails    = 3                // answers without information in a row after which a CA is left alone, if it fails for a minute first
	infoLeave    = time.Hour        // and for that long at most
)

// roundPause is the time between two rounds of questions. Names that are due at about the same time are asked about together, because each round reads
// and writes the shards of the index they are in, for all processes that share them.
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

// informShard asks about the names of one shard of the index, those that no other process has asked about.
func (m *Manager) informShard(ctx context.Context, shard int, names []string) {
	var due []question
	for _, name := range names {
		if q, ok := m.question(name); ok {
			due = append(due, q)
		}
	}
	if len(due) == 0 {
		return
	}
	mine, heard, err := m.index.claim(ctx, shard, due, time.Now().Add(infoHold))
	if err != nil && ctx.Err() == nil {
		m.log.Warn("index cannot be used, renewal information is asked for later", zap.Int("shard", shard), zap.Error(err))
	}
	for name, s := range heard {
		m.learn(name, s)
	}
	questions := make(chan question)
	var askers sync.WaitGroup
	for range min(infoTogether, len(mine)) {
		askers.Go(func() {
			for q := range questions {
				m.askRenewal(ctx, q)
				sleep(ctx, infoPause)
			}
		})
	}
	for _, q := range mine {
		questions <- q
	}
	close(questions)
	askers.Wait()
}

// question says whom to ask about the certificate. If that is nobody, now, it says when to look again.
func (m *Manager) question(name string) (question, bool) {
	now, r := time.Now(), m.rules.Load()
	it, _ := m.planner.get(name)
	_, managed := r.managed(name)
	ca := r.informer(it.ca)
	if !r.ARI || !managed || ca == nil || it.said == nil || !now.Before(it.ends) {
		m.planner.recheck(name, now.Add(infoNone))
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
	cert, err := m.presentCert(ctx, q)
	if err != nil || cert == nil {
		return // storage is in trouble, or there is no such certificate any more: the planner's business
	}
	asking, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	info, err := q.ca.RenewalInfo(asking, cert.tls.Certificate)
	now := time.Now()
	before := m.planner.suggested(cert.name, cert.leaf())
	switch {
	case ctx.Err() != nil: // we are closing
	case errors.Is(err, ErrNoRenewalInfo):
		if m.informants.none(cert.ca, now) {
			m.log.Info("CA has no renewal information, certificates are renewed by their lifetime", zap.String("ca", cert.ca), zap.Error(err))
		}
		m.heard(cert, before, before.without(now, now.Add(infoNone)))
	case err != nil:
		misses := m.planner.missed(cert.name)
		m.planner.recheck(cert.name, latest(now.Add(min(infoHold<<min(misses, 10), checkUsual)), capped(now, retryOf(err))))
		if until := m.informants.failed(cert.ca, err, now); !until.IsZero() {
			m.log.Warn("CA gives no renewal information, what it said last holds", zap.String("ca", cert.ca), zap.Time("next_attempt", until), zap.Error(err))
		}
	default:
		m.informants.worked(cert.ca)
		m.planner.answered(cert.name)
		m.heard(cert, before, before.hear(cert, info, now))
	}
}

// presentCert returns the certificate that the question is about; nil if there is none. If another process has replaced it, that is noticed here.
func (m *Manager) presentCert(ctx context.Context, q question) (*certificate, error) {
	cert := m.cache.cert(q.name)
	if cert != nil && cert.leaf() == q.item.said.Leaf {
		return cert, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	stored, _, err := m.fetch(ctx, q.name)
	if err != nil {
		return nil, fmt.Errorf("ask about the renewal of %s: %w", q.name, err)
	}
	if stored != nil && cert != nil {
		m.install(stored)
	} else if stored != nil { // nobody visits it: it need not be in memory
		m.planner.watch(stored.name, stored.leaf(), time.Now().Add(infoHold))
	}
	return stored, nil
}

// heard keeps what the CA said: in memory, and in the index for others and for the next start.
func (m *Manager) heard(cert *certificate, before, s suggestion) {
	if before.Renew != s.Renew {
		fields := []zap.Field{
			zap.String("name", cert.name), zap.String("ca", cert.ca), zap.Time("window_start", unixTime(s.Start)), zap.Time("window_end", unixTime(s.End)),
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
	m.learn(cert.name, s)
	m.index.told(cert, s)
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
	return c.renewAt
}

// fresh reports whether the certificate serves and need not be replaced yet either.
func (m *Manager) fresh(c *certificate, now time.Time) bool {
	return c.serves(now) && now.Before(m.renewAt(c)) && m.revocations.of(c) == nil
}
