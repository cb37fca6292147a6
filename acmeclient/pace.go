package acmeclient

import "time"

// pace is how often the CA is asked whether it is done (facts/acme-v2.md 5.4): soon at first, since somebody may wait in a handshake, then rarely.
type pace struct {
	afterProbe time.Duration   // first look after the CA has fetched the answer to its challenge
	unprobed   time.Duration   // first look if we do not see it being fetched: another node may answer
	authzMax   time.Duration   // authorizations: from the first look on, each pause is 1.6 times the last, up to this
	order      []time.Duration // orders: these pauses; the last repeats
	watched    time.Duration   // how long somebody may be waiting
	maxWatched time.Duration   // bound of a Retry-After as long as somebody may
	maxLater   time.Duration   // and afterwards
	store      []time.Duration // pauses before an order that was placed is stored once more
}

func defaultPace() pace {
	return pace{
		afterProbe: 250 * time.Millisecond,
		unprobed:   time.Second,
		authzMax:   5 * time.Second,
		order: []time.Duration{
			250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second,
		},
		watched:    25 * time.Second,
		maxWatched: 5 * time.Second,
		maxLater:   time.Minute,
		store:      []time.Duration{250 * time.Millisecond, time.Second, 3 * time.Second},
	}
}

// obey bounds a Retry-After. since is how long the order is under way.
func (p pace) obey(retryAfter, since time.Duration) time.Duration {
	if since < p.watched {
		return min(retryAfter, p.maxWatched)
	}
	return min(retryAfter, p.maxLater)
}

// nextAuthz returns the pause after the nth look (from 0) at an authorization; first is the pause before the first look.
func (p pace) nextAuthz(n int, first, retryAfter, since time.Duration) time.Duration {
	if retryAfter > 0 {
		return p.obey(retryAfter, since)
	}
	d := first
	for range n + 1 {
		if d = d * 8 / 5; d >= p.authzMax {
			return p.authzMax
		}
	}
	return d
}

// nextOrder returns the pause before the nth look (from 0) at an order that the CA works on.
func (p pace) nextOrder(n int, retryAfter, since time.Duration) time.Duration {
	if retryAfter > 0 {
		return p.obey(retryAfter, since)
	}
	return p.order[min(n, len(p.order)-1)]
}
