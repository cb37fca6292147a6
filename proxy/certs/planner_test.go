package certs

import (
	"fmt"
	"testing"
	"time"
)

func TestPlanner_TakesWhatEndsSoonFirstThenWhatIsVisitedMost(t *testing.T) {
	p, now := newPlanner(), time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	p.visits = new(visits)
	add := func(name string, left time.Duration, visited int, ago time.Duration) {
		c := informable(now)
		c.name, c.ca, c.tls.Leaf.NotAfter = name, "x", now.Add(left)
		p.note(c, now)
		p.plan(name, now.Add(-time.Minute))
		for range visited {
			p.visits.note(name, now.Add(-ago))
		}
	}
	add("idle.example", 60*day, 0, 0)
	add("yesterday.example", 60*day, 9, day)
	add("some.example", 60*day, 3, 0)
	add("busy.example", 60*day, 30, 0)
	add("ends.example", time.Hour, 0, 0)
	p.plan("new.example", now.Add(-time.Second)) // has no certificate yet
	var order []string
	for {
		name, _ := p.next(now)
		if name == "" {
			break
		}
		order = append(order, name)
	}
	if got, want := fmt.Sprint(order), "[ends.example new.example busy.example some.example yesterday.example idle.example]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
