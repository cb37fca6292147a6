package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"gatelodge/proxy/proxytest"
)

// echoSocket is an upstream that echoes WebSocket messages.
func echoSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}, InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(1 << 21)
	for {
		kind, msg, err := c.Read(context.Background())
		if err != nil {
			return
		}
		if err := c.Write(context.Background(), kind, msg); err != nil {
			return
		}
	}
}

func dialSocket(t *testing.T, p *proxytest.Proxy, mode proxytest.Mode) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), strings.Replace(mode.URL("a.test", "/ws"), "http", "ws", 1),
		&websocket.DialOptions{HTTPClient: p.Client(mode), Subprotocols: []string{"chat"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	c.SetReadLimit(1 << 21)
	return c
}

func TestUpgrade_CarriesAWebSocket(t *testing.T) {
	p := start(t, echoSocket)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		c := dialSocket(t, p, mode)
		if c.Subprotocol() != "chat" {
			t.Errorf("subprotocol = %q", c.Subprotocol())
		}
		for _, msg := range [][]byte{[]byte("hello"), bytes.Repeat([]byte{1}, 1<<20)} {
			if err := c.Write(t.Context(), websocket.MessageBinary, msg); err != nil {
				t.Fatal(err)
			}
			if _, got, err := c.Read(t.Context()); err != nil || !bytes.Equal(got, msg) {
				t.Fatalf("echo of %d bytes: %d bytes, %v", len(msg), len(got), err)
			}
		}
		_ = p.Access.TakeAll()
		if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
			t.Errorf("close: %v", err)
		}
		eventually(t, "the connection is logged when it ends", func() bool { return p.Access.Len() == 1 })
		entry := p.Access.All()[0].ContextMap()
		if entry["status"] != int64(101) || entry["upgrade"] != "websocket" || entry["bytes_in"].(int64) < 1<<20 || entry["bytes_out"].(int64) < 1<<20 {
			t.Errorf("log = %v", entry)
		}
	}, proxytest.H1, proxytest.Plain)
}

// customSwitch answers an upgrade to any protocol, then echoes until the client's end, and says goodbye after it.
func customSwitch(c net.Conn, _ string, r *bufio.Reader) {
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\nX-Kept: 1\r\n\r\n")
	_, _ = io.Copy(c, r)
	_, _ = io.WriteString(c, "goodbye")
}

func TestUpgrade_CarriesOtherProtocolsAndTheEndOfEachSide(t *testing.T) {
	p, _ := startRaw(t, customSwitch)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		c := p.Dial(mode, "a.test")
		// "early" is in the same packet as the request.
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly")
		br := bufio.NewReader(c)
		res, err := http.ReadResponse(br, nil)
		if err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "echo" || res.Header.Get("X-Kept") != "1" {
			t.Fatalf("%v, %v", res, err)
		}
		_, _ = io.WriteString(c, " late\x00\n")
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(br); err != nil || string(got) != "early late\x00\ngoodbye" {
			t.Errorf("got %q, %v", got, err)
		}
	}, proxytest.H1, proxytest.Plain)
}

func TestUpgrade_ToH2CIsNotForwarded(t *testing.T) {
	p, up := startRaw(t, proxytest.Reply(proxytest.OK))
	for _, fields := range []string{
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
		"Connection: upgrade\r\nUpgrade: H2C\r\n", "Upgrade: websocket\r\n", "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
	} {
		answer := p.Raw(proxytest.H1, "a.test", "GET / HTTP/1.1\r\nHost: a.test\r\n"+fields+"\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 200") {
			t.Errorf("%q: %q", fields, answer)
		}
		if _, h := received(t, up.Next(t)); h["Upgrade"] != nil || h["Connection"] != nil || h["Http2-Settings"] != nil {
			t.Errorf("%q: upstream got %v", fields, h)
		}
	}
}

func TestUpgrade_AnotherProtocolThanAskedForIsABadGateway(t *testing.T) {
	p, _ := startRaw(t, proxytest.Reply("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"))
	answer := p.Raw(proxytest.H1, "a.test", "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 502") {
		t.Errorf("answer = %q", answer)
	}
}

func TestUpgrade_RefusedIsAnOrdinaryAnswerAndTheLastOne(t *testing.T) {
	p, up := startRaw(t, proxytest.Reply(proxytest.OK))
	answer := p.Raw(proxytest.H1, "a.test", "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n")
	if strings.Count(answer, "HTTP/1.1 200") != 1 || !strings.Contains(answer, "Connection: close") {
		t.Errorf("answer = %q", answer)
	}
	if line, _ := received(t, up.Next(t)); line != "GET / HTTP/1.1" {
		t.Errorf("upstream got %q", line)
	}
}

func TestUpgrade_EndsAtTheEndOfADrain(t *testing.T) {
	p := start(t, echoSocket)
	c := dialSocket(t, p, proxytest.H1)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	go func() {
		// It works while the drain lasts.
		if err := c.Write(t.Context(), websocket.MessageText, []byte("x")); err != nil {
			t.Error(err)
		}
	}()
	if _, _, err := c.Read(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.Shutdown(ctx); err == nil || time.Since(began) < 150*time.Millisecond {
		t.Errorf("Shutdown = %v after %s, want it to wait for the deadline and to say what it closed", err, time.Since(began))
	}
	if _, _, err := c.Read(t.Context()); err == nil {
		t.Error("the connection is still open")
	}
	if err := p.Wait(); err != nil {
		t.Errorf("Serve = %v", err)
	}
}
