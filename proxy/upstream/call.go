package upstream

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"time"
)

// A Call is what a Pool has to know of a request beyond the request itself, and what it says about its way. Whoever calls RoundTrip makes one for each
// request, fills in the first part and passes it by [WithCall]; without one requests cannot be told apart by their client.
type Call struct {
	// Client is who asks, for balancing by address.
	Client netip.Addr

	// Secure: the client came by TLS, so that cookies can be for TLS alone.
	Secure bool

	// Target is who was asked last; empty if nobody was. RoundTrip sets it.
	Target string

	method string          // of the request
	conn   net.Conn        // which carries it
	parent context.Context // see WithCall
}

// WithCall returns a context with the call, which can be used for one context only, and the trace, in which the call has GotConn for itself.
func WithCall(ctx context.Context, c *Call, trace *httptrace.ClientTrace) context.Context {
	trace.GotConn = c.gotConn
	c.parent = httptrace.WithClientTrace(ctx, trace)
	return callContext{c}
}

// gotConn hears which connection is to carry the request, before a byte of it is sent.
func (c *Call) gotConn(info httptrace.GotConnInfo) {
	c.conn = info.Conn
	if g, ok := info.Conn.(*guardedConn); ok {
		g.expect(c.method)
	}
}

// callContext is what context.WithValue would return, without its allocations.
type callContext struct{ *Call }

func (c callContext) Deadline() (time.Time, bool) { return c.parent.Deadline() }
func (c callContext) Done() <-chan struct{}       { return c.parent.Done() }
func (c callContext) Err() error                  { return c.parent.Err() }

func (c callContext) Value(key any) any {
	if _, ok := key.(callKey); ok {
		return c.Call
	}
	return c.parent.Value(key)
}

type callKey struct{}

// withCall returns the call of a request. If it has none it gets one of nobody.
func withCall(r *http.Request) (*http.Request, *Call) {
	if c, ok := r.Context().Value(callKey{}).(*Call); ok {
		return r, c
	}
	c := &Call{}
	return r.WithContext(WithCall(r.Context(), c, &httptrace.ClientTrace{})), c
}
