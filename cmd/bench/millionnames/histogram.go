package main

import (
	"math/bits"
	"time"
)

// fine is how many steps each power of two has: quantiles are exact to 1.6 %.
const fine = 64

// histogram counts durations in fixed room, so that millions of them leave the garbage collector alone.
type histogram struct {
	counts  [fine * 64]int
	count   int
	longest time.Duration
}

func (h *histogram) add(d time.Duration) {
	h.counts[stepOf(uint64(max(d, 0)))]++
	h.count++
	h.longest = max(h.longest, d)
}

// stepOf is exact below fine; from there on each power of two is divided evenly.
func stepOf(n uint64) int {
	if n < fine {
		return int(n)
	}
	shift := bits.Len64(n) - bits.Len64(fine)
	return (shift+1)*fine + int(n>>shift) - fine
}

// quantile returns the beginning of the step in which it lies; zero if there is nothing.
func (h *histogram) quantile(q float64) time.Duration {
	left := int(float64(h.count-1) * q)
	for step, n := range h.counts {
		if left -= n; left < 0 && n > 0 {
			return beginOf(step)
		}
	}
	return 0
}

// beginOf is the reverse of stepOf.
func beginOf(step int) time.Duration {
	if step < fine {
		return time.Duration(step)
	}
	return time.Duration((step%fine + fine) << (step/fine - 1))
}
