package proxy

import (
	"crypto/tls"
	"time"

	"go.uber.org/zap"
)

// record counts the request and writes its line into the access log. What the client says about itself is escaped by the encoder and never more than
// address, target, User-Agent, and the fields that Settings.LogHeaders names.
func (x *exchange) record() {
	took := time.Since(x.start)
	status := x.status
	if status == 0 {
		status = statusClientClosed
	}
	x.srv.cfg.Metrics.Request(x.conn.protocol(), status, took)

	log := x.srv.cfg.AccessLog
	if log == nil || x.site != nil && !x.site.AccessLog {
		return
	}
	entry := log.Check(zap.InfoLevel, "request")
	if entry == nil {
		return
	}
	fields := [20]zap.Field{
		zap.String("request_id", x.id),
		zap.Stringer("client", x.client),
		zap.String("method", x.r.Method),
		zap.String("host", x.r.Host),
		zap.String("uri", x.r.RequestURI),
		zap.String("proto", x.r.Proto),
		zap.Int("status", status),
		zap.Int64("bytes_out", x.bytesOut),
		zap.Int64("bytes_in", x.bytesIn()),
		zap.Duration("duration", took),
		zap.String("user_agent", x.r.UserAgent()),
	}
	n := 11
	add := func(f zap.Field) { fields[n] = f; n++ }
	if x.site != nil {
		add(zap.String("site", x.site.Name))
	}
	if x.upstream != "" {
		add(zap.String("upstream", x.upstream))
	}
	if x.conn.version != 0 {
		add(zap.String("tls", tls.VersionName(x.conn.version)))
	}
	if x.hijacked || x.connecting != nil {
		add(zap.String("upgrade", x.upgrade))
	}
	if x.abandoned {
		add(zap.Bool("cut", true))
	}
	if x.err != nil {
		add(zap.Error(x.err))
	}
	if x.state != nil && x.state.logged != nil {
		add(x.state.logged.field(x.r.Header))
	}
	entry.Write(fields[:n]...)
}

// protocol is the name of the connection's protocol for metrics.
func (c *conn) protocol() string {
	switch {
	case c.h1 != nil:
		return "h1"
	case c.h3 != nil:
		return "h3"
	}
	return "h2"
}

func (x *exchange) bytesIn() int64 {
	if x.body != nil {
		return x.body.bytes.Load()
	}
	return x.tunnelIn
}
