package certs

import (
	"sync"
	"time"
)

// informants are the CAs that were asked, as far as there is something to remember.
type informants struct {
	mu sync.Mutex // guards m
	m  map[string]*informant
}

type informant struct {
	fails int       // in a row
	until time.Time // left alone until then
	empty bool      // because it has no renewal information
}

// left returns until when the CA is left alone, and whether that is because it has no renewal information.
func (i *informants) left(ca string, now time.Time) (until time.Time, none bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if c := i.m[ca]; c != nil && now.Before(c.until) {
		return c.until, c.empty
	}
	return time.Time{}, false
}

// none leaves the CA alone for a day, and reports whether that is news.
func (i *informants) none(ca string, now time.Time) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	old := i.m[ca]
	i.m[ca] = &informant{until: now.Add(infoNone), empty: true}
	return old == nil || !old.empty
}

// failed counts a failure. It returns until when the CA is left alone if it is from now on.
func (i *informants) failed(ca string, err error, now time.Time) time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.m[ca]
	if c == nil {
		c = &informant{}
		i.m[ca] = c
	}
	if scopeOf(err) == ScopeName {
		return time.Time{}
	}
	c.fails++
	if c.fails < infoFails && retryOf(err).IsZero() {
		return time.Time{}
	}
	pause := min(time.Minute<<min(max(c.fails-infoFails, 0), 10), infoLeave)
	c.until = latest(now.Add(pause), capped(now, retryOf(err)))
	return c.until
}

func (i *informants) worked(ca string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.m, ca)
}
