package certs

import (
	"strconv"
	"time"
)

// How renewals are levelled (Settings.Spread).
const (
	levelMost  = 2.0 // times the mean that an hour may have before names are put elsewhere
	levelSmall = 50  // renewals that any hour may have
	levelFrom  = 0.4 // of its life: a crowd that was obtained together is renewed from then on, once
	levelTries = 200 // hours that are looked at
)

// levels knows how many renewals each hour of the future has. The planner's mutex guards it.
type levels struct {
	hours map[int64]int // by hours since 1970
	rate  float64       // renewals an hour in the long run, of all names
}

func hourOf(unix int64) int64 { return unix / 3600 }

// take enters a renewal of a certificate that lives, until it is renewed, for so long.
func (l *levels) take(at int64, every time.Duration, n int) {
	if at <= 0 || every <= 0 {
		return
	}
	if l.hours == nil {
		l.hours = map[int64]int{}
	}
	hour := hourOf(at)
	if l.hours[hour] += n; l.hours[hour] <= 0 {
		delete(l.hours, hour)
	}
	l.rate += float64(n) / every.Hours()
}

// choose returns an hour of the window that is not crowded, or the emptiest: first the one that the certificate's hash chose, then others, from there on round.
func (l *levels) choose(w Window, usual time.Time, spread float64) time.Time {
	if !w.End.After(w.Start.Add(time.Hour)) || float64(l.hours[hourOf(usual.Unix())]) < max(levelMost*l.rate, levelSmall) {
		return usual
	}
	hours := int64(w.End.Sub(w.Start) / time.Hour)
	step := max(hours/levelTries, 1)
	best, least := usual, l.hours[hourOf(usual.Unix())]
	first := int64(spread * float64(hours))
	for i := int64(0); i < hours && least > 0; i += step {
		at := w.Start.Add(time.Duration((first+i)%hours) * time.Hour).Add(scale(time.Hour, spread))
		if n := l.hours[hourOf(at.Unix())]; n < least {
			best, least = at, n
		}
	}
	return best
}

// levelOnce is level for a certificate that is new; for one that is known, what was decided holds.
func (p *planner) levelOnce(c *certificate, usual time.Time) time.Time {
	if slot := p.slotOf(c.name, c.leaf()); !slot.IsZero() {
		return slot
	}
	return p.level(c, usual)
}

// level chooses the time of a renewal by the certificate's lifetime: the usual one, or an earlier one if that is crowded, so that a million names that were obtained
// in a day are not renewed in a day ever after. A window that its CA gave is never left for that.
func (p *planner) level(c *certificate, usual time.Time) time.Time {
	i := c.identity()
	life := i.ends.Sub(i.issued)
	p.mu.Lock()
	defer p.mu.Unlock()
	from := i.issued.Add(scale(life, levelFrom))
	at := p.levels.choose(Window{latest(from, time.Now()), latest(usual, from)}, usual, fraction(i.name, strconv.FormatUint(uint64(i.leaf), 36), "level"))
	return at.Truncate(time.Second)
}

// levelLocked notes when the item is to be renewed, for the levels.
func (p *planner) levelLocked(it *packedItem, at seconds) {
	p.levels.take(int64(it.counted), it.cycle(), -1)
	it.counted = at
	p.levels.take(int64(it.counted), it.cycle(), 1)
	p.lateLocked(it)
}
