package metrics

import (
	"iter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Certs counts what happens to certificates. It satisfies certs.Metrics.
type Certs struct {
	lookups      map[string]prometheus.Counter
	issuances    *prometheus.CounterVec
	issuanceTime *prometheus.HistogramVec
	events       *prometheus.CounterVec
}

func newCerts(r prometheus.Registerer) *Certs {
	lookups := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatelodge_certificate_lookups_total", Help: "Certificates asked for by handshakes, by where they came from or why there was none.",
	}, []string{"result"})
	c := &Certs{
		lookups: known([]string{"warm", "loaded", "issued", "denied", "failed", "challenge", "unknown", "standin"}, func(result string) prometheus.Counter {
			return lookups.WithLabelValues(result)
		}),
		issuances: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatelodge_issuances_total", Help: "Attempts to get a certificate, by CA, kind (new, renew) and result: ok, or whom the failure concerns.",
		}, []string{"ca", "kind", "result"}),
		issuanceTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gatelodge_issuance_seconds", Help: "Time of successful issuances, by CA and kind.",
			Buckets: []float64{.01, .05, .1, .5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600},
		}, []string{"ca", "kind"}),
	}
	c.events = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatelodge_certificate_events_total", Help: "What a person may have to act upon, by kind, once an hour at most for the same subject.",
	}, []string{"kind"})
	r.MustRegister(c.events, lookups, c.issuances, c.issuanceTime)
	return c
}

// Handshake counts a certificate lookup; it allocates nothing.
func (c *Certs) Handshake(result string) { of(c.lookups, result).Inc() }

// Issuance counts an attempt. Only successful ones are timed.
func (c *Certs) Issuance(ca, kind, result string, took time.Duration) {
	c.issuances.WithLabelValues(ca, kind, result).Inc()
	if result == "ok" {
		c.issuanceTime.WithLabelValues(ca, kind).Observe(took.Seconds())
	}
}

// Event counts what a person may have to act upon.
func (c *Certs) Event(kind string) { c.events.WithLabelValues(kind).Inc() }

// WatchCertificates makes the registry ask for the ends of all certificates at each scrape, and show how many have how many days left. It is called once at most. The
// sequence must be safe to be read at any time.
func (m *Metrics) WatchCertificates(notAfter func() iter.Seq[time.Time]) {
	m.registry.MustRegister(&daysLeft{
		notAfter: notAfter,
		desc: prometheus.NewDesc("gatelodge_certificate_days_left",
			"Certificates by days left, now: le=\"0\" are expired, le=\"7\" end within a week.", nil, nil),
	})
}

// daysLeft is a histogram of the present, not of events: certificates leave a bucket as others enter it.
type daysLeft struct {
	notAfter func() iter.Seq[time.Time]
	desc     *prometheus.Desc
}

var _ prometheus.Collector = (*daysLeft)(nil)

func (d *daysLeft) Describe(ch chan<- *prometheus.Desc) { ch <- d.desc }

func (d *daysLeft) Collect(ch chan<- prometheus.Metric) {
	buckets := map[float64]uint64{0: 0, 1: 0, 3: 0, 7: 0, 14: 0, 30: 0, 60: 0, 90: 0}
	var count uint64
	var sum float64
	now := time.Now()
	for end := range d.notAfter() {
		days := end.Sub(now).Hours() / 24
		count++
		sum += days
		for le := range buckets {
			if days <= le {
				buckets[le]++
			}
		}
	}
	ch <- prometheus.MustNewConstHistogram(d.desc, count, sum, buckets)
}
