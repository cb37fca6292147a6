package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

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

// tunnel is an upgraded connection.
type tunnel struct {
	client   net.Conn
	back     io.ReadWriteCloser
	up, down atomic.Int64 // bytes
}

// run copies both ways until both sides have closed theirs, or one fails. buffered has what the client sent too early.
func (t *tunnel) run(buffered *bufio.Reader) {
	var upward sync.WaitGroup
	upward.Go(func() { t.copy(t.back, buffered, &t.up) })
	t.copy(t.client, t.back, &t.down)
	upward.Wait()
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
