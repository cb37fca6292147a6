package certs

import (
	"sync/atomic"
	"time"
)

// visits remember which names were visited lately, in fixed room and without names: a slot by the hash of the name has the hour of its last handshake and how many
// there were in that hour, up to a bound. The index collects what they say now and then. A name may push out another that was visited before; then a visit is
// forgotten, which only matters if that happens each time for as long as Settings.Abandon.Idle.
type visits struct {
	slots [visitSlots]atomic.Uint64 // tag 32 bits, hours since 1970 20 bits, count 12 bits
}

const (
	visitSlots = 1 << 20        // 8 MiB, of which only what is used takes room
	visitMost  = 255            // that are counted in an hour: names in demand are not written to all the time
	visitHour  = time.Hour      // so exactly a visit is known in this process
	visitEvery = 12 * time.Hour // so exactly is known, in storage, when a name was visited last
)

// visitHash is FNV-1a, mixed, without allocation: it runs in every handshake.
func visitHash(name string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	return mix(h)
}

// note counts a handshake for the name. It reports whether it is the first that is known of in this hour.
func (v *visits) note(name string, now time.Time) (first bool) {
	h := visitHash(name)
	slot, tag, hour := &v.slots[h%visitSlots], h>>32<<32, uint64(now.Unix()/3600)&(1<<20-1)<<12
	is, count := slot.Load(), uint64(1)
	if is&^(1<<12-1) == tag|hour {
		if count += is & (1<<12 - 1); count > visitMost {
			return false
		}
	}
	slot.Store(tag | hour | count) // two at the same time may count as one
	return count == 1
}

// last returns the hour of the name's last handshake in this process, as Unix time; zero if none is known. It also says how many there were in it.
func (v *visits) last(name string) (at int64, count int) {
	h := visitHash(name)
	is := v.slots[h%visitSlots].Load()
	if is == 0 || is>>32 != h>>32 {
		return 0, 0
	}
	return int64(is>>12&(1<<20-1)) * 3600, int(is & (1<<12 - 1))
}
