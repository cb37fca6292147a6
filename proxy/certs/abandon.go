package certs

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"gatelodge/proxy/certs/permission"
)

// Abandon says when on-demand names that left us are given up: their certificates are not renewed any more, and served as long as they live. Zero means never.
// Who comes back is renewed again. Listed names are never given up: who removes them from the configuration does that.
type Abandon struct {
	Idle   time.Duration // without a handshake
	Denied time.Duration // that Permission refuses the name
	Away   time.Duration // that no CA could validate the name: it resolves elsewhere, or nowhere
}

// Why a name was given up, for a person.
const (
	goneIdle   = "nobody has visited it for long"
	goneDenied = "its permission was taken back"
	goneAway   = "no CA can validate it any more: it resolves elsewhere, or nowhere"
	goneSite   = "no site claims it"
	goneUnseen = "nobody has visited it since its renewal was due"
)

const (
	goneEvery   = 24 * time.Hour // between two looks at a name that was given up, or may be
	deniedAgain = 24 * time.Hour // between two questions to Permission about a name that it refuses
)

// farewell is what is known of a name that left us, or may have.
type farewell struct {
	Seen   int64  // the last handshake that is known of, or when we began to look, as Unix time
	Denied int64  // refused since then
	Since  int64  // given up since then
	Why    string // one of the reasons above
	Found  int64  // when Denied, Since and Why were found
}

// leftUs looks whether the name, which is due for renewal, is one that left us. Then, or if it may be, it says when to look again, and nothing is ordered.
func (m *Manager) leftUs(ctx context.Context, r *rules, t target, it planItem, now time.Time) bool {
	if !t.gated || it.ca == "" {
		return false
	}
	g := it.gone
	visited, _ := m.visits.last(subject(it.name))
	if g.Seen = max(g.Seen, visited); g.Seen == 0 && !r.VisitedOnly {
		g.Seen = now.Unix()
	}
	why, wait := "", false
	switch {
	case r.VisitedOnly && unixTime(g.Seen).Add(visitHour).Before(earliest(now, r.opens(it))):
		why = goneUnseen
	case r.Abandon.Idle > 0 && now.Sub(unixTime(g.Seen)) > r.Abandon.Idle:
		why = goneIdle
	case g.Why == goneAway && g.Seen < g.Since, m.failsTooLong(r, it, now): // until a visitor comes: then it resolves to us
		why = goneAway
	case r.Abandon.Denied > 0 && r.Permission != nil:
		why, wait = m.denied(ctx, r, it, &g, now)
	}
	if why != g.Why {
		g.Why, g.Since = why, 0
		if why != "" {
			g.Since = now.Unix()
			m.log.Log(levelOf(why), "name is given up, its certificate is not renewed any more", zap.String("name", it.name), zap.String("reason", why), zap.Time("not_after", it.ends))
		} else {
			m.log.Log(levelOf(it.gone.Why), "name is back, its certificate is renewed again", zap.String("name", it.name))
		}
	}
	if g != it.gone {
		g.Found = now.Unix()
		m.planner.setGone(it.name, g)
		if why != goneUnseen || m.members.owns(int(it.shard)) { // else each process would tell all others
			m.index.told(it.name)
		}
	}
	switch {
	case why != "" && now.After(it.ends.Add(forgetAfter)):
		m.sweepEnded(ctx, it.name)
	case why != "" || wait:
		m.planner.plan(it.name, now.Add(goneEvery+scale(goneEvery, 0.1*fraction(it.name))))
		if again, _ := m.visits.last(subject(it.name)); again > visited { // somebody came meanwhile
			m.planner.plan(it.name, now)
		}
	default:
		return false
	}
	return true
}

// opens is when the certificate's renewal was due, by its CA's word or else by its lifetime.
func (r *rules) opens(it planItem) time.Time {
	if it.said != nil && it.said.Renew != 0 && r.ARI {
		return unixTime(it.said.Renew)
	}
	return renewAt(it.issued, it.ends, r.RenewAt, 0)
}

// levelOf: where only visited names are renewed, the others are as they should be.
func levelOf(why string) zapcore.Level {
	if why == goneUnseen {
		return zap.DebugLevel
	}
	return zap.InfoLevel
}

// note counts a handshake. Who was given up is looked at as soon as somebody comes, and renewed if that is all that was missing.
func (m *Manager) note(r *rules, host string, now time.Time) {
	if !m.visits.note(host, now) {
		return
	}
	m.planner.welcome(host, "", now)
	if r.second != "" {
		m.planner.welcome(host, r.suffix, now)
	}
}

// welcome looks now at a name that was given up for want of visitors. It is called in handshakes, and waits for nobody: if the planner is busy, its next look sees the visit.
func (p *planner) welcome(host, suffix string, now time.Time) {
	if !p.mu.TryLock() {
		return
	}
	defer p.mu.Unlock()
	if id, it := p.knownLocked(host + suffix); it != nil && it.since != 0 && it.shared.Value().why != goneDenied && it.pos >= 0 && it.dueAt().After(now) {
		p.planLocked(id, now)
	}
}

// denied asks whether the name is still allowed. A refusal is waited out, as far as the certificate's life allows, before it is either renewed or given up.
func (m *Manager) denied(ctx context.Context, r *rules, it planItem, g *farewell, now time.Time) (why string, wait bool) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	switch err := r.Permission.Allow(ctx, subject(it.name), netip.Addr{}); {
	case err == nil:
		g.Denied = 0
	case !errors.Is(err, permission.ErrDenied): // nobody knows: what was true before holds
		return g.Why, false
	case g.Denied == 0:
		g.Denied = now.Unix()
		fallthrough
	default:
		if now.Sub(unixTime(g.Denied)) >= r.Abandon.Denied {
			return goneDenied, false
		}
		return "", it.ends.Sub(now) > max(r.Abandon.Denied-now.Sub(unixTime(g.Denied)), 0)+deniedAgain+scale(it.ends.Sub(it.issued), lifeForFailover)
	}
	return "", false
}

// failsTooLong reports whether every attempt has failed at validation for as long as the settings allow, and nobody has come meanwhile.
//
// That is how we know that a name resolves elsewhere, and not by looking it up: behind balancers and networks that deliver content we do not know at which addresses we are
// reached, the same name may lead elsewhere from here than from the Internet, and a certificate must not end because this server cannot reach its own public address. What a
// CA sees from outside for weeks, and visitors who stay away, cannot be such an error. It costs the few orders that back-off lets through; see Config.View for what we saw ourselves.
func (m *Manager) failsTooLong(r *rules, it planItem, now time.Time) bool {
	rec := m.failures.remembered(it.name)
	if r.Abandon.Away <= 0 || rec == nil || rec.Scope != ScopeName || now.Sub(rec.First) < r.Abandon.Away {
		return false
	}
	visited, _ := m.visits.last(subject(it.name))
	return max(it.gone.Seen, visited) < now.Add(-r.Abandon.Away).Unix()
}

// setGone keeps what is known of a name that left us.
func (p *planner) setGone(name string, g farewell) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, it := p.knownLocked(name); it != nil {
		it.leave(g)
		p.lateLocked(it)
	}
}

// newer returns what is known of both together: the later handshake, and what was found after it.
func (g farewell) newer(other farewell) farewell {
	if other.Found > g.Found {
		g, other = other, g
	}
	g.Seen = max(g.Seen, other.Seen)
	return g
}

// tellAbandoned says in the status that the name is given up, if it is.
func (m *Manager) tellAbandoned(s *Status) {
	it, ok := m.planner.get(s.Name)
	switch {
	case !ok || it.ca == "":
	case s.Site == "":
		s.Abandoned = &AbandonedStatus{Reason: goneSite}
	case it.gone.Why != "" && (s.State == StateServing || s.State == StateExpired || s.State == StateAbsent):
		s.State, s.Abandoned = StateAbandoned, &AbandonedStatus{it.gone.Why, unixTime(it.gone.Since)}
	}
}
