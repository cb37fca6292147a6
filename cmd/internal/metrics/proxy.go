package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Proxy counts what happens on the way of a request. It satisfies proxy.Metrics; its methods allocate nothing.
type Proxy struct {
	handshakes     [2]prometheus.Counter // failed, ok
	handshakeTime  prometheus.Histogram
	requests       map[string]*[6]prometheus.Counter // by protocol; 0 for answers without a status, 1 to 5 for 1xx to 5xx
	requestTime    map[string]prometheus.Observer
	upstreamErrors map[string]prometheus.Counter
	connections    prometheus.Gauge
}

func newProxy(r prometheus.Registerer) *Proxy {
	handshakes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatelodge_tls_handshakes_total", Help: "TLS handshakes that ended, by result.",
	}, []string{"result"})
	handshakeTime := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "gatelodge_tls_handshake_seconds", Help: "Time of successful TLS handshakes, from accept to Finished.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
	})
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatelodge_requests_total", Help: "Requests that ended, by protocol and class of the status.",
	}, []string{"protocol", "class"})
	requestTime := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "gatelodge_request_seconds", Help: "Time from a request's header to the end of its answer, by protocol.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	}, []string{"protocol"})
	upstreamErrors := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatelodge_upstream_errors_total", Help: "Requests that an upstream did not answer, by class.",
	}, []string{"class"})
	connections := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gatelodge_connections", Help: "Open connections of clients.",
	})
	r.MustRegister(handshakes, handshakeTime, requests, requestTime, upstreamErrors, connections)

	protocols := []string{"h1", "h2", "h3"}
	return &Proxy{
		handshakes:    [2]prometheus.Counter{handshakes.WithLabelValues("failed"), handshakes.WithLabelValues("ok")},
		handshakeTime: handshakeTime,
		requests: known(protocols, func(protocol string) *[6]prometheus.Counter {
			var byClass [6]prometheus.Counter
			for i, class := range []string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"} {
				byClass[i] = requests.WithLabelValues(protocol, class)
			}
			return &byClass
		}),
		requestTime: known(protocols, func(protocol string) prometheus.Observer { return requestTime.WithLabelValues(protocol) }),
		upstreamErrors: known([]string{"connect", "timeout", "protocol", "aborted", "unavailable"}, func(class string) prometheus.Counter {
			return upstreamErrors.WithLabelValues(class)
		}),
		connections: connections,
	}
}

// Handshake counts a TLS handshake. Only successful ones are timed: a failed one may be a scanner that said nothing until its timeout.
func (p *Proxy) Handshake(ok bool, took time.Duration) {
	if !ok {
		p.handshakes[0].Inc()
		return
	}
	p.handshakes[1].Inc()
	p.handshakeTime.Observe(took.Seconds())
}

// Request counts a request of protocol "h1" or "h2". A status outside 100 to 599 counts as none: the client went away before.
func (p *Proxy) Request(protocol string, status int, took time.Duration) {
	class := status / 100
	if class < 1 || class > 5 {
		class = 0
	}
	of(p.requests, protocol)[class].Inc()
	of(p.requestTime, protocol).Observe(took.Seconds())
}

// UpstreamError counts a request that an upstream did not answer.
func (p *Proxy) UpstreamError(class string) { of(p.upstreamErrors, class).Inc() }

// Connections adds delta to the open connections.
func (p *Proxy) Connections(delta int) { p.connections.Add(float64(delta)) }
