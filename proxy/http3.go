package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

// http3Engine is quic-go between UDP sockets and our handler. It can be turned on and off while the Server serves.
type http3Engine struct {
	srv *Server
	tls *tls.Config // Server.tls for QUIC

	// newcomers bounds handshakes of addresses that nobody has proved to be theirs; see mustProve.
	newcomers *rate.Limiter

	own  sync.WaitGroup // all goroutines
	live tracker        // connections

	mu       sync.Mutex // guards what follows; held for moments only
	on       bool
	serving  bool
	waits    bool          // for Config.AwaitQUIC
	over     bool          // it will not be turned on again
	sockets  []*quicSocket // none while off and drained
	conns    map[*h3Conn]struct{}
	period   context.Context // of handshakes; ends when it is turned off
	end      context.CancelFunc
	closings int        // listeners and sockets on their way out
	closed   *sync.Cond // of closings
}

// quicSocket is a UDP socket and what uses it.
type quicSocket struct {
	conn      net.PacketConn
	transport *quic.Transport // nil before serving
	listener  *quic.Listener  // nil while off
}

func newHTTP3Engine(s *Server) *http3Engine {
	e := &http3Engine{srv: s, tls: http3.ConfigureTLSConfig(s.tls), newcomers: rate.NewLimiter(100, 200), conns: map[*h3Conn]struct{}{}}
	e.closed = sync.NewCond(&e.mu)
	return e
}

// set turns HTTP/3 on or off. Off lets the requests under way finish. Calls do not overlap (Server.applying).
func (e *http3Engine) set(on bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if on == e.on || e.over {
		return nil
	}
	if !on {
		e.retireLocked()
		return nil
	}
	for e.closings > 0 { // the port may be taken until then
		e.closed.Wait()
	}
	if len(e.sockets) == 0 {
		conns, err := e.srv.cfg.ListenQUIC()
		if err != nil {
			return fmt.Errorf("proxy: HTTP/3: %w", err)
		}
		for _, c := range conns {
			e.sockets = append(e.sockets, &quicSocket{conn: c})
		}
	}
	e.on = true
	if !e.serving || e.waits {
		return nil
	}
	return e.listenLocked()
}

// serves reports whether there is a socket to serve.
func (e *http3Engine) serves() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.sockets) > 0
}

// start begins to serve, if it is on.
func (e *http3Engine) start() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.serving = true
	if await := e.srv.cfg.AwaitQUIC; await != nil {
		e.waits = true
		e.own.Go(func() {
			await(e.srv.ctx)
			e.begin()
		})
		return nil
	}
	if !e.on {
		return nil
	}
	return e.listenLocked()
}

// begin is the end of the wait for Config.AwaitQUIC.
func (e *http3Engine) begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waits = false
	if !e.on {
		return
	}
	if err := e.listenLocked(); err != nil {
		e.srv.log.Error("no HTTP/3 until the next start", zap.Error(err))
	}
}

// listenLocked accepts connections on all sockets.
func (e *http3Engine) listenLocked() error {
	e.period, e.end = context.WithCancel(e.srv.handshaking)
	for _, s := range e.sockets {
		if s.transport == nil {
			s.transport = &quic.Transport{Conn: s.conn, ConnContext: e.accepted, VerifySourceAddress: e.mustProve}
		}
		l, err := s.transport.Listen(e.tls, e.config())
		if err != nil {
			e.retireLocked()
			return fmt.Errorf("proxy: HTTP/3: %w", err)
		}
		s.listener = l
		period := e.period
		e.own.Go(func() {
			for {
				qc, err := l.Accept(period)
				if err != nil {
					return
				}
				e.own.Go(func() { e.serve(qc) })
			}
		})
	}
	return nil
}

// config bounds what a connection may take. Early data stays off: it can be replayed, and nothing tells the upstream (RFC 8470 §3).
func (e *http3Engine) config() *quic.Config {
	l := e.srv.cfg.Limits
	return &quic.Config{
		HandshakeIdleTimeout: l.HandshakeTimeout / 2, // quic-go gives a handshake twice this in all
		MaxIdleTimeout:       l.StallTimeout,         // without a packet; for time without a request see h3Conn
		KeepAlivePeriod:      l.StallTimeout / 3,
		MaxIncomingStreams:   maxStreams,
		// The client's control stream and the two of QPACK (RFC 9114 §6.2), and a few that mean nothing (§6.2.3).
		MaxIncomingUniStreams:          8,
		InitialStreamReceiveWindow:     256 << 10,
		MaxStreamReceiveWindow:         1 << 20, // as over HTTP/2
		InitialConnectionReceiveWindow: 512 << 10,
		MaxConnectionReceiveWindow:     4 << 20,
	}
}

// mustProve reports whether a client has to prove by a Retry that its address is its own (RFC 9000 §8.1.2), before its handshake costs anything but the
// Retry: always where the address decides about something, else when there are many at a time. It costs the client a round trip, the first time.
func (e *http3Engine) mustProve(net.Addr) bool {
	st := e.srv.state.Load()
	return st.HandshakesPerClient > 0 || st.asks || !e.newcomers.Allow()
}

// accepted makes a new connection one of ours, before its handshake begins.
func (e *http3Engine) accepted(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	s := e.srv
	c := &conn{srv: s, accepted: time.Now(), state: s.state.Load(), peer: addrPortOf(info.RemoteAddr).Addr().Unmap(), Conn: datagrams{remote: info.RemoteAddr}}
	if !s.handshakeRate.take(c.peer, c.state.HandshakesPerClient) {
		s.cfg.Metrics.Handshake(false, 0)
		return nil, errTooManyHandshakes
	}
	e.mu.Lock()
	period := e.period
	e.mu.Unlock()
	ctx, cancel := context.WithCancel(context.WithValue(ctx, connKey{}, c))
	limit := time.AfterFunc(s.cfg.Limits.HandshakeTimeout+s.cfg.Limits.CertificateWait, cancel)
	release := context.AfterFunc(period, cancel)
	c.h3 = &h3Conn{conn: c, engine: e, release: func() { limit.Stop(); release() }}
	s.cfg.Metrics.Connections(1)
	s.handshakes.add()
	context.AfterFunc(ctx, func() { // the end of the connection, whatever became of it
		defer s.handshakes.done()
		c.h3.release()
		if !c.h3.shaken.Load() {
			s.cfg.Metrics.Handshake(false, time.Since(c.accepted))
		}
		cancel()
		c.ended() // there is nothing to close: c.Conn is the handshake's view of a connection that QUIC has closed, and may be set at this moment
	})
	return ctx, nil
}

// serve serves a connection from the end of its handshake to its own.
func (e *http3Engine) serve(qc *quic.Conn) {
	c := connOf(qc.Context())
	h := c.h3
	h.shaken.Store(true)
	h.release()
	e.srv.cfg.Metrics.Handshake(true, time.Since(c.accepted))
	cs := qc.ConnectionState().TLS
	c.shaken(&cs)
	h.begin(qc)
	defer h.stop()
	if e.register(h) {
		defer e.unregister(h)
		_ = h.http.ServeQUICConn(qc) // returns when the connection and all its requests have ended
	}
	h.close()
}

func (e *http3Engine) register(h *h3Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.on {
		e.conns[h] = struct{}{}
		e.live.add()
	}
	return e.on
}

func (e *http3Engine) unregister(h *h3Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, h)
	e.live.done()
	if !e.on && len(e.conns) == 0 {
		e.dropLocked()
	}
}

// retireLocked takes no more connections and sends those that there are away, each when its requests are done. The sockets go with the last one.
func (e *http3Engine) retireLocked() {
	e.on = false
	if e.end != nil {
		e.end()
	}
	for _, s := range e.sockets {
		if l := s.listener; l != nil {
			s.listener = nil
			e.closeLocked(func() { _ = l.Close() })
		}
	}
	for h := range e.conns {
		e.own.Go(h.retire)
	}
	if len(e.conns) == 0 {
		e.dropLocked()
	}
}

// dropLocked closes the sockets.
func (e *http3Engine) dropLocked() {
	sockets := e.sockets
	e.sockets = nil
	e.closeLocked(func() {
		for _, s := range sockets {
			if s.transport != nil {
				_ = s.transport.Close()
			}
			_ = s.conn.Close()
		}
	})
}

func (e *http3Engine) closeLocked(f func()) {
	e.closings++
	e.own.Go(func() {
		f()
		e.mu.Lock()
		defer e.mu.Unlock()
		e.closings--
		e.closed.Broadcast()
	})
}

// awaitClosed returns when what was turned off has let go of its sockets.
func (e *http3Engine) awaitClosed() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.closings > 0 || len(e.sockets) > 0 {
		e.closed.Wait()
	}
}

// shutdown turns it off for good and returns when all connections have ended, or when giveUp is closed.
func (e *http3Engine) shutdown(giveUp <-chan struct{}) {
	e.stop(false)
	e.live.wait(giveUp)
}

// stop turns it off for good, and ends all connections at once if now is set.
func (e *http3Engine) stop(now bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.over {
		e.over = true
		e.retireLocked()
	}
	if now {
		for h := range e.conns {
			e.own.Go(h.close)
		}
	}
}
