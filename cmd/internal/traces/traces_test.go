package traces

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) {
	// net/http waits for half a second in it before it closes a connection whose client may still be sending, longer than goleak waits.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

func start(t *testing.T, h http.HandlerFunc) (*Traces, *observer.ObservedLogs) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	core, logs := observer.New(zap.InfoLevel)
	tr, err := New(t.Context(), Config{Endpoint: s.URL, Version: "v1", Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	return tr, logs
}

func TestTraces_SendWhatIsLeftWhenTheyEnd(t *testing.T) {
	var spans atomic.Int64
	tr, _ := start(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &req); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		for _, rs := range req.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				spans.Add(int64(len(ss.Spans)))
			}
			if rs.Resource.Attributes[0].Value.GetStringValue() != "gatelodge" {
				t.Errorf("resource %v", rs.Resource)
			}
		}
	})
	for range 1000 {
		_, span := tr.Tracer().Start(context.Background(), "GET")
		span.End()
	}
	if err := tr.Close(t.Context()); err != nil || spans.Load() != 1000 {
		t.Errorf("%d spans arrived, %v", spans.Load(), err)
	}
}

// A collector that hangs costs spans, never time of a request.
func TestTraces_NeverWaitForTheirCollector(t *testing.T) {
	hang := make(chan struct{})
	tr, _ := start(t, func(http.ResponseWriter, *http.Request) { <-hang })
	begin := time.Now()
	for range 5 * queueSize {
		_, span := tr.Tracer().Start(context.Background(), "GET")
		span.End()
	}
	if took := time.Since(begin); took > time.Minute { // with waiting it would be 40 batches of 10 s each
		t.Errorf("%d spans took %v", 5*queueSize, took)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := tr.Close(ctx); err == nil {
		t.Error("what could not be delivered was said to be")
	}
	close(hang)
}

func TestTraces_SayOnceThatNothingIsDelivered(t *testing.T) {
	tr, logs := start(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) })
	for range 3 {
		_, span := tr.Tracer().Start(context.Background(), "GET")
		span.End()
		if err := tr.provider.ForceFlush(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := logs.FilterMessage("traces not delivered").Len(); n != 1 {
		t.Errorf("said %d times", n)
	}
}
