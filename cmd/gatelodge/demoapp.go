package main

import (
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"time"
)

//go:embed demoapp.html
var demoPage string

// demoApp is the app behind the demo: a page that shows what reached it, and a stream of events.
type demoApp struct {
	server *http.Server
	ln     net.Listener
	done   chan error
}

func startDemoApp() (*demoApp, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the sample app: %w", err)
	}
	page := template.Must(template.New("page").Parse(demoPage))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, map[string]any{"Request": r, "Time": time.Now().Format(time.TimeOnly)})
	})
	mux.HandleFunc("GET /events", demoEvents)
	app := &demoApp{
		server: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute},
		ln:     ln,
		done:   make(chan error, 1),
	}
	go func() { app.done <- app.server.Serve(ln) }()
	return app, nil
}

func (a *demoApp) URL() string { return "http://" + a.ln.Addr().String() }

func (a *demoApp) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if a.server.Shutdown(ctx) != nil {
		_ = a.server.Close()
	}
	<-a.done
}

// demoEvents sends the time once a second until the visitor leaves (server-sent events).
func demoEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		fmt.Fprintf(w, "data: %s\n\n", time.Now().Format(time.TimeOnly))
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}
