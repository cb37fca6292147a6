package proxy

import (
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// endedBody is a body that is at its end, whose next Read takes until release.
type endedBody struct {
	ended   bool
	again   chan struct{} // closed when that Read has begun
	release func()
	wait    chan struct{}
}

func newEndedBody() *endedBody {
	b := &endedBody{again: make(chan struct{}), wait: make(chan struct{})}
	b.release = sync.OnceFunc(func() { close(b.wait) })
	return b
}

func (b *endedBody) Read([]byte) (int, error) {
	if b.ended {
		close(b.again)
		<-b.wait
	}
	b.ended = true
	return 0, io.EOF
}

func (b *endedBody) Close() error { return nil }

// deadlineWriter is of a connection, of which it counts the deadlines.
type deadlineWriter struct {
	http.ResponseWriter
	set func()
}

func (w deadlineWriter) SetReadDeadline(time.Time) error {
	w.set()
	return nil
}

// The transport reads once more after the end of a body. By then net/http waits for the connection's next request, which a deadline would end.
func TestRequestBody_LeavesAConnectionAloneWhoseBodyWasRead(t *testing.T) {
	x := testExchange(t)
	x.srv.cfg.Limits.StallTimeout = time.Hour
	src, deadlines := newEndedBody(), 0
	x.ResponseWriter = deadlineWriter{set: func() { deadlines++; src.release() }}
	x.r.Body = src
	b := x.newRequestBody()
	if _, err := b.Read(nil); err != io.EOF {
		t.Fatal(err)
	}
	go func() { _, _ = b.Read(nil) }()
	<-src.again
	finished := make(chan struct{})
	go func() { b.finish(); close(finished) }()
	for !b.finished.Load() {
		time.Sleep(time.Millisecond)
	}
	time.AfterFunc(100*time.Millisecond, src.release) // a deadline would be there by then
	<-finished
	if deadlines != 0 {
		t.Error("the connection got a deadline, though nobody waited for the client")
	}
}
