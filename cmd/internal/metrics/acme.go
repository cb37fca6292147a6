package metrics

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ACME counts requests to CAs. It satisfies acmeclient.Metrics.
type ACME struct {
	requests    *prometheus.CounterVec
	requestTime *prometheus.HistogramVec
	badNonces   *prometheus.CounterVec

	probes, transitions, downgrades, v1Used, v2Refused *prometheus.CounterVec

	version *prometheus.GaugeVec
}

func newACME(r prometheus.Registerer) *ACME {
	a := &ACME{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatelodge_acme_requests_total", Help: "Requests to CAs, by CA, endpoint and status; code \"none\": no answer.",
		}, []string{"ca", "endpoint", "code"}),
		requestTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gatelodge_acme_request_seconds", Help: "Time of requests to CAs, by CA.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"ca"}),
		badNonces: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatelodge_acme_bad_nonces_total", Help: "Requests sent again because the CA refused its own nonce, by CA.",
		}, []string{"ca"}),
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gatelodge_acme_" + name, Help: help}, append([]string{"ca"}, labels...))
		r.MustRegister(c)
		return c
	}
	a.probes = counter("probes_total", "Looks at a CA's directories, by CA and what was found.", "class")
	a.transitions = counter("negotiation_transitions_total", "Changes of what is known of a CA's protocol.", "from", "to")
	a.downgrades = counter("downgrade_suspected_total", "Alarms: a CA that spoke v2 offers v1, or nothing.")
	a.v1Used = counter("v1_orders_total", "Certificates ordered over the deprecated ACME v1.")
	a.v2Refused = counter("v2_refused_total", "Looks at which v2 was offered though acme_version is \"1\".")
	a.version = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gatelodge_acme_protocol_version", Help: "Version of ACME that this node speaks with a CA: 2, 1 (deprecated), or 0 for none (not known yet, or a downgrade is suspected).",
	}, []string{"ca"})
	r.MustRegister(a.requests, a.requestTime, a.badNonces, a.version)
	return a
}

// Probe, Transition, DowngradeSuspected, Speaks, V1Used and V2Refused satisfy acmeclient.NegotiationMetrics.

// Probe counts one look at a directory.
func (a *ACME) Probe(ca, class string) { a.probes.WithLabelValues(ca, class).Inc() }

// Transition counts a change of state of the negotiation.
func (a *ACME) Transition(ca, from, to string) { a.transitions.WithLabelValues(ca, from, to).Inc() }

// DowngradeSuspected counts an alarm.
func (a *ACME) DowngradeSuspected(ca string) { a.downgrades.WithLabelValues(ca).Inc() }

// Speaks shows the version that is spoken.
func (a *ACME) Speaks(ca string, version int) { a.version.WithLabelValues(ca).Set(float64(version)) }

// V1Used counts a certificate that was ordered over v1.
func (a *ACME) V1Used(ca string) { a.v1Used.WithLabelValues(ca).Inc() }

// V2Refused counts a look at which v2 was offered but not wanted.
func (a *ACME) V2Refused(ca string) { a.v2Refused.WithLabelValues(ca).Inc() }

// endpoints are the keys of a directory (RFC 8555 §7.1.1, RFC 9773 §4, and those of v1) and the resources behind them.
func endpoints() []string {
	return []string{
		"directory", "newNonce", "newAccount", "newOrder", "newAuthz", "revokeCert", "keyChange", "renewalInfo",
		"account", "order", "authorization", "challenge", "finalize", "certificate",
		"new-reg", "new-authz", "new-cert", "revoke-cert", "key-change",
	}
}

// Request counts one request. Status 0 means that there was no answer.
func (a *ACME) Request(ca, endpoint string, status int, took time.Duration) {
	if !slices.Contains(endpoints(), endpoint) {
		endpoint = other
	}
	a.requests.WithLabelValues(ca, endpoint, code(status)).Inc()
	a.requestTime.WithLabelValues(ca).Observe(took.Seconds())
}

// BadNonce counts a request that was sent again.
func (a *ACME) BadNonce(ca string) { a.badNonces.WithLabelValues(ca).Inc() }

// code bounds what a CA may make a label of.
func code(status int) string {
	switch {
	case status == 0:
		return "none"
	case status < 100 || status > 599:
		return other
	}
	return strconv.Itoa(status)
}
