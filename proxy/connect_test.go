package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatelodge/proxy/proxytest"
)

// A bootstrap is a stream on which a client has sent an extended CONNECT: what it says and hears then.
type bootstrap interface {
	status() string
	send(text string, end bool)
	receive(n int) (string, error) // n bytes, or all to the end for 0
}

// connectOver sends an extended CONNECT to a.test in the mode.
func connectOver(t *testing.T, p *proxytest.Proxy, mode proxytest.Mode, protocol string, more ...string) bootstrap {
	pairs := append([]string{":method", "CONNECT", ":protocol", protocol, ":scheme", "https", ":authority", "a.test", ":path", "/chat?x"}, more...)
	if mode.H3 {
		s := dialH3(t, p, "a.test", nil).send(false, fields(pairs...))
		return &h3Bootstrap{t: t, s: s, r: bufio.NewReader(s)}
	}
	c, err := tls.Dial("tcp", p.HTTPS, &tls.Config{ServerName: "a.test", RootCAs: p.CA.Pool, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, http2.ClientPreface)
	b := &h2Bootstrap{t: t, f: http2.NewFramer(c, c)}
	b.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = b.f.WriteSettings()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(pairs); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	_ = b.f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	return b
}

type h3Bootstrap struct {
	t *testing.T
	s *quic.Stream
	r *bufio.Reader
	n uint64 // left of a DATA frame
}

func (b *h3Bootstrap) status() string {
	for {
		kind, err := quicvarint.Read(b.r)
		if err != nil {
			return err.Error()
		}
		n, _ := quicvarint.Read(b.r)
		payload := make([]byte, n)
		if _, err := io.ReadFull(b.r, payload); err != nil {
			return err.Error()
		}
		if kind == h3Headers {
			return qpackStatus(payload)
		}
	}
}

// qpackStatus reads :status.
func qpackStatus(block []byte) string {
	next := qpack.NewDecoder().Decode(block)
	for {
		if f, err := next(); err != nil || f.Name == ":status" {
			return f.Value
		}
	}
}

func (b *h3Bootstrap) send(text string, end bool) {
	if text != "" {
		_, _ = b.s.Write(frame(h3Data, []byte(text)))
	}
	if end {
		_ = b.s.Close()
	}
}

func (b *h3Bootstrap) receive(n int) (string, error) {
	var got []byte
	for n == 0 || len(got) < n {
		for b.n == 0 {
			kind, err := quicvarint.Read(b.r)
			if err == io.EOF && n == 0 {
				return string(got), nil
			}
			if err != nil {
				return string(got), err
			}
			if b.n, err = quicvarint.Read(b.r); err != nil || kind != h3Data {
				return string(got), fmt.Errorf("frame of type %d, %v", kind, err)
			}
		}
		buf := make([]byte, b.n)
		k, err := b.r.Read(buf)
		got, b.n = append(got, buf[:k]...), b.n-uint64(k)
		if err != nil {
			return string(got), err
		}
	}
	return string(got), nil
}

type h2Bootstrap struct {
	t   *testing.T
	f   *http2.Framer
	got []byte
	end bool
}

// next reads frames until one is about the stream.
func (b *h2Bootstrap) next() (http2.Frame, error) {
	for {
		f, err := b.f.ReadFrame()
		if err != nil {
			return nil, err
		}
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
			_ = b.f.WriteSettingsAck()
		}
		if f.Header().StreamID == 1 {
			return f, nil
		}
	}
}

func (b *h2Bootstrap) status() string {
	f, err := b.next()
	if err != nil {
		return err.Error()
	}
	if h, ok := f.(*http2.MetaHeadersFrame); ok {
		return h.PseudoValue("status")
	}
	return f.Header().String()
}

func (b *h2Bootstrap) send(text string, end bool) { _ = b.f.WriteData(1, end, []byte(text)) }

func (b *h2Bootstrap) receive(n int) (string, error) {
	for !b.end && (n == 0 || len(b.got) < n) {
		f, err := b.next()
		if err != nil {
			return string(b.got), err
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			b.got, b.end = append(b.got, f.Data()...), f.StreamEnded()
		case *http2.RSTStreamFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return string(b.got), fmt.Errorf("reset: %v", f.ErrCode)
			}
		}
	}
	if n == 0 {
		n = len(b.got)
	}
	text := string(b.got[:min(n, len(b.got))])
	b.got = b.got[len(text):]
	return text, nil
}

// TestConnect_CarriesAWebSocketOnAStream runs itself again for HTTP/2, for which net/http wants to be asked before the process begins.
func TestConnect_CarriesAWebSocketOnAStream(t *testing.T) {
	modes := []proxytest.Mode{proxytest.H3}
	if strings.Contains(os.Getenv("GODEBUG"), "http2xconnect=1") {
		modes = append(modes, proxytest.H2)
	} else {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG=http2xconnect=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("/h2 ")) {
			t.Errorf("with GODEBUG=http2xconnect=1: %v\n%s", err, out)
		}
	}
	answers := make(chan string, 1)
	p, up := startRaw(t, func(c net.Conn, header string, r *bufio.Reader) {
		h, _ := textproto.NewReader(bufio.NewReader(strings.NewReader(header[strings.Index(header, "\n")+1:]))).ReadMIMEHeader()
		sum := sha1.Sum([]byte(h.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		_, _ = io.WriteString(c, strings.ReplaceAll(<-answers, "ACCEPT", base64.StdEncoding.EncodeToString(sum[:])))
		buf := make([]byte, 100)
		for {
			n, err := r.Read(buf)
			if err != nil {
				_, _ = io.WriteString(c, "the client is done")
				return
			}
			_, _ = c.Write(buf[:n])
			if bytes.Contains(buf[:n], []byte("bye")) {
				return
			}
		}
	})
	const good = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for _, end := range []string{"by the client", "by the upstream"} {
			_ = p.Access.TakeAll()
			answers <- good
			b := connectOver(t, p, mode, "websocket", "sec-websocket-version", "13", "sec-websocket-key", "mine", "origin", "https://a.test", "sec-websocket-protocol", "chat")
			if got := b.status(); got != "200" {
				t.Fatalf("status %s", got)
			}
			request := up.Next(t)
			for _, want := range []string{"GET /chat?x HTTP/1.1\r\n", "Connection: Upgrade\r\n", "Upgrade: websocket\r\n", "Sec-Websocket-Version: 13\r\n", "Origin: https://a.test\r\n", "Sec-Websocket-Protocol: chat\r\n", "X-Forwarded-Proto: https\r\n"} {
				if !strings.Contains(request, want) {
					t.Errorf("the upstream got no %q in %q", want, request)
				}
			}
			if strings.Contains(request, "mine") || strings.Contains(request, "protocol: websocket") || strings.Contains(request, "Transfer-Encoding") {
				t.Errorf("the upstream got %q", request)
			}
			for _, text := range []string{"hello", "again"} {
				b.send(text, false)
				if got, err := b.receive(5); got != text || err != nil {
					t.Errorf("echo %q, %v", got, err)
				}
			}
			want := "bye"
			if end == "by the client" {
				want = "the client is done"
				b.send("", true)
			} else {
				b.send("bye", false)
			}
			if got, err := b.receive(0); got != want || err != nil {
				t.Errorf("the end %s: %q, %v", end, got, err)
			}
			eventually(t, "it is logged", func() bool { return p.Access.Len() == 1 })
			if m := p.Access.All()[0].ContextMap(); m["upgrade"] != "websocket" || m["status"] != int64(200) || m["bytes_in"].(int64) < 10 || m["bytes_out"].(int64) < 13 {
				t.Errorf("record = %v", m)
			}
		}
		for answer, want := range map[string]string{
			"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n": "404",
			"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n":        "502",
			strings.Replace(good, "ACCEPT", "x", 1):                                    "502",
			strings.Replace(good, "Upgrade: websocket", "Upgrade: x", 1):               "502",
		} {
			answers <- answer
			if got := connectOver(t, p, mode, "websocket", "sec-websocket-version", "13").status(); !strings.Contains(got, want) {
				t.Errorf("after %q: status %s, want %s", answer, got, want)
			}
			_ = up.Next(t)
		}
		if got := connectOver(t, p, mode, "connect-udp").status(); !strings.Contains(got, "501") {
			t.Errorf("another protocol: status %s", got)
		}
	}, modes...)
}

func TestConnect_EndsAtTheEndOfADrain(t *testing.T) {
	p := start(t, echoSocket)
	b := connectOver(t, p, proxytest.H3, "websocket", "sec-websocket-version", "13")
	if got := b.status(); got != "200" {
		t.Fatalf("status %s", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	goodbye := make(chan error, 1)
	go func() { // while the connection lives: QUIC forgets what was not read when it is closed
		got, err := b.receive(4)
		if err == nil && got != "\x88\x02\x03\xe9" {
			err = fmt.Errorf("% x; want a Close frame with 1001", got)
		}
		goodbye <- err
	}()
	began := time.Now()
	if err := p.Shutdown(ctx); err == nil || time.Since(began) < 150*time.Millisecond {
		t.Errorf("Shutdown = %v after %s, want it to wait for the deadline and to say what it closed", err, time.Since(began))
	}
	if err := <-goodbye; err != nil {
		t.Errorf("goodbye: %v", err)
	}
	if _, err := b.receive(1); err == nil {
		t.Error("the stream is still open")
	}
	if err := p.Wait(); err != nil {
		t.Errorf("Serve = %v", err)
	}
}
