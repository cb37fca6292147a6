package proxy

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// slowBody is how a client sends: so many bytes after so much time, again and again.
type slowBody struct {
	bytes int
	after time.Duration
}

// lasts returns after how long the pace ends the body, zero if not within an hour. The upstream takes as long as idle between two Reads.
func (c slowBody) lasts(p *pace, idle time.Duration) time.Duration {
	begin := time.Now()
	cut := make(chan struct{}, 1)
	p.cut = func() { cut <- struct{}{} }
	for time.Since(begin) < time.Hour {
		p.begin()
		n := 0
		select {
		case <-time.After(c.after):
			n = c.bytes
		case <-cut:
		}
		if p.end(n) {
			return time.Since(begin)
		}
		time.Sleep(idle)
	}
	return 0
}

func TestPace_EndsBodiesThatComeTooSlowlyAndNoOthers(t *testing.T) {
	for name, row := range map[string]struct {
		client   slowBody
		upstream time.Duration
		limits   Limits
		length   int64
		header   http.Header
		answered bool
		min, max time.Duration // when it ends; zero for never
	}{
		"a byte a second":                           {client: slowBody{1, time.Second}, length: 1000, min: 40 * time.Second, max: time.Minute},
		"a byte in a minute":                        {client: slowBody{1, time.Minute}, length: 1000, min: 40 * time.Second, max: time.Minute},
		"nothing":                                   {client: slowBody{0, 2 * time.Hour}, length: 1000, min: 40 * time.Second, max: time.Minute},
		"half of the rate":                          {client: slowBody{64, time.Second}, length: 1000, min: time.Minute, max: 2 * time.Minute},
		"the rate":                                  {client: slowBody{128, time.Second}, length: 1000},
		"the rate, in bursts of half a minute":      {client: slowBody{128 * 30, 30 * time.Second}, length: 1000},
		"a byte a second, no limit":                 {client: slowBody{1, time.Second}, limits: Limits{BodyRate: -1}, length: 1000},
		"nothing, no limit to the rate":             {client: slowBody{0, 2 * time.Hour}, limits: Limits{BodyRate: -1}, length: 1000, min: 40 * time.Second, max: time.Minute},
		"quick, to an upstream that takes a minute": {client: slowBody{64 << 10, time.Millisecond}, upstream: time.Minute, length: 1000},
		"no length, a byte a second":                {client: slowBody{1, time.Second}, length: -1, min: 40 * time.Second, max: time.Minute},
		"no length, answered already":               {client: slowBody{1, time.Minute}, length: -1, answered: true},
		"a length, answered already":                {client: slowBody{1, time.Second}, length: 1000, answered: true, min: 40 * time.Second, max: time.Minute},
		"a stream of gRPC messages":                 {client: slowBody{5, time.Minute}, length: -1, header: http.Header{"Content-Type": {"application/grpc+proto"}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := &exchange{srv: &Server{cfg: Config{Limits: row.limits.withDefaults()}}, r: &http.Request{ContentLength: row.length, Header: row.header}}
				p := x.newPace()
				if row.answered {
					p.answered()
				}
				if took := row.client.lasts(p, row.upstream); took < row.min || took > row.max {
					t.Errorf("ended after %v, want %v to %v", took, row.min, row.max)
				}
			})
		})
	}
}

// The answer begins while a Read waits for the client.
func TestPace_LetsAConversationBeginWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &exchange{srv: &Server{cfg: Config{Limits: Limits{}.withDefaults()}}, r: &http.Request{ContentLength: -1}}
		p := x.newPace()
		p.cut = func() { t.Error("the conversation was cut") }
		p.begin()
		time.Sleep(30 * time.Second)
		p.answered()
		time.Sleep(time.Hour)
		if p.end(1) {
			t.Error("the body counts as too slow")
		}
	})
}

func TestPace_AllocatesNothingForARead(t *testing.T) {
	x := &exchange{srv: &Server{cfg: Config{Limits: Limits{}.withDefaults()}}, r: &http.Request{ContentLength: 1}}
	p := x.newPace()
	p.begin()
	p.end(1)
	if n := testing.AllocsPerRun(100, func() { p.begin(); p.end(1000) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPace(b *testing.B) {
	x := &exchange{srv: &Server{cfg: Config{Limits: Limits{}.withDefaults()}}, r: &http.Request{ContentLength: 1}}
	p := x.newPace()
	b.ReportAllocs()
	for b.Loop() {
		p.begin()
		p.end(1000)
	}
}
