package proxy_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

// echoes writes a message and reads it back.
func echoes(ctx context.Context, c *websocket.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageText, []byte("still there?")); err != nil {
		return err
	}
	_, _, err := c.Read(ctx)
	return err
}

func TestReload_EndsWebSocketsOfChangedSitesAndNoOthers(t *testing.T) {
	app, other := proxytest.Upstream(t, echoSocket), proxytest.Upstream(t, echoSocket)
	same, before := proxytest.Site(t, app, "same.test"), proxytest.Site(t, app, "a.test")
	p := proxytest.StartWith(t, proxytest.Sites(same, before), nil)
	dial := func(url string, mode proxytest.Mode) *websocket.Conn {
		c, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPClient: p.Client(mode)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.CloseNow() })
		return c
	}
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		apply := func(sites ...proxy.Site) {
			set := proxytest.Sites(sites...)
			set.LongLived = 50 * time.Millisecond
			if err := p.Apply(set); err != nil {
				t.Fatal(err)
			}
		}
		apply(same, before)
		stays, leaves := dial(mode.URL("same.test", "/"), mode), dial(mode.URL("a.test", "/"), mode)
		for _, c := range []*websocket.Conn{stays, leaves} {
			if err := echoes(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		apply(before, same) // the same in another order
		if err := echoes(t.Context(), leaves); err != nil {
			t.Errorf("a reload that changed nothing: %v", err)
		}
		apply(same, proxytest.Site(t, other, "a.test"))
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, _, err := leaves.Read(ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway {
			t.Errorf("the socket of the changed site ended with %v, want a Close frame with 1001", err)
		}
		if err := echoes(t.Context(), stays); err != nil {
			t.Errorf("the socket of the site that did not change: %v", err)
		}
	}, proxytest.H1, proxytest.Plain)
}

func TestReload_EndsStreamsOfChangedSitesAndNoOthers(t *testing.T) {
	events := func(w http.ResponseWriter, r *http.Request) {
		for tick := time.NewTicker(5 * time.Millisecond); r.Context().Err() == nil; <-tick.C {
			_, _ = io.WriteString(w, "data: tick\n\n")
			_ = http.NewResponseController(w).Flush()
		}
	}
	app, other := proxytest.Upstream(t, events), proxytest.Upstream(t, events)
	stay, leave := proxytest.Site(t, app, "same.test"), proxytest.Site(t, app, "a.test")
	p := proxytest.StartWith(t, proxytest.Sites(stay, leave), nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		if err := p.Apply(proxytest.Sites(stay, leave)); err != nil {
			t.Fatal(err)
		}
		open := func(name string) *bufio.Reader {
			res, err := p.Client(mode).Get(mode.URL(name, "/"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = res.Body.Close() })
			return bufio.NewReader(res.Body)
		}
		stays, leaves := open("same.test"), open("a.test")
		set := proxytest.Sites(stay, proxytest.Site(t, other, "a.test"))
		set.LongLived = 50 * time.Millisecond
		if err := p.Apply(set); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, leaves); err == nil {
			t.Error("the stream of the changed site ended as if it were complete")
		}
		for range 100 {
			if _, err := stays.ReadString('\n'); err != nil {
				t.Fatalf("the stream of the site that did not change: %v", err)
			}
		}
	})
}

func TestShutdown_SaysGoodbyeToWebSockets(t *testing.T) {
	p := start(t, echoSocket)
	c := dialSocket(t, p, proxytest.H1)
	if err := echoes(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		done <- p.Shutdown(ctx)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, _, err := c.Read(ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the socket ended with %v, want a Close frame with 1001", err)
	}
	if err := <-done; err != nil {
		t.Errorf("the client answered, and still something was cut: %v", err)
	}
}

// RFC 9110 §7.8: "recipients SHOULD use case-insensitive comparison when matching each protocol-name to supported protocols". Some clients write WebSocket.
func TestShutdown_SaysGoodbyeToWebSocketsHoweverTheyAreWritten(t *testing.T) {
	p := start(t, echoSocket)
	c := p.Dial(proxytest.H1, "a.test")
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	br := bufio.NewReader(c)
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", res, err)
	}
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		done <- p.Shutdown(ctx)
	}()
	frame := make([]byte, 4)
	if _, err := io.ReadFull(br, frame); err != nil || string(frame) != "\x88\x02\x03\xe9" {
		t.Errorf("the socket ended with %x, %v, want a Close frame with 1001", frame, err)
	}
	_ = c.Close()
	<-done
}

func TestShutdown_DoesNotSayThatTheClientLeftWhenItCutsAStream(t *testing.T) {
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	res, err := p.Client(proxytest.H2).Get(proxytest.H2.URL("a.test", "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Shutdown(ctx); err == nil {
		t.Error("Shutdown does not say that it cut something")
	}
	if err := p.Wait(); err != nil {
		t.Errorf("Serve = %v", err)
	}
	if m := p.Access.All()[0].ContextMap(); m["cut"] != true || m["error"] != "shutting down" {
		t.Errorf("log = %v", m)
	}
}
