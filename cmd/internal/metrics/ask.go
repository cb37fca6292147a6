package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Ask counts requests to the endpoint of on_demand.ask. It satisfies permission.AskMetrics.
type Ask struct {
	requests    map[string]prometheus.Counter
	requestTime prometheus.Histogram
}

func newAsk(r prometheus.Registerer) *Ask {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatelodge_ask_requests_total", Help: "Requests to on_demand.ask, by result; failed: it gave no verdict.",
	}, []string{"result"})
	a := &Ask{
		requests: known([]string{"allowed", "denied", "failed"}, func(result string) prometheus.Counter { return requests.WithLabelValues(result) }),
		requestTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gatelodge_ask_request_seconds", Help: "Time of requests to on_demand.ask, with the wait for one of the places.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2, 5, 10},
		}),
	}
	r.MustRegister(requests, a.requestTime)
	return a
}

// Asked counts one request.
func (a *Ask) Asked(result string, took time.Duration) {
	of(a.requests, result).Inc()
	a.requestTime.Observe(took.Seconds())
}

// Workload is what there is to do for certificates just now.
type Workload struct {
	Orders     map[string]int // by state: queued, running, parked
	Withheld   map[string]int // names that wait for a budget, by budget
	Remembered map[string]int // names of which it is known what ask said, by verdict
}

// WatchWorkload shows what now returns whenever the counts are read. The labels come from the program alone.
func (m *Metrics) WatchWorkload(now func() Workload) {
	desc := func(name, help, label string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{label}, nil)
	}
	m.registry.MustRegister(&workload{
		now:        now,
		orders:     desc("gatelodge_orders", "Certificates to be obtained now, by state: queued (waits for a place), running, parked (its CAs fail).", "state"),
		withheld:   desc("gatelodge_orders_withheld", "Names whose certificates wait for room in one of issue.budget.", "budget"),
		remembered: desc("gatelodge_ask_remembered", "Names of which it is remembered what on_demand.ask said, by verdict.", "verdict"),
	})
}

// workload collects it.
type workload struct {
	now                          func() Workload
	orders, withheld, remembered *prometheus.Desc
}

func (w *workload) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{w.orders, w.withheld, w.remembered} {
		ch <- d
	}
}

func (w *workload) Collect(ch chan<- prometheus.Metric) {
	now := w.now()
	for _, gauges := range []struct {
		desc   *prometheus.Desc
		values map[string]int
	}{{w.orders, now.Orders}, {w.withheld, now.Withheld}, {w.remembered, now.Remembered}} {
		for label, n := range gauges.values {
			ch <- prometheus.MustNewConstMetric(gauges.desc, prometheus.GaugeValue, float64(n), label)
		}
	}
}
