package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Server accepts connections and brings their requests to the upstreams of the sites. Create it with New.
type Server struct {
	cfg   Config
	log   *zap.Logger
	state atomic.Pointer[state]

	applying  sync.Mutex // one Apply at a time; guards announced
	announced bool       // clients were told about HTTP/3

	tls *tls.Config // what all sites share; its ticket keys outlive a reload

	h1, h2           *http.Server // the engines below the seam: bytes to http.Handler
	h3               *http3Engine
	h1Queue, h2Queue *queue       // what the first two accept from
	plain            http.Handler // port 80 after the checks: challenges, then redirect or site

	serving, retiring   atomic.Bool
	ctx                 context.Context // parent of all requests; set by Serve, ends with it
	handshaking         context.Context // child of ctx that ends when Shutdown begins
	draining, drained   chan struct{}   // closed when Shutdown begins, and when it has nothing left to wait for
	drainOnce, doneOnce sync.Once
	left                chan struct{} // closed when Leave begins
	leaveOnce           sync.Once
	cutting             atomic.Bool // closeNow has begun: it is us who end what ends now

	open                 atomic.Int64 // accepted connections that are not closed, without those of QUIC
	handshakeRate        clientRate
	handshakes, requests tracker
	tunnels              tunnels // upgraded connections
	customers            customerPools
	via                  [4][]string // our word in Via, by the client's version of HTTP
}

// New checks cfg and set and returns a Server that has not started.
func New(cfg Config, set Settings) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger.Named("proxy"), h1Queue: newQueue(), h2Queue: newQueue(),
		draining: make(chan struct{}), drained: make(chan struct{}), left: make(chan struct{}),
	}
	s.tls = s.baseConfig()
	s.via = newVia()
	s.plain = http.HandlerFunc(s.servePlain)
	if cfg.Challenges != nil {
		s.plain = cfg.Challenges(s.plain)
	}
	s.h1, s.h2, s.h3 = s.newHTTP1(), s.newHTTP2(), newHTTP3Engine(s)
	if err := s.Apply(set); err != nil {
		return nil, err
	}
	return s, nil
}

// Apply makes set the settings of all requests and handshakes that begin from now on. If it returns an error the old ones stay.
func (s *Server) Apply(set Settings) error {
	st, err := s.newState(set)
	if err != nil {
		return err
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	http3 := set.HTTP3 && !set.ProxyProtocol.on() && s.cfg.ListenQUIC != nil
	if err := s.h3.set(http3); err != nil {
		return err
	}
	st.altSvc = s.altSvc(st, http3 && s.h3.serves())
	s.state.Store(st)
	if set.LongLived > 0 {
		s.tunnels.retire(st, set.LongLived)
	}
	return nil
}

// Site returns the site that has the canonical host at present.
func (s *Server) Site(host string) (*Site, bool) { return s.state.Load().table.Site(host) }

// Serve accepts connections until Shutdown is over, or until ctx ends, which closes everything at once. It returns nil after either, and an error
// if a listener fails. When it returns, all goroutines that serve connections are gone. It can be called once.
func (s *Server) Serve(ctx context.Context) error {
	if s.serving.Swap(true) {
		return errors.New("proxy: Serve was called twice")
	}
	ctx, stop := context.WithCancel(ctx)
	s.ctx = ctx
	var stopHandshakes context.CancelFunc
	s.handshaking, stopHandshakes = context.WithCancel(ctx)

	var own sync.WaitGroup
	failed := make(chan error, len(s.cfg.HTTPS)+len(s.cfg.HTTP)+1)
	for _, l := range s.cfg.HTTPS {
		own.Go(func() { s.accept(ctx, l, s.handshake, failed) })
	}
	for _, l := range s.cfg.HTTP {
		own.Go(func() { s.accept(ctx, l, s.takePlain, failed) })
	}
	own.Go(func() { _ = s.h1.Serve(s.h1Queue) }) // ends when the queue is closed, and for no other reason
	own.Go(func() { _ = s.h2.Serve(s.h2Queue) })
	own.Go(func() { s.customers.tend(ctx) })
	if err := s.h3.start(); err != nil {
		failed <- err
	}

	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	case <-s.draining:
		stopHandshakes()
		select {
		case <-s.drained:
		case <-ctx.Done():
		}
	}
	stop()
	stopHandshakes()
	s.closeNow()
	own.Wait()
	s.h3.own.Wait()
	s.handshakes.wait(nil)
	s.requests.wait(nil)
	s.customers.close()
	return err
}

// Retire goes on serving, but asks clients to come on another connection next time: the last answer of each HTTP/1.1 connection says so, and
// HTTP/2 and HTTP/3 get a GOAWAY with the next. Where a load balancer leads them elsewhere meanwhile, the Shutdown that follows interrupts nobody.
func (s *Server) Retire() { s.retiring.Store(true) }

// Shutdown stops accepting, tells clients to go elsewhere (Connection: close, GOAWAY), and waits for the requests and upgraded connections under
// way. What is left when ctx ends is closed, and the error says so. Serve returns afterwards.
func (s *Server) Shutdown(ctx context.Context) error {
	s.drainOnce.Do(func() { close(s.draining) })
	defer s.doneOnce.Do(func() { close(s.drained) })
	s.closeListeners()
	if end, ok := ctx.Deadline(); ok { // WebSockets would stay to the end: they are told in time to answer
		left := time.Until(end)
		goodbye := time.AfterFunc(left-min(goodbyeTime, left/4), s.tunnels.leave)
		defer goodbye.Stop()
	}

	var engines sync.WaitGroup
	engines.Go(func() { _ = s.h1.Shutdown(ctx) })
	engines.Go(func() { _ = s.h2.Shutdown(ctx) })
	engines.Go(func() { s.h3.shutdown(ctx.Done()) })
	engines.Wait()
	s.requests.wait(ctx.Done()) // upgraded connections are requests too
	if left := s.requests.count(); left > 0 {
		s.closeNow()
		return fmt.Errorf("proxy: drain: %d requests closed: %w", left, context.Cause(ctx))
	}
	return nil
}

// closeNow ends everything that is still under way.
func (s *Server) closeNow() {
	s.cutting.Store(true)
	s.closeListeners()
	_ = s.h1.Close()
	_ = s.h2.Close()
	s.h3.stop(true)
	s.tunnels.close()
}

func (s *Server) closeListeners() {
	for _, l := range s.cfg.HTTPS {
		_ = l.Close()
	}
	for _, l := range s.cfg.HTTP {
		_ = l.Close()
	}
}

// newHTTP1 is net/http for HTTP/1.1. It never sees TLS: what it gets are the connections that our handshake prepared.
func (s *Server) newHTTP1() *http.Server {
	h := s.newEngine()
	h.Protocols.SetHTTP1(true)
	h.MaxHeaderBytes = s.cfg.Limits.HeaderBytes - 4096 // net/http adds 4096
	return h
}

// newHTTP2 is net/http for HTTP/2. Its connections have negotiated h2.
func (s *Server) newHTTP2() *http.Server {
	h := s.newEngine()
	h.Protocols.SetHTTP2(true)
	h.MaxHeaderBytes = s.cfg.Limits.HeaderBytes // net/http adds 320
	h.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: maxStreams,
		SendPingTimeout:      s.cfg.Limits.StallTimeout / 2, // a client that does not even answer a PING is gone
		PingTimeout:          s.cfg.Limits.StallTimeout / 4,
		WriteByteTimeout:     s.cfg.Limits.StallTimeout,
		// 1 MiB a stream carries 100 Mbit/s over a path of 80 ms; nothing is reserved before it is sent.
		MaxReceiveBufferPerStream:     1 << 20,
		MaxReceiveBufferPerConnection: 4 << 20,
	}
	return h
}

func (s *Server) newEngine() *http.Server {
	return &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		ReadHeaderTimeout: s.cfg.Limits.HeaderTimeout,
		IdleTimeout:       s.cfg.Limits.IdleTimeout,
		ErrorLog:          log.New(debugWriter{s.log}, "", 0), // all of it is clients' noise: our own faults are logged where they happen
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ConnContext:       withConn,
		Protocols:         new(http.Protocols),

		DisableGeneralOptionsHandler: true, // OPTIONS * is for the site to answer
	}
}

// debugWriter takes the log lines of net/http.
type debugWriter struct{ log *zap.Logger }

func (w debugWriter) Write(p []byte) (int, error) {
	if e := w.log.Check(zap.DebugLevel, "net/http"); e != nil {
		e.Write(zap.ByteString("line", p))
	}
	return len(p), nil
}
