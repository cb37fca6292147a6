package policy

import (
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// TraceConfig makes each request a part of a trace (W3C Trace Context).
type TraceConfig struct {
	// Tracer records the requests that are chosen, all of which it must take. Required.
	Tracer trace.Tracer

	// Sample is the part of the requests that is recorded, from 0 to 1.
	Sample float64

	// Trusted reports whether the one who sent the request has decided already what is recorded. Others may name a trace that theirs belongs to, but not
	// make us record it. Nil: nobody.
	Trusted func(r *http.Request) bool

	// Client, Host and RequestID are attributes of what is recorded, each nil for none. Status is that of the answer, asked for after it; zero for none. Required.
	Client    ClientAddr
	Host      func(r *http.Request) string
	RequestID func(r *http.Request) string
	Status    func(r *http.Request) int
}

// Trace goes on with the trace that a request names, or begins one. What stands behind it is told in either case, by the field traceparent.
type Trace struct{ cfg TraceConfig }

// NewTrace returns an error for what cannot be recorded.
func NewTrace(cfg TraceConfig) (*Trace, error) {
	if cfg.Tracer == nil || cfg.Status == nil {
		return nil, errors.New("policy: a trace needs a tracer and the status of answers")
	}
	if !(cfg.Sample >= 0 && cfg.Sample <= 1) {
		return nil, errors.New("policy: the part of requests to trace is between 0 and 1")
	}
	return &Trace{cfg: cfg}, nil
}

const (
	parentField = "Traceparent"
	stateField  = "Tracestate"
)

// Wrap records the time until the answer is complete.
func (t *Trace) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parent := parseParent(r.Header[parentField])
		if !parent.IsValid() {
			delete(r.Header, stateField) // W3C Trace Context §3.3: it has no meaning without
		}
		if !t.chosen(r, parent) {
			own := parent.WithTraceFlags(0).WithSpanID(newSpanID())
			if !parent.IsValid() {
				own = own.WithTraceID(newTraceID())
			}
			setParent(r.Header, own)
			next.ServeHTTP(w, r)
			return
		}
		ctx := trace.ContextWithRemoteSpanContext(context.WithoutCancel(r.Context()), parent.WithTraceFlags(trace.FlagsSampled))
		_, span := t.cfg.Tracer.Start(ctx, methodOf(r), trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(t.attributes(r)...))
		setParent(r.Header, span.SpanContext())
		defer t.end(span, r)
		next.ServeHTTP(w, r)
	})
}

// chosen reports whether the request is recorded.
func (t *Trace) chosen(r *http.Request, parent trace.SpanContext) bool {
	if parent.IsValid() && t.cfg.Trusted != nil && t.cfg.Trusted(r) {
		return parent.IsSampled()
	}
	return t.cfg.Sample > 0 && rand.Float64() < t.cfg.Sample
}

// attributes are what OpenTelemetry calls them. The query is not among them: it is where secrets are.
func (t *Trace) attributes(r *http.Request) []attribute.KeyValue {
	all := []attribute.KeyValue{
		attribute.String("http.request.method", methodOf(r)),
		attribute.String("url.path", clip(r.URL.Path)),
		attribute.String("network.protocol.version", strings.TrimPrefix(r.Proto, "HTTP/")),
	}
	if t.cfg.Client != nil {
		all = append(all, attribute.String("client.address", t.cfg.Client(r).String()))
	}
	if t.cfg.Host != nil {
		all = append(all, attribute.String("server.address", t.cfg.Host(r)))
	}
	if t.cfg.RequestID != nil {
		all = append(all, attribute.String("gatelodge.request_id", t.cfg.RequestID(r)))
	}
	if agent := r.UserAgent(); agent != "" {
		all = append(all, attribute.String("user_agent.original", clip(agent)))
	}
	return all
}

// clip bounds what a client can make us keep, and makes text of it: protobuf refuses anything else, and with it whatever was to be sent together.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 256)], "\uFFFD") }

// methodOf is the method if it is a usual one; a client can think of any number of others.
func methodOf(r *http.Request) string {
	switch r.Method {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		return r.Method
	}
	return "_OTHER"
}

func (t *Trace) end(span trace.Span, r *http.Request) {
	status := t.cfg.Status(r)
	if status != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", status))
	}
	if status == 0 || status >= 500 {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// parseParent takes "00-TRACE-SPAN-FLAGS" (W3C Trace Context §3.2), and of later versions what they have in common with it. Anything else, or more than
// one, is no parent.
func parseParent(fields []string) trace.SpanContext {
	const size = len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-00")
	if len(fields) != 1 {
		return trace.SpanContext{}
	}
	s := fields[0]
	if len(s) < size || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" || s[:2] == "00" && len(s) > size || len(s) > size && s[size] != '-' ||
		strings.ContainsFunc(s[:size], func(c rune) bool { return c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'f') }) {
		return trace.SpanContext{}
	}
	var version, flags [1]byte
	var cfg trace.SpanContextConfig
	for _, part := range []struct {
		into []byte
		text string
	}{{version[:], s[:2]}, {cfg.TraceID[:], s[3:35]}, {cfg.SpanID[:], s[36:52]}, {flags[:], s[53:55]}} {
		if _, err := hex.Decode(part.into, []byte(part.text)); err != nil {
			return trace.SpanContext{}
		}
	}
	cfg.TraceFlags = trace.TraceFlags(flags[0]) & trace.FlagsSampled
	cfg.Remote = true
	return trace.NewSpanContext(cfg)
}

func setParent(h http.Header, s trace.SpanContext) {
	id, span := s.TraceID(), s.SpanID()
	b := append(make([]byte, 0, 55), "00-"...)
	b = append(hex.AppendEncode(b, id[:]), '-')
	b = append(hex.AppendEncode(b, span[:]), "-00"...)
	if s.IsSampled() {
		b[len(b)-1] = '1'
	}
	h[parentField] = []string{string(b)}
}

func newTraceID() (id trace.TraceID) { _, _ = crand.Read(id[:]); return id } // never fails, nor is it all zero

func newSpanID() (id trace.SpanID) { _, _ = crand.Read(id[:]); return id }
