package acmeclient

import (
	"testing"
	"time"
)

func TestPace_AsksSoonAtFirstAndBoundsRetryAfter(t *testing.T) {
	p := defaultPace()
	var got []time.Duration
	for n := range 8 {
		got = append(got, p.nextAuthz(n, time.Second, 0, 0))
	}
	want := []time.Duration{1600 * time.Millisecond, 2560 * time.Millisecond, 4096 * time.Millisecond, 5 * time.Second, 5 * time.Second, 5 * time.Second, 5 * time.Second, 5 * time.Second}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("authorization: pause %d is %v, wanted %v", i, got[i], want[i])
		}
	}
	if got := p.nextAuthz(0, 250*time.Millisecond, 0, 0); got != 400*time.Millisecond {
		t.Errorf("after a probe: %v", got)
	}
	for n, want := range []time.Duration{
		250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 5 * time.Second,
	} {
		if got := p.nextOrder(n, 0, 0); got != want {
			t.Errorf("order: pause %d is %v, wanted %v", n, got, want)
		}
	}
	for _, tt := range []struct{ retryAfter, since, want time.Duration }{
		{3 * time.Second, 0, 3 * time.Second},
		{24 * time.Hour, 0, 5 * time.Second},
		{24 * time.Hour, 25 * time.Second, time.Minute},
		{30 * time.Second, time.Minute, 30 * time.Second},
	} {
		if got := p.nextOrder(0, tt.retryAfter, tt.since); got != tt.want {
			t.Errorf("Retry-After %v after %v: %v, wanted %v", tt.retryAfter, tt.since, got, tt.want)
		}
	}
}

func TestRotation_BeginsWithTheTypeAfterTheOneThatFailed(t *testing.T) {
	r := rotation{failed: map[string]string{}}
	types := []string{"a", "b", "c"}
	for _, tt := range []struct{ failed, want string }{{"", "abc"}, {"a", "bca"}, {"b", "cab"}, {"c", "abc"}, {"gone", "abc"}} {
		r.failedWith("n", tt.failed)
		got := ""
		for _, typ := range r.order("n", types) {
			got += typ
		}
		if got != tt.want {
			t.Errorf("after %q: %s, wanted %s", tt.failed, got, tt.want)
		}
	}
	r.succeeded([]string{"n"})
	if len(r.failed) != 0 {
		t.Error("remembers beyond success")
	}
}
