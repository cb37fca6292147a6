package upstream_test

import (
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"gatelodge/proxy/proxytest"
	"gatelodge/proxy/upstream"
)

// BenchmarkRoundTrip is a request of 1 KB to a target on loopback: one, three balanced as by default, and three behind all that there is.
func BenchmarkRoundTrip(b *testing.B) {
	kilobyte := strings.Repeat("x", 1024)
	var to []string
	for range 3 {
		to = append(to, proxytest.Upstream(b, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, kilobyte) }))
	}
	for name, cfg := range map[string]upstream.Config{
		"one target":    {To: to[:1]},
		"three targets": {To: to},
		"everything": {
			To: to, Balance: "least_conn", Sticky: "lb", MaxConns: 100, Queue: upstream.Queue{Max: 10, Wait: 1e9}, Passive: passive, Retries: retries, SlowStart: 1e9,
		},
	} {
		b.Run(name, func(b *testing.B) {
			p, err := upstream.New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			b.ReportAllocs()
			before := cpu()
			for b.Loop() {
				r, _ := http.NewRequest(http.MethodGet, "/path", nil)
				r.Host = "a.test"
				res, err := p.RoundTrip(r)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
			b.ReportMetric(float64(cpu()-before)/1e3/float64(b.N), "cpu-us/op") // pool and target together
		})
	}
}

// cpu is the processor time of this process in nanoseconds.
func cpu() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}
