// Package gcpace keeps the garbage collector from doubling the memory that a large cache takes.
//
// Go lets the heap grow to twice of what is alive before it collects. For a cache of hundreds of megabytes, which hardly changes, that is as much again for nothing.
// So the growth is measured by the rest of the heap: what requests use and throw away.
package gcpace

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	usual  = 100             // Go's own percentage
	least  = 10              // below which collecting costs more than the memory is worth
	every  = 2 * time.Second // a cold cache takes a minute to fill
	little = 32 << 20        // of a cache: not worth the trouble
	atMost = 128 << 20       // of growth, once the cache is not little
)

// Run sets the pace until ctx ends, and Go's own after that. cached returns the bytes of the heap that a cache holds. If GOGC or GOMEMLIMIT is set, somebody has
// decided, and Run does nothing.
func Run(ctx context.Context, cached func() int64) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	defer debug.SetGCPercent(usual)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for now := usual; ; {
		metrics.Read(live)
		if percent := percentage(int64(live[0].Value.Uint64()), cached()); percent != now {
			now = percent
			debug.SetGCPercent(now)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// percentage is how much the heap may grow, of what is alive: by as much as is alive beside the cache, within bounds.
func percentage(live, cached int64) int {
	if cached < little || live <= 0 {
		return usual
	}
	growth := min(max(live-cached, little), atMost)
	return int(min(max(growth*100/live, least), usual))
}
