package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
	"gatelodge/proxy/upstream"
)

// message frames a gRPC message: not compressed, its length, itself.
func message(text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text))), text...)
}

// readMessage reads one.
func readMessage(r io.Reader) (string, error) {
	header := make([]byte, 5)
	if _, err := io.ReadFull(r, header); err != nil {
		return "", err
	}
	text := make([]byte, binary.BigEndian.Uint32(header[1:]))
	_, err := io.ReadFull(r, text)
	return string(text), err
}

// grpcMethods answers like a gRPC server; the method is the path. left gets an entry when a call was canceled.
func grpcMethods(left chan<- string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h, rc := w.Header(), http.NewResponseController(w)
		if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" || r.Header.Get("Content-Type") != "application/grpc" || r.Method != http.MethodPost {
			http.Error(w, "no gRPC: "+r.Proto+" "+r.Header.Get("Te"), http.StatusBadRequest)
			return
		}
		h.Set("Content-Type", "application/grpc")
		finish := func(status, text string) {
			h.Set(http.TrailerPrefix+"Grpc-Status", status)
			h.Set(http.TrailerPrefix+"Grpc-Message", text)
			h.Set(http.TrailerPrefix+"Trace-Bin", "AAEC")
		}
		switch r.URL.Path {
		case "/echo.Echo/Unary":
			text, _ := readMessage(r.Body)
			_, _ = w.Write(message(text + " " + r.Header.Get("Grpc-Timeout")))
			finish("0", "")
		case "/echo.Echo/Chat": // an answer to each message, before the next one comes
			_ = rc.Flush()
			for {
				text, err := readMessage(r.Body)
				if err != nil {
					break
				}
				_, _ = w.Write(message("you said " + text))
				_ = rc.Flush()
			}
			finish("0", "")
		case "/echo.Echo/Collect":
			n := 0
			for {
				text, err := readMessage(r.Body)
				if err != nil {
					break
				}
				n += len(text)
			}
			_, _ = w.Write(message(strings.Repeat("x", n)))
			finish("0", "")
		case "/echo.Echo/Refused": // trailers only: the status stands in the header, and there is nothing else
			h.Set("Grpc-Status", "7")
			h.Set("Grpc-Message", "not you")
		case "/echo.Echo/Fails":
			_, _ = w.Write(message("begin"))
			_ = rc.Flush()
			finish("13", "in the middle")
		case "/echo.Echo/Breaks":
			_, _ = w.Write(message("begin"))
			_ = rc.Flush()
			panic(http.ErrAbortHandler)
		case "/echo.Echo/Waits":
			_ = rc.Flush()
			<-r.Context().Done()
			left <- r.Header.Get("Grpc-Timeout")
		}
	}
}

// startGRPC is a proxy before a gRPC server that speaks HTTP/2 over TLS.
func startGRPC(t *testing.T, left chan<- string) *proxytest.Proxy {
	t.Helper()
	ca := proxytest.NewCA(t)
	l := proxytest.Listen(t)
	srv := &http.Server{Handler: grpcMethods(left), TLSConfig: &tls.Config{GetCertificate: ca.GetCertificate}, Protocols: new(http.Protocols), ErrorLog: quiet}
	srv.Protocols.SetHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	pool, err := upstream.New(upstream.Config{To: []string{"https://" + l.Addr().String()}, TLS: upstream.TLS{ServerName: "grpc.test", Roots: ca.Pool}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	return proxytest.Start(t, proxytest.Sites(proxy.Site{Name: "a.test", Hosts: []string{"a.test"}, Upstream: pool, AccessLog: true}), nil)
}

// call begins a call and returns when the answer's header is there.
func call(ctx context.Context, t *testing.T, c *http.Client, method string, body io.Reader) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://a.test/echo.Echo/"+method, body)
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = -1
	r.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Grpc-Timeout": {"5S"}, "User-Agent": {"grpc-test"}}
	return c.Do(r)
}

// grpcModes are those that can carry gRPC.
var grpcModes = []proxytest.Mode{proxytest.H2, proxytest.H3}

func TestGRPC_CallsAndStreamsGoThrough(t *testing.T) {
	p := startGRPC(t, nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		client := p.Client(mode)
		for method, c := range map[string]struct{ sent, want, status string }{
			"Unary":   {string(message("hello")), string(message("hello 5S")), "0"},
			"Collect": {strings.Repeat(string(message(strings.Repeat("y", 1000))), 100), string(message(strings.Repeat("x", 100_000))), "0"},
			"Fails":   {string(message("x")), string(message("begin")), "13"},
		} {
			res, err := call(t.Context(), t, client, method, strings.NewReader(c.sent))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if res.StatusCode != 200 || string(body) != c.want || err != nil {
				t.Errorf("%s: %d, %d bytes, %v", method, res.StatusCode, len(body), err)
			}
			if res.Trailer.Get("Grpc-Status") != c.status || res.Trailer.Get("Trace-Bin") != "AAEC" || res.Header.Get("Grpc-Status") != "" || res.Header.Get("Content-Type") != "application/grpc" {
				t.Errorf("%s: header %v, trailers %v", method, res.Header, res.Trailer)
			}
		}
	}, grpcModes...)
}

func TestGRPC_AConversationGoesBothWaysAtOnce(t *testing.T) {
	p := startGRPC(t, nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		r, w := io.Pipe()
		res, err := call(t.Context(), t, p.Client(mode), "Chat", r) // the header comes before a message was sent
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		for _, text := range []string{"one", strings.Repeat("two", 10_000), ""} {
			if _, err := w.Write(message(text)); err != nil {
				t.Fatal(err)
			}
			if got, err := readMessage(res.Body); got != "you said "+text || err != nil {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
		}
		_ = w.Close()
		if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil || res.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("end: %q, %v, %v", rest, err, res.Trailer)
		}
	}, grpcModes...)
}

func TestGRPC_TrailersAloneAreTheWholeAnswer(t *testing.T) {
	p := startGRPC(t, nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		res, err := call(t.Context(), t, p.Client(mode), "Refused", bytes.NewReader(message("x")))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if res.StatusCode != 200 || len(body) > 0 || err != nil || res.Header.Get("Grpc-Status") != "7" || res.Header.Get("Grpc-Message") != "not you" || len(res.Trailer) > 0 {
			t.Errorf("%d %v %q %v %v", res.StatusCode, res.Header, body, err, res.Trailer)
		}
	}, grpcModes...)
}

func TestGRPC_ABrokenStreamIsNoGoodEnd(t *testing.T) {
	p := startGRPC(t, nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		res, err := call(t.Context(), t, p.Client(mode), "Breaks", bytes.NewReader(message("x")))
		if err != nil {
			return // over QUIC the reset may overtake what was sent before it: visible too
		}
		defer res.Body.Close()
		if _, err := io.ReadAll(res.Body); err == nil || len(res.Trailer) > 0 {
			t.Errorf("the client took it for a whole answer: %v, %v", err, res.Trailer)
		}
	}, grpcModes...)
}

func TestGRPC_CancelsAndDeadlinesReachTheServer(t *testing.T) {
	left := make(chan string, 1)
	p := startGRPC(t, left)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		for name, limit := range map[string]func(context.Context) (context.Context, context.CancelFunc){
			"a deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, 200*time.Millisecond)
			},
			"a cancelling": context.WithCancel,
		} {
			ctx, cancel := limit(t.Context())
			r, w := io.Pipe()
			context.AfterFunc(ctx, func() { _ = w.CloseWithError(ctx.Err()) }) // net/http's client cannot leave a Read alone
			res, err := call(ctx, t, p.Client(mode), "Waits", r)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if name == "a cancelling" {
				cancel()
			}
			if _, err := io.ReadAll(res.Body); err == nil {
				t.Errorf("%s: the answer ended well", name)
			}
			select {
			case timeout := <-left:
				if timeout != "5S" {
					t.Errorf("%s: the server read a timeout of %q", name, timeout)
				}
			case <-time.After(5 * time.Second):
				t.Errorf("%s: the server goes on", name)
			}
			_ = res.Body.Close()
			_ = w.Close()
			cancel()
		}
		if p.Metrics.UpstreamErrors("") > 0 {
			t.Error("the client's leaving was counted against the upstream")
		}
	}, grpcModes...)
}

// What goes over the wire, frame by frame: no content-length that a client did not send, a header before the first message, END_STREAM on the trailers.
func TestGRPC_FramesAreWhatAClientExpects(t *testing.T) {
	p := startGRPC(t, nil)
	c, err := tls.Dial("tcp", p.HTTPS, &tls.Config{ServerName: "a.test", RootCAs: p.CA.Pool, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = f.WriteSettings()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, field := range []string{":method POST", ":scheme https", ":authority a.test", ":path /echo.Echo/Chat", "te trailers", "content-type application/grpc"} {
		name, value, _ := strings.Cut(field, " ")
		_ = enc.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	var seen []string
	for end := false; !end; {
		fr, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err, seen)
		}
		switch fr := fr.(type) {
		case *http2.SettingsFrame:
			if !fr.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			text := "HEADERS"
			for _, field := range fr.Fields {
				switch field.Name {
				case ":status", "content-type", "content-length", "grpc-status", "trailer", "transfer-encoding":
					text += " " + field.Name + "=" + field.Value
				}
			}
			seen = append(seen, text)
			if end = fr.StreamEnded(); !end {
				_ = f.WriteData(1, false, message("one"))
			}
		case *http2.DataFrame:
			seen = append(seen, "DATA "+string(fr.Data()[min(5, len(fr.Data())):]))
			if len(fr.Data()) > 0 {
				_ = f.WriteData(1, true, nil)
			}
			end = fr.StreamEnded()
		case *http2.RSTStreamFrame:
			t.Fatal(fr, seen)
		}
	}
	want := "HEADERS :status=200 content-type=application/grpc, DATA you said one, HEADERS grpc-status=0"
	if got := strings.Join(seen, ", "); got != want {
		t.Errorf("frames\n%s, want\n%s", got, want)
	}
}
