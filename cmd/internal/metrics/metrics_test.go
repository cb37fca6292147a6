package metrics

import (
	"errors"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMetrics_CountsByClassesThatStrangersCannotExtend(t *testing.T) {
	m := New("v0")
	p, c, a := m.Proxy(), m.Certs(), m.ACME()
	p.Handshake(true, 2*time.Millisecond)
	p.Handshake(false, time.Second)
	p.Request("h2", 204, time.Millisecond)
	p.Request("h2", 999, time.Millisecond)
	p.Request("gopher", 200, time.Millisecond)
	p.UpstreamError("connect")
	p.UpstreamError("victim.example.com")
	p.Connections(2)
	p.Connections(-1)
	c.Handshake("warm")
	c.Issuance("le", "new", "ok", 3*time.Second)
	c.Issuance("le", "renew", "name", 3*time.Second)
	a.Request("le", "newOrder", 201, time.Second)
	a.Request("le", "https://victim", 0, time.Second)
	a.Request("le", "order", 12345, time.Second)
	a.BadNonce("le")
	a.Speaks("le", 1)
	a.Speaks("le", 2)
	a.Speaks("old", 1)
	a.V1Used("old")
	m.Ask().Asked("denied", time.Millisecond)
	m.Ask().Asked("victim.example.com", time.Millisecond)

	got := scrape(t, m.Handler())
	for _, line := range []string{
		`gatelodge_tls_handshakes_total{result="failed"} 1`,
		`gatelodge_tls_handshakes_total{result="ok"} 1`,
		`gatelodge_tls_handshake_seconds_count 1`,
		`gatelodge_requests_total{class="2xx",protocol="h2"} 1`,
		`gatelodge_requests_total{class="none",protocol="h2"} 1`,
		`gatelodge_requests_total{class="2xx",protocol="other"} 1`,
		`gatelodge_request_seconds_count{protocol="h2"} 2`,
		`gatelodge_upstream_errors_total{class="connect"} 1`,
		`gatelodge_upstream_errors_total{class="other"} 1`,
		`gatelodge_connections 1`,
		`gatelodge_certificate_lookups_total{result="warm"} 1`,
		`gatelodge_issuances_total{ca="le",kind="new",result="ok"} 1`,
		`gatelodge_issuances_total{ca="le",kind="renew",result="name"} 1`,
		`gatelodge_issuance_seconds_count{ca="le",kind="new"} 1`,
		`gatelodge_acme_requests_total{ca="le",code="201",endpoint="newOrder"} 1`,
		`gatelodge_acme_requests_total{ca="le",code="none",endpoint="other"} 1`,
		`gatelodge_acme_requests_total{ca="le",code="other",endpoint="order"} 1`,
		`gatelodge_acme_bad_nonces_total{ca="le"} 1`,
		`gatelodge_acme_protocol_version{ca="le"} 2`,
		`gatelodge_acme_protocol_version{ca="old"} 1`,
		`gatelodge_acme_v1_orders_total{ca="old"} 1`,
		`gatelodge_ask_requests_total{result="denied"} 1`,
		`gatelodge_ask_requests_total{result="failed"} 0`,
		`gatelodge_ask_requests_total{result="other"} 1`,
		`gatelodge_ask_request_seconds_count 2`,
		`gatelodge_build_info{go_version=`,
		`go_goroutines `,
	} {
		if !strings.Contains(got, "\n"+line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	if strings.Contains(got, "victim") {
		t.Error("/metrics has a label that a caller made up")
	}
}

func TestMetrics_NamesFollowTheConventions(t *testing.T) {
	m := New("v0")
	m.ACME().Request("le", "order", 200, time.Second)
	m.WatchCertificates(func() iter.Seq[time.Time] { return slices.Values([]time.Time{time.Now()}) })
	m.WatchUpstreams(func() []Upstream { return []Upstream{{Name: "app"}} })
	m.WatchWorkload(func() Workload { return Workload{Orders: map[string]int{"queued": 1}} })
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if p.Metric == "gatelodge_certificate_days_left" { // in days, not in the base unit: people plan renewals in days
			continue
		}
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestMetrics_ShowsCertificatesByDaysLeft(t *testing.T) {
	m := New("v0")
	days := func(n float64) time.Time { return time.Now().Add(time.Duration(n * 24 * float64(time.Hour))) }
	ends := []time.Time{days(-2), days(0.5), days(6.5), days(80), days(400)}
	m.WatchCertificates(func() iter.Seq[time.Time] { return slices.Values(ends) })
	got := scrape(t, m.Handler())
	for _, line := range []string{`_bucket{le="0"} 1`, `_bucket{le="1"} 2`, `_bucket{le="7"} 3`, `_bucket{le="90"} 4`, `_count 5`} {
		if !strings.Contains(got, "\ngatelodge_certificate_days_left"+line+"\n") {
			t.Errorf("/metrics lacks gatelodge_certificate_days_left%s", line)
		}
	}
	ends = nil // as renewals happen, certificates leave the low buckets
	if got := scrape(t, m.Handler()); !strings.Contains(got, "\ngatelodge_certificate_days_left_count 0\n") {
		t.Error("certificates that are gone are still shown")
	}
}

func TestMetrics_ShowsUpstreamsByNameAndState(t *testing.T) {
	m := New("v0")
	m.WatchUpstreams(func() []Upstream {
		return []Upstream{{Name: "app", Targets: map[string]int{"up": 2, "out": 1}, Requests: 9, Failures: 3, Retries: 2, InFlight: 5, Waiting: 4}}
	})
	got := scrape(t, m.Handler())
	for _, line := range []string{
		`gatelodge_upstream_targets{state="up",upstream="app"} 2`, `gatelodge_upstream_targets{state="out",upstream="app"} 1`,
		`gatelodge_upstream_targets{state="down",upstream="app"} 0`, `gatelodge_upstream_requests_total{upstream="app"} 9`,
		`gatelodge_upstream_failures_total{upstream="app"} 3`, `gatelodge_upstream_retries_total{upstream="app"} 2`,
		`gatelodge_upstream_in_flight{upstream="app"} 5`, `gatelodge_upstream_waiting{upstream="app"} 4`,
	} {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("/metrics lacks %s", line)
		}
	}
}

func TestMetrics_ShowsWhatThereIsToDo(t *testing.T) {
	m := New("v0")
	m.WatchWorkload(func() Workload {
		return Workload{
			Orders: map[string]int{"queued": 3, "running": 2, "parked": 1}, Withheld: map[string]int{"new_orders": 7, "per_tenant": 0},
			Remembered: map[string]int{"allowed": 4, "denied": 5},
		}
	})
	got := scrape(t, m.Handler())
	for _, line := range []string{
		`gatelodge_orders{state="queued"} 3`, `gatelodge_orders{state="running"} 2`, `gatelodge_orders{state="parked"} 1`,
		`gatelodge_orders_withheld{budget="new_orders"} 7`, `gatelodge_orders_withheld{budget="per_tenant"} 0`,
		`gatelodge_ask_remembered{verdict="allowed"} 4`, `gatelodge_ask_remembered{verdict="denied"} 5`,
	} {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("/metrics lacks %s", line)
		}
	}
}

func TestMetrics_AllocatesNothingOnTheWayOfARequest(t *testing.T) {
	m := New("v0")
	p, c := m.Proxy(), m.Certs()
	for name, f := range map[string]func(){
		"handshake":      func() { p.Handshake(true, time.Millisecond) },
		"request":        func() { p.Request("h2", 200, time.Millisecond) },
		"upstream error": func() { p.UpstreamError("connect") },
		"connection":     func() { p.Connections(1) },
		"lookup":         func() { c.Handshake("warm") },
	} {
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

func TestServer_SaysWhetherTheProcessLivesAndIsReady(t *testing.T) {
	notReady := errors.New("draining")
	s := start(t, func(string) error { return notReady })
	if status, body := get(t, s, "/healthz"); status != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d %q", status, body)
	}
	if status, body := get(t, s, "/readyz"); status != 503 || body != "draining\n" {
		t.Errorf("/readyz while draining: %d %q", status, body)
	}
	notReady = nil
	if status, _ := get(t, s, "/readyz"); status != 200 {
		t.Errorf("/readyz: %d", status)
	}
	if status, body := get(t, s, "/metrics"); status != 200 || !strings.Contains(body, "gatelodge_build_info") {
		t.Errorf("/metrics: %d", status)
	}
	if status, _ := get(t, s, "/debug/pprof/"); status != 404 {
		t.Errorf("/debug/pprof/: %d", status)
	}
}

func TestServer_RefusesAListenerThatOthersCanReach(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := NewServer(ServerConfig{Listener: l, Metrics: New("v0"), Logger: zap.NewNop()}); err == nil {
		t.Error("it serves on all addresses")
	}
}

func TestServer_WithoutMetricsAnswersLoadBalancersAndNothingElse(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0") // anybody may ask
	if err != nil {
		t.Fatal(err)
	}
	var asked string
	s, err := NewServer(ServerConfig{Listener: l, Ready: func(from string) error { asked = from; return errors.New("draining") }, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Addr().String())
	for path, want := range map[string]int{"/readyz": 503, "/metrics": 404, "/healthz": 404} {
		res, err := http.Get("http://127.0.0.1:" + port + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
	}
	if asked != "127.0.0.1" {
		t.Errorf("asked by %q", asked)
	}
}

func TestServer_ClosesItsListenerWithoutStart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(ServerConfig{Listener: l, Metrics: New("v0"), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
}

func start(t *testing.T, ready func(from string) error) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(ServerConfig{Listener: l, Metrics: New("v0"), Ready: ready, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func get(t *testing.T, s *Server, path string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + s.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func scrape(t *testing.T, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return "\n" + w.Body.String()
}
