package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	readTime   = 10 * time.Second // a client says what it wants in this time
	answerTime = 10 * time.Second // to look at certificates, all of them at most
	listTime   = 30 * time.Second // to list what storage knows, for a list of certificates
	reloadTime = time.Minute      // to read the configuration again and apply it, or for a new process to serve
	closeTime  = 5 * time.Second  // for answers that have begun
)

// Server answers on the admin socket:
//
//	GET  /certs        all certificates, by name; ?failing=true those that want attention
//	GET  /certs/NAME   one certificate
//	GET  /config       the configuration in force
//	POST /retry, /certs/NAME/retry
//	POST /certs/NAME/revoke?reason=N&compromised=BOOL
//	POST /reload       read the configuration again; ?file=PATH if that is the file in force
//	POST /upgrade      start the binary anew and hand over to it; ?file=PATH likewise
//	GET /upstreams     all upstreams and their targets
//	GET /acme          all ACME CAs
//	POST /acme/NAME/probe, /acme/NAME/reset, /acme/NAME/rollkey
//
// Answers are JSON; a refusal is {"error": "..."}.
type Server struct {
	cfg    Config
	socket *socket
	http   *http.Server
	done   sync.WaitGroup
}

// NewServer listens, but answers nothing until Start. Close is to be called in any case.
func NewServer(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	path, err := socketPath(cfg.Listen)
	if err != nil {
		return nil, err
	}
	l, err := listen(path, cfg.Logger)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, socket: l}
	s.http = &http.Server{
		Handler:           http.MaxBytesHandler(s.routes(), 1<<10),
		ReadHeaderTimeout: readTime,
		ReadTimeout:       readTime,
		WriteTimeout:      readTime + reloadTime + answerTime,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          zap.NewStdLog(cfg.Logger),
	}
	return s, nil
}

// Start serves until Close.
func (s *Server) Start() {
	s.done.Go(func() {
		if err := s.http.Serve(s.socket); !errors.Is(err, http.ErrServerClosed) {
			s.cfg.Logger.Error("admin socket is no longer served", zap.Error(err))
		}
	})
}

// Close removes the socket, waits a little for answers that have begun, and for the Server's goroutine.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	s.socket.Close() // closed by Shutdown already, unless Serve had not seen it yet
	s.done.Wait()
	return err
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /certs", s.listCerts)
	mux.HandleFunc("GET /certs/{name}", s.showCert)
	mux.HandleFunc("POST /certs/{name}/revoke", s.revoke)
	mux.HandleFunc("POST /certs/{name}/retry", s.retry)
	mux.HandleFunc("POST /retry", s.retry)
	mux.HandleFunc("GET /config", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, http.StatusOK, s.cfg.Config()) })
	mux.HandleFunc("POST /reload", s.reload)
	if s.cfg.Upgrade != nil {
		mux.HandleFunc("POST /upgrade", s.upgrade)
	}
	if s.cfg.Upstreams != nil {
		mux.HandleFunc("GET /upstreams", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, http.StatusOK, s.cfg.Upstreams()) })
	}
	if s.cfg.CAs != nil {
		mux.HandleFunc("GET /acme", func(w http.ResponseWriter, r *http.Request) { s.answer(w, http.StatusOK, s.cfg.CAs(r.Context())) })
		mux.HandleFunc("POST /acme/{name}/probe", func(w http.ResponseWriter, r *http.Request) { s.lookAt(w, r, s.cfg.Probe) })
		mux.HandleFunc("POST /acme/{name}/reset", func(w http.ResponseWriter, r *http.Request) { s.lookAt(w, r, s.cfg.Reset) })
		mux.HandleFunc("POST /acme/{name}/rollkey", func(w http.ResponseWriter, r *http.Request) { s.lookAt(w, r, s.cfg.RollKey) })
	}
	return mux
}

func (s *Server) showCert(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	cert, err := s.cfg.Cert(ctx, r.PathValue("name"))
	switch {
	case errors.Is(err, ErrUnknownName):
		s.refuse(w, http.StatusNotFound, err)
	case err != nil:
		s.refuse(w, http.StatusInternalServerError, err)
	default:
		s.answer(w, http.StatusOK, cert)
	}
}

// lookAt has a CA looked at. It goes on when the client goes away, as a reload does.
func (s *Server) lookAt(w http.ResponseWriter, r *http.Request, look func(context.Context, string) (CAStatus, error)) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), reloadTime)
	defer cancel()
	ca, err := look(ctx, r.PathValue("name"))
	switch {
	case errors.Is(err, ErrUnknownCA):
		s.refuse(w, http.StatusNotFound, err)
	case err != nil:
		s.refuse(w, http.StatusBadGateway, err)
	default:
		s.answer(w, http.StatusOK, ca)
	}
}

// revoke goes on when the client goes away, as a reload does.
func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	reason, err := strconv.Atoi(r.URL.Query().Get("reason"))
	if err != nil {
		s.refuse(w, http.StatusBadRequest, fmt.Errorf("reason is no number: %q", r.URL.Query().Get("reason")))
		return
	}
	revocation := Revocation{Reason: reason, Compromised: r.URL.Query().Get("compromised") == "true"}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), reloadTime)
	defer cancel()
	switch err := s.cfg.Revoke(ctx, r.PathValue("name"), revocation); {
	case errors.Is(err, ErrGoesOn):
		s.refuse(w, http.StatusAccepted, err)
	case errors.Is(err, ErrUnknownName):
		s.refuse(w, http.StatusNotFound, err)
	case err != nil:
		s.refuse(w, http.StatusBadGateway, err)
	default:
		s.answer(w, http.StatusOK, map[string]string{"status": "revoked"})
	}
}

// reload goes on when the client goes away: half a reload is nothing to want.
func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), reloadTime)
	defer cancel()
	err := s.checkFile(r)
	if err == nil {
		err = s.cfg.Reload(ctx)
	}
	if err != nil {
		s.refuse(w, http.StatusUnprocessableEntity, err)
		return
	}
	s.answer(w, http.StatusOK, Reloaded{File: s.cfg.Config().File()})
}

// upgrade goes on when the client goes away, as a reload does.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), reloadTime)
	defer cancel()
	pid, err := 0, s.checkFile(r)
	if err == nil {
		pid, err = s.cfg.Upgrade(ctx)
	}
	if err != nil {
		s.refuse(w, http.StatusUnprocessableEntity, err)
		return
	}
	s.answer(w, http.StatusOK, Upgraded{Pid: pid})
}

func (s *Server) answer(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		s.cfg.Logger.Error("admin answer not encoded", zap.Error(err))
		http.Error(w, `{"error":"the answer could not be encoded"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(append(data, '\n')); err != nil {
		s.cfg.Logger.Debug("admin client went away", zap.Error(err))
	}
}

func (s *Server) refuse(w http.ResponseWriter, status int, err error) {
	s.answer(w, status, refusal{Error: err.Error()})
}

// Reloaded is what was read again: the absolute path of a file, empty for flags.
type Reloaded struct {
	File string `json:"file"`
}

// Upgraded is the process that serves now.
type Upgraded struct {
	Pid int `json:"pid"`
}

type refusal struct {
	Error string `json:"error"`
}
