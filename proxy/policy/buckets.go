package policy

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// buckets are token buckets for very many keys in bounded memory, with one number each: when the bucket will be full again. A full bucket is
// the same as none, so those that are forgotten first are those that lack least.
type buckets struct {
	seed  maphash.Seed
	begin time.Time
	token time.Duration // in which one request is earned
	burst time.Duration // in which an empty bucket fills up

	// pages are made when a key first falls into them, so that a limit that few clients meet costs little. Their number is a power of two.
	pages []atomic.Pointer[page]
}

const (
	ways        = 8  // keys that compete for the same places
	setsPerPage = 32 // one page holds 256 keys
)

type page [setsPerPage]set

type set struct {
	mu   sync.Mutex // guards keys and full
	keys [ways]uint64
	full [ways]time.Duration // since begin
}

func newBuckets(rate float64, burst, keys int) *buckets {
	b := &buckets{seed: maphash.MakeSeed(), begin: time.Now()}
	const most = float64(math.MaxInt64 / 4) // no sum of two overflows
	b.token = time.Duration(max(1, math.Min(float64(time.Second)/rate, most)))
	b.burst = time.Duration(math.Min(float64(b.token)*float64(burst), most))
	n := 1
	for n*setsPerPage*ways < keys {
		n *= 2
	}
	b.pages = make([]atomic.Pointer[page], n)
	return b
}

// take takes one token from the bucket of the key. If there is none it returns how long it takes until there is.
func (b *buckets) take(key uint64, at time.Time) time.Duration {
	now := at.Sub(b.begin)
	s := b.set(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(key)
	full := max(s.full[i], now) + b.token
	if wait := full - now - b.burst; wait > 0 {
		return wait
	}
	s.full[i] = full
	return 0
}

func (b *buckets) set(key uint64) *set {
	p := &b.pages[key&uint64(len(b.pages)-1)]
	have := p.Load()
	if have == nil {
		p.CompareAndSwap(nil, new(page))
		have = p.Load()
	}
	return &have[key>>59] // the highest five bits; the lowest chose the page
}

// find returns the place of the key, which it gives the place of the fullest bucket if it has none.
func (s *set) find(key uint64) int {
	fullest := 0
	for i, k := range s.keys {
		if k == key {
			return i
		}
		if s.full[i] < s.full[fullest] {
			fullest = i
		}
	}
	s.keys[fullest], s.full[fullest] = key, 0
	return fullest
}
