package metrics

import "github.com/prometheus/client_golang/prometheus"

// Upstream is what there is to say of a named upstream.
type Upstream struct {
	Name               string
	Targets            map[string]int // how many are in which state: up, slow, trial, out, down
	Requests, Failures uint64         // of all targets together; a reload that changes the upstream begins anew
	Retries            uint64
	InFlight, Waiting  int
}

// WatchUpstreams shows what all returns whenever the counts are read. The label is the name of an upstream, so the configuration bounds the series.
func (m *Metrics) WatchUpstreams(all func() []Upstream) {
	desc := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"upstream"}, more...), nil)
	}
	m.registry.MustRegister(&upstreams{
		all:      all,
		targets:  desc("gatelodge_upstream_targets", "Targets of an upstream, by state.", "state"),
		requests: desc("gatelodge_upstream_requests_total", "Requests to the targets of an upstream, those that were repeated and the first tries."),
		failures: desc("gatelodge_upstream_failures_total", "Of them, those that failed by a target's fault."),
		retries:  desc("gatelodge_upstream_retries_total", "Requests that went to another target after one had failed."),
		inFlight: desc("gatelodge_upstream_in_flight", "Requests that the targets of an upstream have now."),
		waiting:  desc("gatelodge_upstream_waiting", "Requests that wait for a place."),
	})
}

// upstreams collects them.
type upstreams struct {
	all                                                     func() []Upstream
	targets, requests, failures, retries, inFlight, waiting *prometheus.Desc
}

func (u *upstreams) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{u.targets, u.requests, u.failures, u.retries, u.inFlight, u.waiting} {
		ch <- d
	}
}

func (u *upstreams) Collect(ch chan<- prometheus.Metric) {
	for _, up := range u.all() {
		for _, state := range []string{"up", "slow", "trial", "out", "down"} {
			ch <- prometheus.MustNewConstMetric(u.targets, prometheus.GaugeValue, float64(up.Targets[state]), up.Name, state)
		}
		ch <- prometheus.MustNewConstMetric(u.requests, prometheus.CounterValue, float64(up.Requests), up.Name)
		ch <- prometheus.MustNewConstMetric(u.failures, prometheus.CounterValue, float64(up.Failures), up.Name)
		ch <- prometheus.MustNewConstMetric(u.retries, prometheus.CounterValue, float64(up.Retries), up.Name)
		ch <- prometheus.MustNewConstMetric(u.inFlight, prometheus.GaugeValue, float64(up.InFlight), up.Name)
		ch <- prometheus.MustNewConstMetric(u.waiting, prometheus.GaugeValue, float64(up.Waiting), up.Name)
	}
}
