package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

// closeTime is for answers that have begun.
const closeTime = 5 * time.Second

// ServerConfig is what a Server is built with.
type ServerConfig struct {
	// Listener must be on loopback if there are Metrics: nothing here asks who is there. The Server closes it. Required.
	Listener net.Listener

	// Metrics are served at /metrics. Nil: /readyz is all there is, which anybody may ask.
	Metrics *Metrics

	// Ready says why the process should get no traffic; nil, or a nil func, means that it should. From is the address of who asks.
	Ready func(from string) error

	// Logger is required.
	Logger *zap.Logger
}

// Server answers /metrics, /healthz (the process lives) and /readyz (it should get traffic).
type Server struct {
	cfg  ServerConfig
	http *http.Server
	done sync.WaitGroup
}

// NewServer returns a Server that does nothing until Start.
func NewServer(cfg ServerConfig) (*Server, error) {
	switch {
	case cfg.Listener == nil || cfg.Logger == nil:
		return nil, errors.New("metrics: listener and logger are required")
	case cfg.Metrics != nil && !loopback(cfg.Listener.Addr()):
		return nil, fmt.Errorf("metrics: %s is not a loopback address", cfg.Listener.Addr())
	}
	s := &Server{cfg: cfg}
	s.http = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          zap.NewStdLog(cfg.Logger),
	}
	return s, nil
}

func loopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	if s.cfg.Metrics != nil {
		mux.Handle("GET /metrics", s.cfg.Metrics.Handler())
		mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	}
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Ready != nil {
			from, _, _ := net.SplitHostPort(r.RemoteAddr)
			if err := s.cfg.Ready(from); err != nil {
				answer(w, http.StatusServiceUnavailable, err.Error())
				return
			}
		}
		answer(w, http.StatusOK, "ready")
	})
	return mux
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}

// Addr is where the Server listens.
func (s *Server) Addr() net.Addr { return s.cfg.Listener.Addr() }

// Start serves until Close.
func (s *Server) Start() {
	s.done.Go(func() {
		if err := s.http.Serve(s.cfg.Listener); !errors.Is(err, http.ErrServerClosed) {
			s.cfg.Logger.Error("metrics are no longer served", zap.Error(err))
		}
	})
}

// Close stops listening, waits a little for answers that have begun, and for the Server's goroutine. Without Start it closes the listener.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	s.cfg.Listener.Close() // Serve may not have seen it yet
	s.done.Wait()
	return err
}
