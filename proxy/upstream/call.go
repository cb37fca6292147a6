package upstream

import (
	"context"
	"net"
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

	conn   net.Conn        // which carries the request
	parent context.Context // see WithCall
}

// GotConn belongs into the httptrace.ClientTrace of the request: it tells which connection to close when an answer cannot be trusted.
func (c *Call) GotConn(info httptrace.GotConnInfo) { c.conn = info.Conn }

// WithCall returns a context with the call, which can be used for one context only.
func WithCall(ctx context.Context, c *Call) context.Context {
	c.parent = ctx
	return callContext{c}
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

// callOf returns the call of a request; one of nobody if there is none.
func callOf(ctx context.Context) *Call {
	if c, ok := ctx.Value(callKey{}).(*Call); ok {
		return c
	}
	return &Call{}
}
