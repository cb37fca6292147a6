package permission

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Answer is what the endpoint that is asked said of a name.
type Answer struct {
	Allowed bool
	Tenant  string // whose name it is; may be empty
	To      string // the upstream for it; may be empty

	err   error     // it could not tell; the rest is what it said before
	Asked time.Time // when it said so
	fresh time.Time // until when it is not asked again
}

// holds reports whether the answer can be taken without asking.
func (v Answer) holds(now time.Time) bool { return v.err == nil && now.Before(v.fresh) }

// result is what AskMetrics hears.
func (v Answer) result() string {
	if v.err != nil {
		return "failed"
	}
	return verdictOf(v.Allowed)
}

// Remembered returns of how many names it is remembered that they were allowed, or denied.
func (a *Ask) Remembered() (allowed, denied int) {
	allowed = a.answers.Count(func(v Answer) bool { return v.Allowed })
	denied = a.answers.Count(func(v Answer) bool { return !v.Allowed && v.err == nil })
	return allowed, denied
}

// refreshPause is how long a request that finds an old answer, while the endpoint fails, does not make us ask again.
const refreshPause = 10 * time.Second

// Told returns what was last said of the name, from memory; false if nothing was. Nobody is asked.
func (a *Ask) Told(name string) (Answer, bool) {
	answer, ok := a.answers.Get(name)
	if !ok || answer.Asked.IsZero() {
		return Answer{}, false
	}
	return answer, true
}

// Answer is Told for whoever sends requests there: an answer that is too old to be taken without asking is asked for again in the background, and the next
// caller has the new one.
func (a *Ask) Answer(name string) (Answer, bool) {
	answer, ok := a.Told(name)
	if !ok {
		return Answer{}, false
	}
	pause := time.Duration(0)
	if answer.err != nil {
		pause = refreshPause
	}
	if now := time.Now(); !now.Before(answer.fresh.Add(pause)) {
		a.refresh(name)
	}
	return answer, true
}

// refresh asks for the name unless somebody does, or too many do.
func (a *Ask) refresh(name string) {
	if len(a.places) == cap(a.places) {
		return
	}
	f, mine := a.flight(name)
	if !mine {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx.Err() != nil { // closed: nobody waits for us any more
		delete(a.flights, name)
		f.answer = Answer{err: errors.New("the ask endpoint is not asked any more")}
		close(f.done)
		return
	}
	a.own.Go(func() { a.fly(a.ctx, name, netip.Addr{}, f) })
}

// Recall takes over what was said of a name in a former life, or to another node, where nothing later is known.
func (a *Ask) Recall(name string, answer Answer) {
	if _, ok := a.answers.Get(name); ok || answer.Asked.IsZero() {
		return
	}
	a.answers.Put(name, answer, time.Now().Add(a.keeps(answer)))
}

// Inherit takes over what another Ask was told, as answers that are too old to be taken without asking.
func (a *Ask) Inherit(old *Ask) {
	old.answers.Each(func(name string, answer Answer) {
		answer.fresh = time.Time{}
		if answer.Allowed {
			a.Recall(name, answer)
		}
	})
}

// OnChange makes f hear of names whose tenant or upstream changes.
func (a *Ask) OnChange(f func(ctx context.Context, name string, answer Answer)) { a.changed.Store(&f) }
