package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// accept takes connections from l until it is closed and gives each to take, which must not block. An error that is not the closing of l and
// does not pass away goes to failed.
func (s *Server) accept(ctx context.Context, l net.Listener, take func(*conn), failed chan<- error) {
	var pause time.Duration
	for {
		var nc net.Conn
		err := errFull
		if most := s.cfg.Limits.Connections; most <= 0 || s.open.Load() < int64(most) {
			nc, err = l.Accept()
		}
		if err == nil {
			pause = 0
			take(s.newConn(nc))
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			select {
			case <-s.draining:
			case <-s.left:
			case <-ctx.Done():
			default:
				failed <- err
			}
			return
		}
		// Out of descriptors, as many connections as there may be, or one that was reset before we took it: all pass. Others wait in the kernel's queue meanwhile.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.log.Warn("accept", zap.Error(err), zap.Stringer("listener", l.Addr()), zap.Duration("pause", pause))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		case <-s.left:
			if errors.Is(err, errFull) { // the listener is closed
				return
			}
		case <-s.draining:
			if errors.Is(err, errFull) {
				return
			}
		}
	}
}

// errFull is why accept waits when there are Limits.Connections.
var errFull = errors.New("there are as many connections as there may be")

// conn is a client's connection, from accept to close, with what all its requests share.
type conn struct {
	net.Conn
	srv      *Server
	accepted time.Time
	peer     netip.Addr // who connected: the client, or a proxy in front of us; see introduce
	closed   atomic.Bool

	carried *proxyHeader // what a balancer said about the client; nil almost always
	ahead   []byte       // read already, but not by those who read the connection now

	// Where some site passes TLS through, the beginning of the handshake is kept; see passThrough.
	watching, hushed bool
	seen             []byte
	passing          *Site // which the handshake is for; nil if it is for us

	// The handshake sets these before a request can read them. Without TLS they are zero.
	state      *state            // when the handshake began; requests have their own
	site       string            // name of the site that the handshake chose
	binding    string            // see door
	name       string            // canonical SNI, or Settings.DefaultName
	version    uint16            // of TLS
	cert       *tls.Certificate  // what the client was shown; nil if its session was resumed
	clientCert *x509.Certificate // who the client proved to be; nil for nobody

	h1 *h1Conn   // nil but for HTTP/1.1
	h2 *h2Budget // nil but for HTTP/2
	h3 *h3Conn   // nil but for HTTP/3
}

func (s *Server) newConn(nc net.Conn) *conn {
	c := &conn{Conn: nc, srv: s, accepted: time.Now()}
	c.peer = loopback
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		c.peer = a.AddrPort().Addr().Unmap()
	}
	s.cfg.Metrics.Connections(1)
	s.open.Add(1)
	return c
}

// Read returns what was read ahead, then what comes.
func (c *conn) Read(p []byte) (n int, err error) {
	if len(c.ahead) > 0 {
		n = copy(p, c.ahead)
		if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
			c.ahead = nil
		}
	} else {
		n, err = c.Conn.Read(p)
	}
	if c.h2 != nil {
		if waste := c.h2.take(n); waste != nil {
			return 0, c.wasted(waste)
		}
	}
	if c.watching {
		if len(c.seen)+n > maxSeen {
			return 0, errHelloTooLong
		}
		c.seen = append(c.seen, p[:n]...)
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	if c.hushed {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// client is the address of whoever connected: the client, or a proxy in front of us.
func (c *conn) client() netip.Addr {
	if c.h3 != nil {
		return c.h3.client()
	}
	return c.peer
}

// shaken keeps what the handshake found out.
func (c *conn) shaken(cs *tls.ConnectionState) {
	c.version = cs.Version
	if len(cs.VerifiedChains) > 0 {
		c.clientCert = cs.VerifiedChains[0][0]
	}
}

// Close may be called more than once; net/http does.
func (c *conn) Close() error {
	c.ended()
	return c.Conn.Close()
}

// ended counts the connection's end, once.
func (c *conn) ended() {
	if !c.closed.Swap(true) {
		c.srv.cfg.Metrics.Connections(-1)
		if c.h3 == nil {
			c.srv.open.Add(-1)
		}
	}
}

// CloseWrite sends FIN.
func (c *conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// takePlain gives a connection without TLS to the engine of HTTP/1.1.
func (s *Server) takePlain(c *conn) {
	if !s.state.Load().ProxyProtocol.expectedOf(c) {
		s.h1Queue.put(s.newH1Conn(c, c))
		return
	}
	s.handshakes.add()
	go func() {
		defer s.handshakes.done()
		if err := s.introduce(c); err != nil {
			s.turnAway(c, err)
			return
		}
		s.h1Queue.put(s.newH1Conn(c, c))
	}()
}

// queue hands connections to an http.Server as if it had accepted them.
type queue struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newQueue() *queue { return &queue{conns: make(chan net.Conn), closed: make(chan struct{})} }

// put gives c to the http.Server, or closes it if there is none any more.
func (q *queue) put(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.closed:
		_ = c.Close()
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }

type connKey struct{}

// withConn makes the connection known to its requests; see connOf.
func withConn(ctx context.Context, nc net.Conn) context.Context {
	switch c := nc.(type) {
	case *h1Conn:
		return context.WithValue(ctx, connKey{}, c.conn)
	case *tls.Conn:
		return context.WithValue(ctx, connKey{}, c.NetConn())
	}
	return ctx
}

// connOfHello is the connection of a handshake.
func connOfHello(hello *tls.ClientHelloInfo) *conn {
	if c, ok := hello.Conn.(*conn); ok {
		return c
	}
	return connOf(hello.Context()) // of QUIC
}

func connOf(ctx context.Context) *conn { return ctx.Value(connKey{}).(*conn) }
