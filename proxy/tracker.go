package proxy

import (
	"sync/atomic"
	"time"
)

// tracker counts what is under way, so that somebody can wait for its end. The zero value counts nothing yet.
type tracker struct{ n atomic.Int64 }

func (t *tracker) add()         { t.n.Add(1) }
func (t *tracker) done()        { t.n.Add(-1) }
func (t *tracker) count() int64 { return t.n.Load() }

// wait returns when nothing is under way, or when giveUp is closed. It looks again every few milliseconds, as http.Server.Shutdown does: waiting
// happens once in the life of a process, counting a hundred thousand times a second.
func (t *tracker) wait(giveUp <-chan struct{}) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for t.count() > 0 {
		select {
		case <-tick.C:
		case <-giveUp:
			return
		}
	}
}
