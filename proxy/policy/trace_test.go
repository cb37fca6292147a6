package policy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"gatelodge/proxy/policy"
)

var _ wrapper = (*policy.Trace)(nil)

const (
	traceID  = "0af7651916cd43dd8448eb211c80319c"
	parentID = "b7ad6b7169203331"
	given    = "00-" + traceID + "-" + parentID
)

func newTrace(t testing.TB, sample float64) (*policy.Trace, *tracetest.SpanRecorder) {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	p, err := policy.NewTrace(policy.TraceConfig{
		Tracer: provider.Tracer("test"), Sample: sample, Client: clientOf,
		Trusted: func(r *http.Request) bool { return r.Header.Get("Test-Trusted") != "" },
		Status:  func(*http.Request) int { return 404 },
	})
	if err != nil {
		t.Fatal(err)
	}
	return p, spans
}

func TestTrace_GoesOnWithATraceOrBeginsOne(t *testing.T) {
	const ours, fresh = "00-" + traceID + "-[0-9a-f]{16}-", "00-[0-9a-f]{32}-[0-9a-f]{16}-"
	for name, row := range map[string]struct {
		sample  float64
		parent  []string
		trusted bool
		want    string // what goes on
		state   bool   // tracestate goes on
	}{
		"none, recorded":                   {1, nil, false, fresh + "01", false},
		"none, not recorded":               {0, nil, false, fresh + "00", false},
		"one, recorded by our choice":      {1, []string{given + "-00"}, false, ours + "01", true},
		"one, not recorded by our choice":  {0, []string{given + "-01"}, false, ours + "00", true},
		"a trusted proxy's, recorded":      {0, []string{given + "-01"}, true, ours + "01", true},
		"a trusted proxy's, not recorded":  {1, []string{given + "-00"}, true, ours + "00", true},
		"a trusted proxy without":          {1, nil, true, fresh + "01", false},
		"of a later version":               {1, []string{"01-" + traceID + "-" + parentID + "-01-more"}, false, ours + "01", true},
		"two":                              {1, []string{given + "-01", given + "-01"}, false, fresh + "01", false},
		"with more than there is":          {1, []string{given + "-01-more"}, false, fresh + "01", false},
		"in upper case":                    {1, []string{strings.ToUpper(given) + "-01"}, false, fresh + "01", false},
		"of no trace":                      {1, []string{"00-" + strings.Repeat("0", 32) + "-" + parentID + "-01"}, false, fresh + "01", false},
		"of no span":                       {1, []string{"00-" + traceID + "-" + strings.Repeat("0", 16) + "-01"}, false, fresh + "01", false},
		"of the version that cannot exist": {1, []string{"ff-" + traceID + "-" + parentID + "-01"}, false, fresh + "01", false},
		"nonsense":                         {1, []string{"x"}, false, fresh + "01", false},
	} {
		t.Run(name, func(t *testing.T) {
			p, spans := newTrace(t, row.sample)
			s := serve(t, p, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, strings.Join(r.Header["Traceparent"], "|")+" "+r.Header.Get("Tracestate"))
			})
			fields := []string{"Tracestate", "vendor=1"}
			for _, v := range row.parent {
				fields = append(fields, "Traceparent", v)
			}
			if row.trusted {
				fields = append(fields, "Test-Trusted", "yes")
			}
			a := get(t, s, fields...)
			parent, state, _ := strings.Cut(a.body, " ")
			if !regexp.MustCompile("^"+row.want+"$").MatchString(parent) || strings.Contains(parent, parentID) {
				t.Errorf("went on as %s, want %s", parent, row.want)
			}
			if (state != "") != row.state {
				t.Errorf("tracestate went on as %q", state)
			}
			s.Close() // waits for the handler, which ends the span
			if got := len(spans.Ended()); got != strings.Count(row.want[len(row.want)-2:], "1") {
				t.Fatalf("%d spans", got)
			}
			for _, span := range spans.Ended() {
				if want := strings.Split(parent, "-"); span.SpanContext().TraceID().String() != want[1] || span.SpanContext().SpanID().String() != want[2] {
					t.Errorf("recorded %v, told %s", span.SpanContext(), parent)
				}
				if row.state && span.Parent().SpanID().String() != parentID {
					t.Errorf("parent %v", span.Parent())
				}
			}
		})
	}
}

func TestTrace_RecordsWhatHappenedAndNoQuery(t *testing.T) {
	p, spans := newTrace(t, 1)
	h := p.Wrap(http.HandlerFunc(ok))
	r := httptest.NewRequest("BREW", "/pot/"+strings.Repeat("x", 1000)+"?token=secret", nil)
	r.Header.Set("User-Agent", "kettle")
	r.Header.Set(clientField, "192.0.2.1")
	h.ServeHTTP(httptest.NewRecorder(), r)
	span := spans.Ended()[0]
	got := map[string]string{}
	for _, kv := range span.Attributes() {
		got[string(kv.Key)] = kv.Value.String()
	}
	for key, want := range map[string]string{
		"http.request.method": "_OTHER", "http.response.status_code": "404", "client.address": "192.0.2.1", "user_agent.original": "kettle", "network.protocol.version": "1.1",
	} {
		if got[key] != want {
			t.Errorf("%s: %q, want %q", key, got[key], want)
		}
	}
	if span.SpanKind() != trace.SpanKindServer || len(got["url.path"]) != 256 || strings.Contains(strings.Join(strings.Fields(span.Name()), ""), "secret") {
		t.Errorf("%v %q %v", span.SpanKind(), span.Name(), got)
	}
	for key, v := range got {
		if strings.Contains(v, "secret") {
			t.Errorf("%s shows the query: %s", key, v)
		}
	}
}

// Spans travel together in protobuf, which takes nothing but UTF-8: one client's bytes would cost everybody's.
func TestTrace_RecordsTextWhateverTheClientSends(t *testing.T) {
	p, spans := newTrace(t, 1)
	h := p.Wrap(http.HandlerFunc(ok))
	for _, text := range []string{"\xff", "a\xc3", strings.Repeat("\xfe", 1000), strings.Repeat("x", 255) + "é", strings.Repeat("é", 200) + "\xff"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = "/" + text
		r.Header.Set("User-Agent", text)
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	for _, span := range spans.Ended() {
		for _, kv := range span.Attributes() {
			if v := kv.Value.String(); !utf8.ValidString(v) || len(v) > 260 {
				t.Errorf("%s = %q", kv.Key, v)
			}
		}
	}
}

func TestNewTrace_RefusesImpossibleParts(t *testing.T) {
	for _, sample := range []float64{-0.1, 1.1} {
		if _, err := policy.NewTrace(policy.TraceConfig{Tracer: sdktrace.NewTracerProvider().Tracer(""), Sample: sample, Status: func(*http.Request) int { return 0 }}); err == nil {
			t.Errorf("%v: no error", sample)
		}
	}
}

func FuzzTraceparent(f *testing.F) {
	for _, s := range []string{"", given + "-01", "01-" + traceID + "-" + parentID + "-01-x", "00--", "ff-" + traceID + "-" + parentID + "-00"} {
		f.Add(s)
	}
	p, _ := newTrace(f, 0)
	form := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-00$`)
	h := p.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if got := r.Header["Traceparent"]; len(got) != 1 || !form.MatchString(got[0]) {
			f.Errorf("went on as %q", got)
		}
	}))
	f.Fuzz(func(_ *testing.T, field string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Traceparent"] = []string{field}
		h.ServeHTTP(nil, r)
	})
}

func BenchmarkTrace(b *testing.B) {
	for name, sample := range map[string]float64{"not recorded": 0, "recorded": 1} {
		b.Run(name, func(b *testing.B) {
			provider := sdktrace.NewTracerProvider()
			p, err := policy.NewTrace(policy.TraceConfig{Tracer: provider.Tracer("test"), Sample: sample, Client: clientOf, Status: func(*http.Request) int { return 200 }})
			if err != nil {
				b.Fatal(err)
			}
			h := p.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(nil, r)
			}
		})
	}
}
