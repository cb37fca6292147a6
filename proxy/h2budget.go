package proxy

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// h2Budget bounds what a connection of HTTP/2 may bring that is of no use: frames such as SETTINGS, PRIORITY, WINDOW_UPDATE, PING, empty DATA, and those of
// unknown types, each of which costs the processor something (RFC 9113 §10.5). It compares the bytes that came, TLS and all, with those of requests and bodies in
// both directions.
type h2Budget struct {
	began  time.Time
	came   int64        // bytes; of the one goroutine that reads the connection
	useful atomic.Int64 // bytes
}

func newH2Budget(now time.Time) *h2Budget { return &h2Budget{began: now} }

const (
	// h2Waste is how many bytes a connection may bring for nothing, and h2WastePerSecond how many more for each second of its life: a client that lets a stream wait for days
	// sends a PING every second perhaps, which is 39 bytes.
	h2Waste          = 4 << 20
	h2WastePerSecond = 128

	// h2Overhead is how many it may bring besides for each that is of use. WebSockets and gRPC whose messages have one byte need 10.
	h2Overhead = 64

	// h2RequestWorth is what a request is worth besides its body: as many as h2Overhead times that may come of a body that nobody wants to read, a megabyte.
	h2RequestWorth = 16 << 10
)

var errWasteful = errors.New("more frames of HTTP/2 that bring nothing than a client has reason to send")

// take counts n bytes that came, and refuses what is too much.
func (b *h2Budget) take(n int) error {
	if b.came += int64(n); b.came <= h2Waste+h2Overhead*b.useful.Load() { // as good as always: the clock is not looked at
		return nil
	}
	if b.came > h2Waste+h2Overhead*b.useful.Load()+h2WastePerSecond*int64(time.Since(b.began).Seconds()) {
		return errWasteful
	}
	return nil
}

// earn counts n bytes of use; only HTTP/2 asks for them.
func (c *conn) earn(n int) {
	if c.h2 != nil {
		c.h2.useful.Add(int64(n))
	}
}

// wasted ends a connection by an error that its engine reads.
func (c *conn) wasted(err error) error {
	c.srv.log.Info("connection ended", zap.Error(err), zap.Stringer("client", c.peer), zap.String("name", c.name))
	return err
}

// earner counts what is read through it.
type earner struct {
	io.Reader
	conn *conn
}

func (e *earner) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	e.conn.earn(n)
	return n, err
}
