package proxy_test

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatelodge/proxy/proxytest"
)

func TestH2Budget_EndsAConnectionThatBringsNothing(t *testing.T) {
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, proxytest.Upstream(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}), "a.test")), nil)
	for name, send := range map[string]func(f *http2.Framer) error{
		"PRIORITY":       func(f *http2.Framer) error { return f.WritePriority(3, http2.PriorityParam{Weight: 1}) },
		"windows":        func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1) },
		"unknown frames": func(f *http2.Framer) error { return f.WriteRawFrame(0x20, 0, 0, []byte("x")) },
		"large frames":   func(f *http2.Framer) error { return f.WriteRawFrame(0x20, 0, 0, make([]byte, 16<<10)) },
		"empty DATA":     func(f *http2.Framer) error { return f.WriteData(1, false, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			c := dialH2(t, p)
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			go func() { _, _ = io.Copy(io.Discard, c) }()
			f, err := newFlooder(c)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.open(f.post, false, true); err != nil {
				t.Fatal(err)
			}
			var chunk bytes.Buffer
			for into := http2.NewFramer(&chunk, nil); chunk.Len() < 16<<10; {
				if err := send(into); err != nil {
					t.Fatal(err)
				}
			}
			for sent := 0; sent < 64<<20; sent += chunk.Len() {
				if _, err := c.Write(chunk.Bytes()); err != nil {
					return
				}
			}
			t.Error("16 MiB were taken")
		})
	}
}

// much is more than a connection may bring for nothing.
const much = 16 << 20

func TestH2Budget_CountsNothingThatIsOfUse(t *testing.T) {
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("Got", fmt.Sprint(n))
		if r.Method == http.MethodGet {
			_, _ = w.Write(make([]byte, much))
		}
	}), "a.test")), nil)
	c := p.Client(proxytest.H2)
	defer c.CloseIdleConnections()
	for range 2 {
		res, err := c.Post(proxytest.H2.URL("a.test", "/"), "", io.LimitReader(zeros{}, much))
		if err != nil || res.Header.Get("Got") != fmt.Sprint(much) {
			t.Fatalf("a large request: %v", err)
		}
		_ = res.Body.Close()
		if res, err = c.Get(proxytest.H2.URL("a.test", "/")); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, res.Body); n != much || err != nil {
			t.Fatalf("%d bytes of a large answer: %v", n, err)
		}
		_ = res.Body.Close()
	}
}

func TestH2Budget_AllowsForWhatALargeAnswerNeeds(t *testing.T) {
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, proxytest.Upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, much))
	}), "a.test")), nil)
	c := dialH2(t, p)
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	f, err := newFlooder(c)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 2 * much})
	_ = f.WriteWindowUpdate(0, 2*much)
	_, _ = f.open(f.header, true, true)
	await := func(of http2.FrameType, flag http2.Flags) {
		t.Helper()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if h := frame.Header(); h.Type == of && h.Flags.Has(flag) {
				return
			}
		}
	}
	await(http2.FrameData, http2.FlagDataEndStream)
	for range 1000 { // 16 MiB, as if they had been to open windows
		if err := f.WriteRawFrame(0x20, 0, 0, make([]byte, 16<<10)); err != nil {
			t.Fatal(err)
		}
	}
	_ = f.WritePing(false, [8]byte{})
	await(http2.FramePing, http2.FlagPingAck)
}

// TestH2Budget_CountsNothingThatAWebSocketCarries runs itself again, as TestConnect_CarriesAWebSocketOnAStream does.
func TestH2Budget_CountsNothingThatAWebSocketCarries(t *testing.T) {
	if !strings.Contains(os.Getenv("GODEBUG"), "http2xconnect=1") {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG=http2xconnect=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Errorf("with GODEBUG=http2xconnect=1: %v\n%s", err, out)
		}
		return
	}
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		swallow(t, w, r.Header.Get("Sec-WebSocket-Key"))
	}), "a.test")), nil)
	b := connectOver(t, p, proxytest.H2, "websocket", "sec-websocket-version", "13").(*h2Bootstrap)
	if got := b.status(); got != "200" {
		t.Fatalf("WebSocket: %s", got)
	}
	piece, windows := make([]byte, 16<<10), [2]int{65535, 65535} // of the connection and of the stream; there may be more
	for sent := 0; sent < much; {
		if min(windows[0], windows[1]) >= len(piece) {
			if err := b.f.WriteData(1, false, piece); err != nil {
				t.Fatal(err)
			}
			sent, windows[0], windows[1] = sent+len(piece), windows[0]-len(piece), windows[1]-len(piece)
			continue
		}
		frame, err := b.f.ReadFrame()
		if err != nil {
			t.Fatalf("after %d bytes: %v", sent, err)
		}
		if more, ok := frame.(*http2.WindowUpdateFrame); ok {
			windows[more.StreamID] += int(more.Increment)
		}
	}
	b.send("", true)
	if got, err := b.receive(0); got != fmt.Sprint(much) || err != nil {
		t.Errorf("the tunnel brought %s bytes: %v", got, err)
	}
}

// swallow takes the WebSocket, and says how many bytes came.
func swallow(t *testing.T, w http.ResponseWriter, key string) {
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	n, _ := io.Copy(io.Discard, buffered)
	_, _ = fmt.Fprint(c, n)
}
