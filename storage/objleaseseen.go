package storage

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"
)

func (c *casLeases) sighting(name string) sighting {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[name]
}

// see remembers who holds a lease. When there is no room, those go whose holders nobody has asked after for so long that they would be found stopped.
func (c *casLeases) see(name string, s sighting) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) >= maxSightings {
		for n, old := range c.seen {
			if time.Since(old.first) > 2*old.valid {
				delete(c.seen, n)
			}
		}
	}
	if _, known := c.seen[name]; known || len(c.seen) < maxSightings {
		c.seen[name] = s
	}
}

// forget is for a lease that this process has got, at whose version v somebody else may have been seen.
func (c *casLeases) forget(name string, v Version) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.seen[name]; ok {
		if s.version == v && v != "" {
			c.log.Warn("lease of a holder that stopped was taken over", zap.String("lease", name), zap.Uint64("its_fence", s.fence), zap.Duration("silent_for", time.Since(s.first)))
		}
		delete(c.seen, name)
	}
}

// untilNextLook is Poll, or less if the holder will have been silent for too long before.
func (c *casLeases) untilNextLook(name string) time.Duration {
	s := c.sighting(name)
	if s.version == "" {
		return c.times.Poll
	}
	return max(min(c.times.Poll, s.valid+s.valid/8-time.Since(s.first)), c.times.Poll/20)
}

// jitter is d, give or take a quarter.
func jitter(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2+1) }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}
