package proxy

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"gatelodge/proxy/upstream"
)

// wantedConnect returns the :protocol of an extended CONNECT (RFC 8441 §4, RFC 9220 §3), empty for any other request. net/http puts it into the header if its
// users let it (GODEBUG http2xconnect), quic-go where the version stands.
func wantedConnect(r *http.Request) string {
	switch {
	case r.Method != http.MethodConnect:
		return ""
	case r.ProtoMajor == 2:
		return r.Header.Get(":protocol")
	case r.ProtoMajor == 3 && r.Proto != "HTTP/3.0":
		return r.Proto
	}
	return ""
}

// connecting is a WebSocket that a client opens on a stream of HTTP/2 or HTTP/3. The upstream gets the handshake that it knows, that of HTTP/1.1 (RFC 6455 §4).
type connecting struct {
	body io.ReadCloser // what the client sends
	key  string        // Sec-WebSocket-Key
}

// beginConnect makes the request one that asks for an upgrade.
func (x *exchange) beginConnect() {
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // never fails
	x.connecting = &connecting{body: x.r.Body, key: base64.StdEncoding.EncodeToString(nonce)}
	x.upgrade = "websocket"
	x.r.Method, x.r.Body, x.r.ContentLength = http.MethodGet, http.NoBody, 0
	delete(x.r.Header, ":protocol")
	x.r.Header["Sec-Websocket-Key"] = []string{x.connecting.key}
}

// websocketAccept is what a server answers to a key (RFC 6455 §4.2.2).
func websocketAccept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// endConnect answers the client once the upstream has answered, and makes the stream and the upstream's connection a tunnel after a 101. Any other answer is the
// client's as it is, but none that says it worked (RFC 8441 §5: "a 2XX series status code indicates success").
func (x *exchange) endConnect(res *http.Response) {
	switched := res.StatusCode == http.StatusSwitchingProtocols
	if !switched && res.StatusCode >= 300 {
		x.respond(res)
		return
	}
	back, ok := res.Body.(io.ReadWriteCloser)
	if !ok || !switched || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") || res.Header.Get("Sec-Websocket-Accept") != websocketAccept(x.connecting.key) {
		_ = res.Body.Close()
		x.upstreamFailed(&upstream.Error{Target: x.upstream, Class: upstream.ErrProtocol, Err: errors.New("no proper answer to a WebSocket handshake")})
		return
	}
	defer func() { _ = back.Close() }()
	t := &tunnel{client: &stream{x: x, watch: x.watchWrites()}, back: back, websocket: true}
	if !x.srv.tunnels.add(t, x.carrier()) {
		x.abort(errDraining)
		return
	}
	defer x.srv.tunnels.remove(t)
	h := x.Header()
	cleanResponseHeader(res.Header)
	delete(res.Header, "Sec-Websocket-Accept")
	for name, v := range res.Header {
		h[name] = v
	}
	x.WriteHeader(http.StatusOK)
	if err := x.FlushError(); err != nil {
		x.abort(err)
		return
	}
	x.streaming = true
	t.run(&earner{x.connecting.body, x.conn})
	x.bytesOut, x.tunnelIn = t.down.Load(), t.up.Load()
}

// stream is the client's side of a tunnel on a stream. It cannot be closed for writing alone: that is what the end of the handler does.
type stream struct {
	x     *exchange
	watch *watchdog
}

func (s *stream) Write(p []byte) (int, error) {
	s.watch.begin()
	defer s.watch.stop()
	n, err := s.x.ResponseWriter.Write(p)
	s.x.conn.earn(n)
	if err == nil {
		err = s.x.FlushError()
	}
	return n, err
}

// Close ends a read that waits for the client.
func (s *stream) Close() error {
	return http.NewResponseController(s.x.ResponseWriter).SetReadDeadline(time.Unix(1, 0))
}
