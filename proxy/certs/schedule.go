package certs

import (
	"crypto/x509"
	"encoding/hex"
	"time"
)

// shortLife is the lifetime below which certificates are renewed at the half of it: Let's Encrypt's advice for its 160-hour certificates.
const shortLife = 10 * 24 * time.Hour

// defaultRenewAt is what zero means for Settings.RenewAt.
const defaultRenewAt = 2.0 / 3

// renewal returns when to renew a certificate: in the window that the CA gave, else by its own lifetime. But never in the first tenth of
// the time that it has from when it was obtained: a CA that says "now" for each certificate, or dates them far back, must not make us order in a circle.
func renewal(name string, leaf *x509.Certificate, issued time.Time, window Window, ratio float64) time.Time {
	spread := fraction(name, hex.EncodeToString(leaf.SerialNumber.Bytes()))
	at := renewAt(leaf.NotBefore, leaf.NotAfter, ratio, spread)
	if window.End.After(window.Start) {
		at = inWindow(window, spread)
	}
	return latest(at, tenth(leaf, issued))
}

// tenth is when a certificate has lived a tenth of the time that it had when it was obtained.
func tenth(leaf *x509.Certificate, issued time.Time) time.Time {
	issued = latest(issued, leaf.NotBefore)
	return issued.Add(scale(leaf.NotAfter.Sub(issued), 0.1))
}

// inWindow picks a time in the first nine tenths of the window, so that some of it is left for a second attempt. With the same spread (in [0, 1))
// all nodes pick the same one without talking about it (RFC 9773 §4.2 asks for a uniform choice).
func inWindow(w Window, spread float64) time.Time {
	return w.Start.Add(scale(w.End.Sub(w.Start), 0.9*spread))
}

// renewAt is the time to renew a certificate whose CA does not say when: at the ratio of its lifetime, and at 1/2 at the latest if
// it lives for less than 10 days; 2 % of the lifetime earlier or later by the spread (in [0, 1)), so that names obtained together part ways.
func renewAt(notBefore, notAfter time.Time, ratio, spread float64) time.Time {
	life := notAfter.Sub(notBefore)
	if life < shortLife {
		ratio = min(ratio, 0.5)
	}
	return notBefore.Add(scale(life, ratio+0.04*(spread-0.5)))
}

// The urgency of renewals, which goes before the back-off of a name: how long the next attempt may be away at most.
const (
	urgentBelow = 3 * 24 * time.Hour // or a tenth of the lifetime, if that is longer
	urgentEvery = 6 * time.Hour
	lastDay     = 24 * time.Hour
	lastEvery   = time.Hour
)

// urgency returns the longest pause before the next attempt to renew a certificate with this much life left, and whether there is one. Once it
// has ended there is less to save, and more reason to think that it cannot be renewed.
func urgency(left, life time.Duration) (time.Duration, bool) {
	switch {
	case 0 < left && left < lastDay:
		return lastEvery, true
	case left < max(urgentBelow, life/10):
		return urgentEvery, true
	}
	return 0, false
}

// nextAttempt is when a name may be tried again after its count-th failure in a row: after the step of the back-off and up to 10 % more by the
// spread, but not before the CA's own word.
func nextAttempt(now time.Time, steps []time.Duration, count int, retryAt time.Time, spread float64) time.Time {
	step := steps[min(max(count, 1), len(steps))-1]
	return latest(now.Add(step+scale(step, 0.1*spread)), capped(now, retryAt))
}

// nextRenewal is nextAttempt for a name that has, or had, a certificate.
func nextRenewal(now time.Time, steps []time.Duration, count int, retryAt time.Time, spread float64, leaf *x509.Certificate) time.Time {
	next := nextAttempt(now, steps, count, time.Time{}, spread)
	if pause, urgent := urgency(leaf.NotAfter.Sub(now), leaf.NotAfter.Sub(leaf.NotBefore)); urgent && next.After(now.Add(pause)) {
		next = now.Add(pause + scale(pause, 0.1*spread))
	}
	return latest(next, capped(now, retryAt))
}

// maxRetryAfter bounds what we believe of a Retry-After: a month, the longest time for which a CA is known to pause a name.
const maxRetryAfter = 31 * 24 * time.Hour

func capped(now, retryAt time.Time) time.Time {
	if end := now.Add(maxRetryAfter); retryAt.After(end) {
		return end
	}
	return retryAt
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func scale(d time.Duration, by float64) time.Duration { return time.Duration(float64(d) * by) }
