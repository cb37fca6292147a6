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
	t := &tunnel{client: client, back: back}
	defer func() { _ = t.Close() }()
	if !x.srv.tunnels.add(t) {
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
}

// run copies both ways until both sides have closed theirs, or one fails, or nothing passes for too long. src is what the client sends.
func (t *tunnel) run(src io.Reader) {
	defer t.watchIdle()()
	var upward sync.WaitGroup
	upward.Go(func() { t.copy(t.back, src, &t.up) })
	t.copy(t.client, t.back, &t.down)
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

// Close ends both sides.
func (t *tunnel) Close() error { return errors.Join(t.client.Close(), t.back.Close()) }
