package gcpace

import (
	"context"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

func TestPercentage_GrowsByWhatIsBesideTheCache(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		live, cached int64
		want         int
	}{
		"no cache":                   {100 * mb, 0, usual},
		"a little cache":             {100 * mb, 20 * mb, usual},
		"as much as anything else":   {200 * mb, 100 * mb, 50},
		"nearly all":                 {300 * mb, 290 * mb, 10},
		"many names beside it":       {900 * mb, 500 * mb, 14},
		"less than it says":          {50 * mb, 60 * mb, 64},
		"more than twice everything": {10 * mb, 60 * mb, usual},
		"nothing known":              {0, 60 * mb, usual},
	} {
		if got := percentage(c.live, c.cached); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestRun_FollowsTheCacheAndPutsBackWhatWas(t *testing.T) {
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	synctest.Test(t, func(t *testing.T) {
		before := debug.SetGCPercent(usual)
		defer debug.SetGCPercent(before)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			Run(ctx, func() int64 { return 1 << 40 })
		}()
		time.Sleep(3 * every)
		synctest.Wait()
		now := debug.SetGCPercent(usual)
		cancel()
		<-done
		if after := debug.SetGCPercent(usual); after != usual {
			t.Errorf("%d percent in the end", after)
		}
		if now < least || now > usual {
			t.Errorf("%d percent", now)
		}
	})
}
