package proxy

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gatelodge/proxy/upstream"
)

// switchProtocols makes the two connections one tunnel after the upstream's 101 (RFC 9110 §7.8): WebSocket and whatever else the client asked for. The
// tunnel belongs to the request and ends with it.
func (x *exchange) switchProtocols(res *http.Response) {
	back, ok := res.Body.(io.ReadWriteCloser)
	if !ok || x.upgrade == "" || !strings.EqualFold(res.Header.Get("Upgrade"), x.upgrade) {
		_ = res.Body.Close()
		x.upstreamFailed(&upstream.Error{Target: x.upstream, Class: upstream.ErrProtocol, Err: errors.New("101 to another protocol than was asked for")})
		return
	}
	defer func() { _ = back.Close() }()
	client, buffered, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err != nil {
		x.abort(err)
		return
	}
	x.hijacked, x.status = true, http.StatusSwitchingProtocols
	t := &tunnel{client: client, back: back, websocket: strings.EqualFold(x.upgrade, "websocket")} // RFC 9110 §7.8: names of protocols are compared without case
	defer func() { _ = t.Close() }()
	if !x.srv.tunnels.add(t, x.carrier()) {
		x.abort(errDraining)
		return
	}
	defer x.srv.tunnels.remove(t)

	x.editResponse(res.Header)
	if err := writeSwitch(buffered.Writer, res.Header, x.upgrade); err != nil {
		x.abort(err)
		return
	}
	t.run(buffered.Reader)
	x.bytesOut, x.tunnelIn = t.down.Load(), t.up.Load()
}

var errDraining = errors.New("shutting down")

// writeSwitch writes the 101 answer.
func writeSwitch(w *bufio.Writer, h http.Header, protocol string) error {
	cleanResponseHeader(h)
	h["Connection"] = []string{"Upgrade"}
	h["Upgrade"] = []string{protocol}
	_, _ = w.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = h.Write(w)
	_, _ = w.WriteString("\r\n")
	return w.Flush() // returns what any of them met
}

// tunnel is a connection whose bytes mean nothing to us: an upgraded one, or one that passes through.
type tunnel struct {
	client   io.WriteCloser
	back     io.ReadWriteCloser
	up, down atomic.Int64 // bytes

	idle   time.Duration // how long nothing may pass; zero means for ever
	passed atomic.Int64  // when something last did, in Unix nanoseconds; kept where idle is set
	err    error         // why it came to nothing, for the log

	websocket bool
	leaving   atomic.Bool // a Close frame is to be sent to a WebSocket's client
	turn      sync.Mutex  // held while something is written to that client; guards the rest
	running   bool        // the answer to its handshake was written, and the tunnel has not ended
	frames    frames      // those that pass to it
	left      bool        // our Close frame was sent: nothing may follow it
}

// run copies both ways until both sides have closed theirs, or one fails, or nothing passes for too long. src is what the client sends.
func (t *tunnel) run(src io.Reader) {
	defer t.watchIdle()()
	t.setRunning(true)
	defer t.setRunning(false)
	var upward sync.WaitGroup
	upward.Go(func() { t.copy(t.back, src, &t.up) })
	t.copy(downward{t}, t.back, &t.down)
	upward.Wait()
}

// watchIdle closes the tunnel when nothing has passed for t.idle. The result ends that.
func (t *tunnel) watchIdle() (stop func()) {
	if t.idle == 0 {
		return func() {}
	}
	t.passed.Store(time.Now().UnixNano())
	var mu sync.Mutex // held while the timer's function runs
	stopped := false
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(t.idle, func() {
		mu.Lock()
		defer mu.Unlock()
		if stopped {
			return
		}
		if left := t.idle - time.Since(time.Unix(0, t.passed.Load())); left > 0 {
			timer.Reset(left)
			return
		}
		_ = t.Close()
	})
	return func() {
		timer.Stop()
		mu.Lock()
		defer mu.Unlock()
		stopped = true
	}
}

// copy passes src on until it ends, and then its end. If something fails it closes both sides, which ends the other direction too.
func (t *tunnel) copy(dst io.Writer, src io.Reader, n *atomic.Int64) {
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	for {
		k, err := src.Read(buf[:])
		if k > 0 {
			if _, werr := dst.Write(buf[:k]); werr != nil {
				_ = t.Close()
				return
			}
			n.Add(int64(k))
			if t.idle != 0 {
				t.passed.Store(time.Now().UnixNano())
			}
		}
		if err == nil {
			continue
		}
		if cw, ok := dst.(interface{ CloseWrite() error }); err != io.EOF || !ok || cw.CloseWrite() != nil {
			_ = t.Close()
		}
		return
	}
}

// downward is the client's side of a tunnel, between whose frames a Close may be put.
type downward struct{ t *tunnel }

func (d downward) Write(p []byte) (int, error) {
	n, err := d.write(p)
	d.t.leaveIfAsked()
	return n, err
}

func (d downward) write(p []byte) (int, error) {
	t := d.t
	if !t.websocket {
		return t.client.Write(p)
	}
	t.turn.Lock()
	defer t.turn.Unlock()
	if t.left { // RFC 6455 §5.5.1: "The application MUST NOT send any more data frames after sending a Close frame."
		return len(p), nil
	}
	n, err := t.client.Write(p)
	t.frames.advance(p[:n])
	return n, err
}

// CloseWrite passes the upstream's end on.
func (d downward) CloseWrite() error {
	if cw, ok := d.t.client.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// leave sends a WebSocket's client a Close frame, as soon as the frame that is passing has passed.
func (t *tunnel) leave() {
	t.leaving.Store(true)
	t.leaveIfAsked()
}

// setRunning is called at the beginning and at the end of run.
func (t *tunnel) setRunning(running bool) {
	t.turn.Lock()
	t.running = running
	t.turn.Unlock()
	t.leaveIfAsked()
}

// leaveIfAsked is called after each write too: whoever has the turn when leave is called looks again when it has given it back.
func (t *tunnel) leaveIfAsked() {
	if !t.websocket || !t.leaving.Load() || !t.turn.TryLock() {
		return
	}
	defer t.turn.Unlock()
	if t.running && !t.left && t.frames.between() {
		t.left = true
		_, _ = t.client.Write(goingAway) // if it does not arrive the tunnel ends soon in any case
	}
}

// Close ends both sides.
func (t *tunnel) Close() error { return errors.Join(t.client.Close(), t.back.Close()) }
