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
	nones int       // certificates in a row for which it has no information
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

// none notes that the CA has no renewal information for a certificate. If that is so for one after the other, and not for an odd one, the CA is left alone
// for a day. It reports whether that is news.
func (i *informants) none(ca string, now time.Time) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.ofLocked(ca)
	if c.nones++; c.nones < infoFails {
		return false
	}
	news := !c.empty
	c.until, c.empty = now.Add(infoNone), true
	return news
}

// failed counts a failure. It returns until when the CA is left alone if it is from now on.
func (i *informants) failed(ca string, err error, now time.Time) time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.ofLocked(ca)
	if scopeOf(err) == ScopeName {
		return time.Time{}
	}
	c.fails++
	if c.fails < infoFails && retryOf(err).IsZero() {
		return time.Time{}
	}
	pause := min(time.Minute<<min(max(c.fails-infoFails, 0), 10), infoLeave)
	c.until, c.empty = latest(now.Add(pause), capped(now, retryOf(err))), false
	return c.until
}

func (i *informants) ofLocked(ca string) *informant {
	c := i.m[ca]
	if c == nil {
		c = &informant{}
		i.m[ca] = c
	}
	return c
}

func (i *informants) worked(ca string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.m, ca)
}
