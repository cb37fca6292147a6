package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
)

// Classes of failure. An [Error] matches its class with errors.Is.
var (
	// ErrConnect: no connection, or no TLS session that we trust. Nothing of the request was sent.
	ErrConnect = errors.New("cannot connect")

	// ErrTimeout: the upstream took longer than Config allows, be it to connect or to answer.
	ErrTimeout = errors.New("timed out")

	// ErrProtocol: the upstream answered with something that is not HTTP as we asked for it.
	ErrProtocol = errors.New("invalid answer")

	// ErrAborted: the upstream closed the connection before its answer was complete.
	ErrAborted = errors.New("connection closed early")

	// ErrUnavailable: no target could take the request: none is up, or all have as many as they may. Nothing was sent.
	ErrUnavailable = errors.New("no target available")

	// ErrCanceled: the client went away. No fault of the upstream, and not counted as one.
	ErrCanceled = errors.New("canceled by the client")
)

// Error is a failure of one attempt to reach a target.
type Error struct {
	Target string // as configured
	Class  error  // one of the Err values
	Err    error  // what happened, for the log only: it names addresses

	unsent  bool // nothing of the request can have reached the target
	clients bool // the body of the request could not be read, which is no fault of the target
}

// newError makes an Error of what http.Transport or a body returned.
func newError(r *http.Request, e *endpoint, err error) *Error {
	failure := &Error{Target: e.label, Class: classOf(r.Context(), err), Err: err, unsent: isUnsent(err)}
	if b, ok := r.Body.(FallibleBody); ok {
		failure.clients = b.Err() != nil
	}
	return failure
}

// FallibleBody is the body of a request that knows why it could not be read. What fails after that counts against no target.
type FallibleBody interface {
	Err() error // nil if it could be read so far
}

func (e *Error) Error() string { return fmt.Sprintf("upstream %s: %v: %v", e.Target, e.Class, e.Err) }

// Unwrap makes both the class and the cause visible to errors.Is.
func (e *Error) Unwrap() []error { return []error{e.Class, e.Err} }

// Classify returns the class of a failure in one word, for metrics: "connect", "timeout", "protocol", "aborted", "unavailable", "canceled". An error that
// this package did not make counts as "protocol".
func Classify(err error) string {
	switch {
	case errors.Is(err, ErrCanceled):
		return "canceled"
	case errors.Is(err, ErrTimeout):
		return "timeout"
	case errors.Is(err, ErrConnect):
		return "connect"
	case errors.Is(err, ErrAborted):
		return "aborted"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	}
	return "protocol"
}

// dialError marks what failed before there was a connection that requests go over; http.Transport does not say.
type dialError struct{ error }

func (e dialError) Unwrap() error { return e.error }

// protocolError marks an answer that is none.
type protocolError struct{ error }

// isUnsent reports whether there certainly was no connection yet, or no TLS session.
func isUnsent(err error) bool {
	_, dialling := errors.AsType[dialError](err)
	return dialling
}

// classOf finds the class of an error of http.Transport. Its texts are the only trace of some causes; all that we do not know is ErrProtocol.
func classOf(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return ErrCanceled
	}
	if _, ok := errors.AsType[protocolError](err); ok {
		return ErrProtocol
	}
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
		return ErrTimeout
	}
	if _, ok := errors.AsType[dialError](err); ok {
		return ErrConnect
	}
	if isAlert(err) || err.Error() == "http2: client conn could not be established" { // closed before it said anything
		return ErrConnect
	}
	for _, gone := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed} {
		if errors.Is(err, gone) {
			return ErrAborted
		}
	}
	if err.Error() == "http: server closed idle connection" {
		return ErrAborted
	}
	return ErrProtocol
}

// isAlert reports whether the upstream ended the TLS session, which it may do after the handshake if it does not like our certificate (RFC 8446 §4.4.2.4).
func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && (op.Op == "remote error" || op.Op == "local error")
}
