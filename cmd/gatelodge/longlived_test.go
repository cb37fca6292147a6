package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"gatelodge/acmeclient/devca"
)

// TestProgram_ReloadsLoseNoWebSocket keeps many open while the configuration is read again and again, and another site comes and goes. FULL=1 keeps
// as many as the limit of descriptors lets one process, and reloads every 10 s for two minutes.
func TestProgram_ReloadsLoseNoWebSocket(t *testing.T) {
	sockets, reloads, pause := 200, 5, time.Duration(0)
	if os.Getenv("FULL") != "" {
		sockets, reloads, pause = 4500, 12, 10*time.Second
	}
	l := newLodge(t, devca.Config{})
	l.upstream = httptest.NewServer(http.HandlerFunc(echo))
	t.Cleanup(l.upstream.Close)
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	if _, err := l.handshake("chat.test"); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: l.roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, l.https)
		},
	}}
	ctx, stop := context.WithCancel(t.Context())
	var opened, lost atomic.Int64
	var wg sync.WaitGroup
	queue := make(chan struct{}, 16) // how many open at once
	for range sockets {
		wg.Go(func() {
			queue <- struct{}{}
			c, _, err := websocket.Dial(ctx, "wss://chat.test/", &websocket.DialOptions{HTTPClient: client})
			<-queue
			if err != nil {
				lost.Add(1)
				t.Errorf("open: %v", err)
				return
			}
			defer func() { _ = c.CloseNow() }()
			opened.Add(1)
			for err == nil && ctx.Err() == nil {
				if err = c.Write(ctx, websocket.MessageText, []byte("hello")); err == nil {
					_, _, err = c.Read(ctx)
				}
				time.Sleep(time.Second) // each speaks once a second
			}
			if ctx.Err() == nil {
				lost.Add(1)
				t.Errorf("lost: %v", err)
			}
		})
	}
	eventually(t, "all are open", func() bool { return opened.Load()+lost.Load() == int64(sockets) })
	for i := range reloads {
		more := ""
		if i%2 == 0 {
			more = "[[site]]\nhosts = [\"passing.test\"]\nto = \"http://127.0.0.1:1\"\n"
		}
		l.configure(l.ca.DirectoryURL(), more)
		if err := l.program.reload(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(max(pause, 200*time.Millisecond)) // what a reload breaks would show when the sockets speak next
	}
	time.Sleep(2 * time.Second) // each spoke at least once since the last one
	stop()
	wg.Wait()
	if lost.Load() > 0 {
		t.Errorf("%d of %d WebSockets were lost over %d reloads", lost.Load(), sockets, reloads)
	}
}

// echo is an app that echoes WebSocket messages.
func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	for {
		kind, msg, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, msg) != nil {
			return
		}
	}
}
