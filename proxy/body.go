package proxy

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gatelodge/proxy/upstream"
)

var (
	errBodyTooLarge = errors.New("request body too large")
	errBodyFinished = errors.New("request body read after the request")
	errBodyBegun    = errors.New("request body was sent already")

	errBodyBeyondLength = errors.New("request body longer than content-length")
)

// requestBody is the client's body on its way to the upstream, read by the transport's goroutine. The transport may outlive the request and even be in
// the middle of a Read when the answer is complete, so finish ends that.
type requestBody struct {
	x     *exchange
	src   io.ReadCloser
	limit int64       // zero means none
	out   http.Header // trailers towards the upstream, filled in at the end of the body

	reading  sync.Mutex // held during Read
	finished atomic.Bool
	complete atomic.Bool // the end was seen
	bytes    atomic.Int64
	failure  atomic.Pointer[error]
	pace     *pace
}

func (x *exchange) newRequestBody() *requestBody {
	return &requestBody{x: x, src: x.r.Body, limit: x.bodyLimit(), pace: x.newPace()}
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.finished.Load() {
		return 0, errBodyFinished
	}
	b.pace.begin()
	n, err := b.src.Read(p)
	total := b.bytes.Add(int64(n))
	b.x.conn.earn(n)
	if length := b.x.r.ContentLength; length > 0 && total >= length && err == nil && b.x.conn.h1 == nil {
		err = b.confirmEnd()
	}
	late := b.pace.end(n)
	if err != nil && err != io.EOF {
		n = 0
	}
	switch {
	case late:
		n, err = 0, os.ErrDeadlineExceeded
	case b.limit > 0 && total > b.limit:
		n, err = 0, errBodyTooLarge
	case err == io.EOF:
		b.takeTrailers()
		b.complete.Store(true)
	}
	if err != nil && err != io.EOF && !b.finished.Load() {
		b.failure.CompareAndSwap(nil, &err)
	}
	return n, err
}

// confirmEnd waits for the end of a body that has as many bytes as content-length says, before the last of them go on: over HTTP/2 and HTTP/3 more could
// follow, and then the request is malformed (RFC 9113 §8.1.1, RFC 9114 §4.1.2), but the upstream would have taken it for complete.
func (b *requestBody) confirmEnd() error {
	var more [1]byte
	for {
		n, err := b.src.Read(more[:])
		if n > 0 {
			return errBodyBeyondLength
		}
		if err != nil {
			return err
		}
	}
}

// Close does nothing: the transport calls it when it has lost interest, but the client's connection is not its to close.
func (b *requestBody) Close() error { return nil }

// again is http.Request.GetBody: it lets the transport try another connection when the one it took from the pool turns out to be closed, as long as nothing
// of the body was read.
func (b *requestBody) again() (io.ReadCloser, error) {
	if b.bytes.Load() > 0 || b.complete.Load() || b.err() != nil {
		return nil, errBodyBegun
	}
	return b, nil
}

// Err makes it an upstream.FallibleBody.
func (b *requestBody) Err() error { return b.err() }

var _ upstream.FallibleBody = (*requestBody)(nil)

// err returns why the body could not be read, nil if it could.
func (b *requestBody) err() error {
	if e := b.failure.Load(); e != nil {
		return *e
	}
	return nil
}

// finish makes every Read fail from now on, also one that is waiting for the client, and returns when none is under way. A Read after the end, which the transport
// makes to see that nothing follows, waits for nobody: by then the connection's reads are net/http's, and a deadline would be the end of the connection.
func (b *requestBody) finish() {
	b.finished.Store(true)
	if !b.reading.TryLock() {
		if !b.complete.Load() {
			_ = http.NewResponseController(b.x.ResponseWriter).SetReadDeadline(time.Unix(1, 0))
		}
		b.reading.Lock()
	}
	b.reading.Unlock()
}

// takeTrailers passes the client's trailers on, but for those that must not trail.
func (b *requestBody) takeTrailers() {
	if b.out == nil {
		return
	}
	for name, v := range b.x.r.Trailer {
		if b.x.mayTrail(name) && len(v) > 0 {
			b.out[name] = v
		}
	}
}
