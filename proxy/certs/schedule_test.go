package certs

import (
	"testing"
	"time"
)

const day = 24 * time.Hour

func TestRenewAt_IsInTimeForEveryLifetime(t *testing.T) {
	for _, c := range []struct {
		name     string
		life     time.Duration
		ratio    float64
		from, to time.Duration // after the beginning
	}{
		{"90 days: two thirds", 90 * day, 2.0 / 3, 58 * day, 62 * day},
		{"64 days: two thirds", 64 * day, 2.0 / 3, 41 * day, 44 * day},
		{"45 days: two thirds", 45 * day, 2.0 / 3, 29 * day, 31 * day},
		{"10 days: two thirds", 10 * day, 2.0 / 3, 155 * time.Hour, 165 * time.Hour},
		{"160 hours: the half", 160 * time.Hour, 2.0 / 3, 76 * time.Hour, 84 * time.Hour},
		{"24 hours: the half", day, 2.0 / 3, 11 * time.Hour, 13 * time.Hour},
		{"60 seconds: the half", time.Minute, 2.0 / 3, 28 * time.Second, 32 * time.Second},
		{"90 days at a ratio of one's own", 90 * day, 0.9, 79 * day, 83 * day},
		{"24 hours at an earlier ratio of one's own", day, 0.25, 5 * time.Hour, 7 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
			var first time.Time
			for i := range 1000 {
				at := renewAt(begin, begin.Add(c.life), c.ratio, float64(i)/1000)
				if at.Before(begin.Add(c.from)) || at.After(begin.Add(c.to)) {
					t.Fatalf("spread %d/1000: renewed after %s", i, at.Sub(begin))
				}
				if i == 0 {
					first = at
				} else if !at.After(first) {
					t.Fatal("it does not spread")
				}
			}
		})
	}
}

func TestInWindow_StaysInsideAndLeavesRoom(t *testing.T) {
	w := Window{time.Unix(1000, 0), time.Unix(2000, 0)}
	for _, spread := range []float64{0, 0.5, 0.999999} {
		if at := inWindow(w, spread); at.Before(w.Start) || at.After(time.Unix(1900, 0)) {
			t.Errorf("spread %v: %v", spread, at)
		}
	}
}

func TestFraction_IsSpreadEvenly(t *testing.T) {
	var tenths [10]int
	for i := range 10000 {
		tenths[int(10*fraction("n"+string(rune('a'+i%26))+".example.com", time.Duration(i).String()))]++
	}
	for i, n := range tenths {
		if n < 850 || n > 1150 {
			t.Errorf("tenth %d has %d of 10000", i, n)
		}
	}
}

func TestNextAttempt_Table(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	steps := Settings{}.withDefaults().Backoff
	for _, c := range []struct {
		name    string
		count   int
		retryAt time.Duration
		spread  float64
		want    time.Duration
	}{
		{"first failure", 1, 0, 0, time.Minute},
		{"second failure", 2, 0, 0, 10 * time.Minute},
		{"third failure", 3, 0, 0, 100 * time.Minute},
		{"fourth failure", 4, 0, 0, day},
		{"tenth failure", 10, 0, 0, day},
		{"ten percent at most", 1, 0, 1, 66 * time.Second},
		{"the CA's word is later", 1, time.Hour + time.Second, 0.5, time.Hour + time.Second},
		{"the CA's word is earlier", 2, time.Minute, 0, 10 * time.Minute},
		{"the CA's word is absurd", 1, 1000 * day, 0, 31 * day},
		{"a count that makes no sense", -5, 0, 0, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			var retryAt time.Time
			if c.retryAt != 0 {
				retryAt = now.Add(c.retryAt)
			}
			if got := nextAttempt(now, steps, c.count, retryAt, c.spread).Sub(now); got != c.want {
				t.Errorf("next attempt after %s, want %s", got, c.want)
			}
		})
	}
}

func TestUrgency_Table(t *testing.T) {
	for _, c := range []struct {
		name       string
		left, life time.Duration
		want       time.Duration // 0: none
	}{
		{"much left", 20 * day, 90 * day, 0},
		{"a tenth of 90 days", 8 * day, 90 * day, 6 * time.Hour},
		{"less than 3 days of 20", 70 * time.Hour, 20 * day, 6 * time.Hour},
		{"more than 3 days of 20", 73 * time.Hour, 20 * day, 0},
		{"the last day", 23 * time.Hour, 90 * day, time.Hour},
		{"ended", -time.Hour, 90 * day, 6 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, urgent := urgency(c.left, c.life); got != c.want || urgent != (c.want != 0) {
				t.Errorf("%s, %v", got, urgent)
			}
		})
	}
}
