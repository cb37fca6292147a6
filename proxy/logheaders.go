package proxy

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logHeaders says which fields of requests are logged, canonical. It does not change.
type logHeaders struct {
	names  []string
	all    bool // the names count for nothing
	redact map[string]bool
}

func newLogHeaders(names, redact []string) *logHeaders {
	if len(names) == 0 {
		return nil
	}
	l := &logHeaders{redact: map[string]bool{}}
	for _, name := range names {
		l.all = l.all || name == "*"
		l.names = append(l.names, http.CanonicalHeaderKey(name))
	}
	for _, name := range redact {
		l.redact[http.CanonicalHeaderKey(name)] = true
	}
	return l
}

// maxLogged bounds a value in the log: a client may send a header of 64 KiB with each request.
const maxLogged = 1024

// field is the header for the log: values as they went on, in one text, those that are to be redacted without what they say.
func (l *logHeaders) field(h http.Header) zap.Field {
	return zap.Object("headers", zapcore.ObjectMarshalerFunc(func(enc zapcore.ObjectEncoder) error {
		names := l.names
		if l.all {
			names = slices.Sorted(maps.Keys(h))
		}
		for _, name := range names {
			v := h[name]
			switch {
			case len(v) == 0:
			case l.redact[name]:
				enc.AddString(name, "[redacted]")
			default:
				text := strings.Join(v, ", ")
				enc.AddString(name, text[:min(len(text), maxLogged)])
			}
		}
		return nil
	}))
}
