// Package traces sends what is recorded about requests to a collector (OTLP over HTTP). Requests never wait for it: what has no place in its queue is
// left out.
package traces

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// Config says where to.
type Config struct {
	// Endpoint is the collector's URL; without a path it means /v1/traces. The SDK's environment variables say the rest, such as
	// OTEL_EXPORTER_OTLP_HEADERS and OTEL_RESOURCE_ATTRIBUTES.
	Endpoint string

	Version string // of this program
	Logger  *zap.Logger
}

// Traces has a queue of spans and a goroutine that empties it; Close ends both.
type Traces struct{ provider *sdktrace.TracerProvider }

const (
	queueSize     = 4096             // spans that wait; more are left out
	exportTimeout = 10 * time.Second // for one batch, its repetitions included
	complainEvery = time.Minute      // at most, about a collector that is away
)

// New opens no connection yet.
func New(ctx context.Context, cfg Config) (*Traces, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Host == "" {
		return nil, errors.New("trace.otlp is no URL")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithTimeout(exportTimeout))
	if err != nil {
		return nil, fmt.Errorf("open trace.otlp: %w", err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "gatelodge"), attribute.String("service.version", cfg.Version)), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describe this program to trace.otlp: %w", err)
	}
	return &Traces{sdktrace.NewTracerProvider(
		sdktrace.WithResource(about),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // who asks for a span has chosen
		sdktrace.WithBatcher(&patient{SpanExporter: exporter, log: cfg.Logger}, sdktrace.WithMaxQueueSize(queueSize), sdktrace.WithExportTimeout(exportTimeout)),
	)}, nil
}

// Tracer is what records.
func (t *Traces) Tracer() trace.Tracer { return t.provider.Tracer("gatelodge") }

// Close sends what is in the queue, for as long as ctx permits.
func (t *Traces) Close(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// patient keeps the failures of an exporter from the SDK, which would print them, and says now and then that there are some.
type patient struct {
	sdktrace.SpanExporter
	log    *zap.Logger
	silent time.Time // until when nothing is said
	lost   int       // spans, since something was said
}

// ExportSpans is called by one goroutine.
func (p *patient) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := p.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	p.lost += len(spans)
	if now := time.Now(); now.After(p.silent) {
		p.log.Warn("traces not delivered", zap.Int("spans_lost", p.lost), zap.Error(err))
		p.silent, p.lost = now.Add(complainEvery), 0
	}
	return nil
}
