package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

// rawH3 is a QUIC connection on which a test speaks HTTP/3 by hand.
type rawH3 struct {
	*quic.Conn
	t *testing.T
}

func dialH3(t *testing.T, p *proxytest.Proxy, name string, qcfg *quic.Config) rawH3 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := quic.DialAddr(ctx, p.HTTPS, &tls.Config{ServerName: name, RootCAs: p.CA.Pool, NextProtos: []string{"h3"}}, qcfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseWithError(0, "") })
	control, err := c.OpenUniStream()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = control.Write([]byte{0, 4, 0}) // control stream, SETTINGS without any
	return rawH3{c, t}
}

// Frame types of RFC 9114 §7.2.
const (
	h3Data    = 0
	h3Headers = 1
	h3GoAway  = 7
)

func frame(kind uint64, payload []byte) []byte {
	return append(quicvarint.Append(quicvarint.Append(nil, kind), uint64(len(payload))), payload...)
}

// fields is a HEADERS frame with every field as literals (RFC 9204 §4.5.6), names and values by turns.
func fields(namesAndValues ...string) []byte {
	block := []byte{0, 0}
	for i := 0; i < len(namesAndValues); i += 2 {
		block = qpackString(block, 0x20, 3, namesAndValues[i])
		block = qpackString(block, 0, 7, namesAndValues[i+1])
	}
	return frame(h3Headers, block)
}

// qpackString appends a string whose length has a prefix of so many bits (RFC 7541 §5.1).
func qpackString(b []byte, first byte, bits int, s string) []byte {
	n, most := len(s), 1<<bits-1
	if n < most {
		b = append(b, first|byte(n))
	} else {
		b = append(b, first|byte(most))
		for n -= most; n >= 128; n >>= 7 {
			b = append(b, byte(n)|128)
		}
		b = append(b, byte(n))
	}
	return append(b, s...)
}

func request(method string, more ...string) []byte {
	return fields(append([]string{":method", method, ":scheme", "https", ":authority", "a.test", ":path", "/"}, more...)...)
}

// send opens a stream and writes the frames on it, and the end if fin is set.
func (c rawH3) send(fin bool, frames ...[]byte) *quic.Stream {
	c.t.Helper()
	s, err := c.OpenStreamSync(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	_ = s.SetDeadline(time.Now().Add(10 * time.Second))
	for _, f := range frames {
		if _, err := s.Write(f); err != nil {
			break // the proxy wants no more of it
		}
	}
	if fin {
		_ = s.Close()
	}
	return s
}

func TestHTTP3_IsAnnouncedToThoseWhoComeByTCPWithTLS(t *testing.T) {
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Alt-Svc", `h3="evil.test:1"`)
		_, _ = io.WriteString(w, r.Proto)
	})
	set := proxytest.Sites(proxytest.Site(t, to, "a.test"))
	var opened []net.PacketConn
	p := proxytest.StartWith(t, set, func(c *proxy.Config, s *proxy.Settings) {
		s.HTTP3 = false
		inner := c.ListenQUIC
		c.ListenQUIC = func() ([]net.PacketConn, error) {
			conns, err := inner()
			opened = append(opened, conns...)
			return conns, err
		}
	})
	check := func(when string, edit func(*proxy.Settings), want []string) {
		t.Helper()
		set := set
		edit(&set)
		if err := p.Apply(set); err != nil {
			t.Fatal(err)
		}
		if set.ProxyProtocol.V2 {
			p.First = headerV2
			defer func() { p.First = nil }()
		}
		proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
			want := want
			if !mode.TLS || mode.H3 {
				want = nil
			}
			if mode.H3 && (!set.HTTP3 || set.ProxyProtocol.V2) {
				if answersQUIC(t, p) {
					t.Errorf("%s: HTTP/3 is served", when)
				}
				return
			}
			res, body := proxytest.Get(t, p.Client(mode), mode.URL("a.test", "/"))
			if got := res.Header["Alt-Svc"]; !slices.Equal(got, want) || body != "HTTP/1.1" {
				t.Errorf("%s: %q %q, want %q", when, got, body, want)
			}
		})
	}
	check("before", func(s *proxy.Settings) { s.HTTP3 = false }, nil)
	check("on", func(s *proxy.Settings) {}, []string{`h3=":443"; ma=86400`})
	check("on another port", func(s *proxy.Settings) { s.HTTPSPort = 8443 }, []string{`h3=":8443"; ma=86400`})
	check("behind a balancer", func(s *proxy.Settings) { s.ProxyProtocol = proxy.ProxyProtocol{V2: true, From: fromLoopback} }, []string{"clear"})
	check("on again", func(s *proxy.Settings) {}, []string{`h3=":443"; ma=86400`})
	check("off", func(s *proxy.Settings) { s.HTTP3 = false }, []string{"clear"})
	if len(opened) != 2 {
		t.Errorf("UDP was opened %d times", len(opened))
	}
}

// answersQUIC reports whether there is somebody who shakes hands.
func answersQUIC(t *testing.T, p *proxytest.Proxy) bool {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	c, err := quic.DialAddr(ctx, p.HTTPS, &tls.Config{ServerName: "a.test", RootCAs: p.CA.Pool, NextProtos: []string{"h3"}}, nil)
	if err == nil {
		_ = c.CloseWithError(0, "")
	}
	return err == nil
}

func TestHTTP3_FinishesRequestsWhenItIsTurnedOff(t *testing.T) {
	release := make(chan struct{})
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begin")
		_ = http.NewResponseController(w).Flush()
		<-release
		_, _ = io.WriteString(w, " end")
	})
	set := proxytest.Sites(proxytest.Site(t, to, "a.test"))
	p := proxytest.Start(t, set, nil)
	for range 2 {
		res, err := p.Client(proxytest.H3).Get("https://a.test/")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		off := set
		off.HTTP3 = false
		if err := p.Apply(off); err != nil {
			t.Fatal(err)
		}
		if answersQUIC(t, p) {
			t.Error("a new connection was taken")
		}
		if err := p.Apply(set); err != nil { // on again, with the old connection still there
			t.Fatal(err)
		}
		dialH3(t, p, "a.test", nil)
		release <- struct{}{}
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "begin end" {
			t.Errorf("body = %q, %v", body, err)
		}
	}
}

func TestHTTP3_ShutdownSendsGoAwayAndDoesNotWaitForIdleClients(t *testing.T) {
	p := start(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	c := dialH3(t, p, "a.test", nil)
	if answer, err := io.ReadAll(c.send(true, request("GET"))); err != nil || !bytes.HasSuffix(answer, []byte("ok")) {
		t.Fatalf("%q, %v", answer, err)
	}
	control, err := c.AcceptUniStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var said []byte
	read := make(chan error, 1)
	go func() {
		var err error
		said, err = io.ReadAll(control)
		read <- err
	}()
	began := time.Now()
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Shutdown took %v", took)
	}
	err = <-read
	if want := frame(h3GoAway, quicvarint.Append(nil, 4)); !bytes.HasSuffix(said, want) { // request 0 was the last one taken
		t.Errorf("the control stream ends in %x, want %x", said, want)
	}
	closed, ok := errors.AsType[*quic.ApplicationError](err)
	if !ok || closed.ErrorCode != quic.ApplicationErrorCode(http3.ErrCodeNoError) || !closed.Remote {
		t.Errorf("closed by %v", err)
	}
	if err := p.Wait(); err != nil || p.Metrics.Open() != 0 {
		t.Errorf("Serve = %v, %d connections are open", err, p.Metrics.Open())
	}
}

func TestHTTP3_ShutdownDoesNotWaitForHandshakes(t *testing.T) {
	asked := make(chan struct{})
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, "http://127.0.0.1:1", "a.test")), func(c *proxy.Config) {
		c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			close(asked)
			<-hello.Context().Done()
			return nil, hello.Context().Err()
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if c, err := quic.DialAddr(ctx, p.HTTPS, &tls.Config{ServerName: "a.test", RootCAs: p.CA.Pool, NextProtos: []string{"h3"}}, nil); err == nil {
			_ = c.CloseWithError(0, "")
			t.Error("a handshake without a certificate")
		}
	}()
	<-asked
	began := time.Now()
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.Wait(); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("Serve = %v after %v", err, time.Since(began))
	}
	<-done
}

// A body that is longer or shorter than content-length must never look complete to the upstream (RFC 9114 §4.1.2).
func TestHTTP3_ChecksContentLengthAgainstTheData(t *testing.T) {
	type result struct {
		body string
		err  error
	}
	got := make(chan result, 1)
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		got <- result{string(body), err}
		_, _ = io.WriteString(w, "ok")
	})
	c := dialH3(t, p, "a.test", nil)
	post := request("POST", "content-length", "4")
	for _, frames := range [][][]byte{{post, frame(h3Data, []byte("body"))}, {post, frame(h3Data, []byte("bo")), frame(0x21, []byte("grease")), frame(h3Data, []byte("dy")), frame(h3Data, nil)}} {
		if answer, err := io.ReadAll(c.send(true, frames...)); err != nil || !bytes.HasSuffix(answer, []byte("ok")) {
			t.Fatalf("a good request: %q, %v", answer, err)
		}
		if r := <-got; r.body != "body" || r.err != nil {
			t.Errorf("a good request: %q, %v", r.body, r.err)
		}
	}
	for name, frames := range map[string][][]byte{
		"longer":             {post, frame(h3Data, []byte("body and more"))},
		"longer by a frame":  {post, frame(h3Data, []byte("body")), frame(h3Data, []byte("GET / HTTP/1.1\r\n"))},
		"shorter":            {post, frame(h3Data, []byte("bod"))},
		"nothing":            {post},
		"no number":          {request("POST", "content-length", "4x"), frame(h3Data, []byte("body"))},
		"a sign":             {request("POST", "content-length", "+4"), frame(h3Data, []byte("body"))},
		"a zero":             {request("POST", "content-length", "04"), frame(h3Data, []byte("body"))},
		"two lengths":        {request("POST", "content-length", "4", "content-length", "5"), frame(h3Data, []byte("body"))},
		"a list":             {request("POST", "content-length", "4, 4"), frame(h3Data, []byte("body"))},
		"zero and a body":    {request("POST", "content-length", "0"), frame(h3Data, []byte("body"))},
		"a DATA frame first": {frame(h3Data, []byte("body")), post},
	} {
		s := dialH3(t, p, "a.test", nil).send(true, frames...) // some of these end the connection
		if answer, err := io.ReadAll(s); err == nil && bytes.HasSuffix(answer, []byte("ok")) && name != "zero and a body" {
			t.Errorf("%s: answer %q", name, answer)
		}
		select {
		case r := <-got:
			if r.err == nil && (name != "zero and a body" || r.body != "") {
				t.Errorf("%s: the upstream took %q for complete", name, r.body)
			}
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// statusOf reads the :status of an answer whose first frame is its header (RFC 9114 §4.1), empty if there is none.
func statusOf(answer []byte) string {
	r := bytes.NewReader(answer)
	kind, err := quicvarint.Read(r)
	n, lengthErr := quicvarint.Read(r)
	if err != nil || lengthErr != nil || kind != 0x1 || n > uint64(r.Len()) {
		return ""
	}
	return qpackStatus(answer[len(answer)-r.Len():][:n])
}

func TestHTTP3_RefusesWhatCannotBeForwarded(t *testing.T) {
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s reached the upstream: %q", r.Method, r.RequestURI, r.Header)
	})
	pseudo := func(method, path string, more ...string) []byte {
		return fields(append([]string{":method", method, ":scheme", "https", ":authority", "a.test", ":path", path}, more...)...)
	}
	for name, headers := range map[string][]byte{
		"connection":         pseudo("GET", "/", "connection", "close"),
		"transfer-encoding":  pseudo("POST", "/", "transfer-encoding", "chunked"),
		"upgrade":            pseudo("GET", "/", "upgrade", "h2c"),
		"http2-settings":     pseudo("GET", "/", "http2-settings", "x"),
		"te":                 pseudo("GET", "/", "te", "gzip"),
		"a capital":          pseudo("GET", "/", "X-A", "b"),
		"a line feed":        pseudo("GET", "/", "x-a", "b\r\nx-c: d"),
		"a NUL":              pseudo("GET", "/", "x-a", "b\x00"),
		"another host":       pseudo("GET", "/", "host", "b.test"),
		"two hosts":          pseudo("GET", "/", "host", "a.test", "host", "a.test"),
		"a space":            pseudo("GET", "/a b"),
		"a fragment":         pseudo("GET", "/#x"),
		"absolute":           pseudo("GET", "https://a.test/"),
		"no path":            pseudo("GET", ""),
		"a bad method":       pseudo("GE T", "/"),
		"CONNECT":            fields(":method", "CONNECT", ":authority", "a.test:443"),
		"no authority":       fields(":method", "GET", ":scheme", "https", ":path", "/"),
		"a user":             fields(":method", "GET", ":scheme", "https", ":authority", "u@a.test", ":path", "/"),
		"a comma":            fields(":method", "GET", ":scheme", "https", ":authority", "a.test,b.test", ":path", "/"),
		"an unknown pseudo":  fields(":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/", ":x", "y"),
		"a pseudo too late":  fields(":method", "GET", ":scheme", "https", ":authority", "a.test", "x", "y", ":path", "/"),
		"two paths":          fields(":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/", ":path", "/x"),
		"a status":           fields(":status", "200", ":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/"),
		"a header too large": pseudo("GET", "/", "x", strings.Repeat("x", 70<<10)),
	} {
		s := dialH3(t, p, "a.test", nil).send(true, headers)
		answer, err := io.ReadAll(s)
		if status := statusOf(answer); err == nil && !strings.HasPrefix(status, "4") { // by a status or by a reset
			t.Errorf("%s: status %q, %q", name, status, answer)
		}
	}
}

func TestHTTP3_TakesNoEarlyData(t *testing.T) {
	p := start(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	c := &cache{}
	for i := range 2 {
		conn, err := quic.DialAddrEarly(t.Context(), p.HTTPS, &tls.Config{ServerName: "a.test", RootCAs: p.CA.Pool, NextProtos: []string{"h3"}, ClientSessionCache: c}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll((rawH3{conn, t}).send(true, request("GET"))); err != nil || !bytes.HasSuffix(answer, []byte("ok")) {
			t.Errorf("%q, %v", answer, err)
		}
		if state := conn.ConnectionState(); state.Used0RTT || state.TLS.DidResume != (i == 1) {
			t.Errorf("visit %d: early data %v, resumed %v", i+1, state.Used0RTT, state.TLS.DidResume)
		}
		c.waitFor(t)
		_ = conn.CloseWithError(0, "")
	}
}

func TestHTTP3_EndsConnectionsWithoutRequestsAndRequestsWithoutProgress(t *testing.T) {
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, io.LimitReader(zeros{}, 10<<20))
	}), "a.test")), func(c *proxy.Config) {
		c.Limits.IdleTimeout = 500 * time.Millisecond
		c.Limits.StallTimeout = 300 * time.Millisecond
	})
	ended := func(c rawH3) {
		t.Helper()
		select {
		case <-c.Context().Done():
		case <-time.After(10 * time.Second):
			t.Error("the connection stays open")
		}
	}
	keep := &quic.Config{KeepAlivePeriod: 50 * time.Millisecond, MaxIdleTimeout: time.Minute}
	idle := dialH3(t, p, "a.test", keep)
	half := dialH3(t, p, "a.test", keep)
	half.send(false, request("GET")[:10]) // and never the rest
	ended(idle)
	ended(half)

	// A client that opens no window for the answer, nor even for its header.
	for _, window := range []uint64{1, 1000} {
		greedy := dialH3(t, p, "a.test", &quic.Config{
			KeepAlivePeriod: 50 * time.Millisecond, InitialStreamReceiveWindow: window, MaxStreamReceiveWindow: window,
			InitialConnectionReceiveWindow: 1000, MaxConnectionReceiveWindow: 1000,
		})
		_ = p.Access.TakeAll()
		greedy.send(true, request("GET"))
		eventually(t, fmt.Sprintf("the request of a client with a window of %d is cut", window), func() bool {
			return p.Access.FilterField(zapBool("cut", true)).Len() == 1
		})
		ended(greedy)
	}
	eventually(t, "nothing is open", func() bool { return p.Metrics.Open() == 0 })
}

func TestHTTP3_RefusesHandshakesAsTLSDoes(t *testing.T) {
	p := proxytest.Start(t, proxytest.Sites(
		proxytest.Site(t, "http://127.0.0.1:1", "a.test"), proxy.Site{Name: "db.test", Hosts: []string{"db.test"}, Passthrough: &proxy.Passthrough{To: "127.0.0.1:1"}}), nil)
	p.CA.Refuse["refused.a.test"] = true
	for name, protos := range map[string][]string{"unknown.test": {"h3"}, "db.test": {"h3"}, "": {"h3"}, "a.test": {"acme-tls/1"}} {
		c, err := quic.DialAddr(t.Context(), p.HTTPS, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: protos}, nil)
		if err == nil {
			_ = c.CloseWithError(0, "")
			t.Errorf("%q %q: no error", name, protos)
			continue
		}
		want := quic.TransportErrorCode(0x100 + 112) // unrecognized_name
		if name == "a.test" {
			want = 0x100 + 120 // no_application_protocol
		}
		if te, ok := errors.AsType[*quic.TransportError](err); name != "" && (!ok || te.ErrorCode != want) {
			t.Errorf("%q %q: %v, want %v", name, protos, err, want)
		}
	}
	eventually(t, "they are counted as failed", func() bool { return p.Metrics.Handshakes(false) == 4 && p.Metrics.Open() == 0 })
}

func TestHTTP3_BoundsHandshakesPerClient(t *testing.T) {
	p := proxytest.StartWith(t, proxytest.Sites(proxytest.Site(t, "http://127.0.0.1:1", "a.test")), func(_ *proxy.Config, s *proxy.Settings) { s.HandshakesPerClient = 2 })
	ok := 0
	for range 6 {
		c, err := quic.DialAddr(t.Context(), p.HTTPS, &tls.Config{ServerName: "a.test", RootCAs: p.CA.Pool, NextProtos: []string{"h3"}}, nil)
		if err == nil {
			ok++
			_ = c.CloseWithError(0, "")
		}
	}
	if ok < 2 || ok > 3 {
		t.Errorf("%d of 6 handshakes went through, 2 may", ok)
	}
}

func TestHTTP3_ManyClientsComeAndGo(t *testing.T) {
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	})
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			client := p.Client(proxytest.H3)
			for k := range 20 {
				text := strings.Repeat(fmt.Sprint(i, k), 1000)
				res, err := client.Post("https://a.test/", "text/plain", strings.NewReader(text))
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil || string(body) != text {
					t.Errorf("%d bytes, %v", len(body), err)
				}
			}
			_ = client.Transport.(io.Closer).Close()
		})
	}
	all.Wait()
	eventually(t, "all are gone", func() bool { return p.Metrics.Open() == 0 })
}

// A client that resets its requests as soon as they are sent gets no more of us than one that waits for them.
func TestHTTP3_RapidResetsAreBounded(t *testing.T) {
	var mu sync.Mutex
	running, most := 0, 0
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		<-r.Context().Done()
		mu.Lock()
		running--
		mu.Unlock()
	})
	c := dialH3(t, p, "a.test", nil)
	get := request("GET")
	for range 5000 {
		s, err := c.OpenStreamSync(c.Context())
		if err != nil {
			break // sent away
		}
		_, _ = s.Write(get)
		_ = s.Close()
		s.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
	}
	_ = c.CloseWithError(0, "")
	eventually(t, "all requests have ended", func() bool { mu.Lock(); defer mu.Unlock(); return running == 0 && p.Metrics.Open() == 0 })
	mu.Lock()
	defer mu.Unlock()
	if most > 500 {
		t.Errorf("%d requests at a time", most)
	}
	if res, _ := proxytest.Get(t, p.Client(proxytest.Plain), "http://b.test/"); res.StatusCode != 421 {
		t.Errorf("afterwards: %d", res.StatusCode)
	}
}
