// Package metrics counts what the program does and serves the counts, with the process's health, on loopback.
//
// No label is a name, a client or anything else that strangers choose: the number of series is bounded by the configuration. The rooms that count know only small
// interfaces of their own; [Metrics.Proxy], [Metrics.Certs], [Metrics.Ask] and [Metrics.ACME] return what satisfies them.
package metrics

import (
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are all counts of one process, in a registry of their own.
type Metrics struct {
	registry *prometheus.Registry
	proxy    *Proxy
	certs    *Certs
	ask      *Ask
	acme     *ACME
}

// New returns counts at zero. Version is the program's, for gatelodge_build_info.
func New(version string) *Metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gatelodge_build_info", Help: "Always 1; the labels say what runs.",
	}, []string{"version", "go_version"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	r.MustRegister(build)
	return &Metrics{registry: r, proxy: newProxy(r), certs: newCerts(r), ask: newAsk(r), acme: newACME(r)}
}

// Proxy counts connections and requests.
func (m *Metrics) Proxy() *Proxy { return m.proxy }

// Certs counts certificate lookups and issuances.
func (m *Metrics) Certs() *Certs { return m.certs }

// Ask counts requests to the endpoint that decides about on-demand names.
func (m *Metrics) Ask() *Ask { return m.ask }

// ACME counts requests to CAs.
func (m *Metrics) ACME() *ACME { return m.acme }

// Handler serves the counts in the formats that Prometheus reads.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		Registry:            m.registry,
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	})
}

// other stands for a label value that is none of those we know, so that no caller can make series without end.
const other = "other"

// known makes one child for each value in advance, and one for all others: looking one up allocates nothing.
func known[T any](values []string, child func(value string) T) map[string]T {
	m := make(map[string]T, len(values)+1)
	for _, v := range append(values, other) {
		m[v] = child(v)
	}
	return m
}

// of returns the child of the value.
func of[T any](children map[string]T, value string) T {
	if c, ok := children[value]; ok {
		return c
	}
	return children[other]
}
