package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

// behind is who terminates TLS behind the proxy: each connection is given to serve.
func behind(t *testing.T, serve func(net.Conn)) (addr string) {
	t.Helper()
	l := proxytest.Listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				serve(c)
			}()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

// passing is a proxy with sites that pass through, *.db.test and db.test, and one that does not, a.test.
func passing(t *testing.T, to *proxy.Passthrough, edit func(*proxy.Config, *proxy.Settings)) *proxytest.Proxy {
	web := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "web") })
	return proxytest.StartWith(t, proxytest.Sites(
		proxytest.Site(t, web, "a.test", "*.db-web.test"), proxy.Site{Name: "db.test", Hosts: []string{"db.test", "*.db.test"}, Passthrough: to, AccessLog: true}), edit)
}

// hello returns the bytes of a ClientHello for the name, with an ALPN list of any length.
func hello(t *testing.T, name string, protos ...string) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go func() {
		_ = tls.Client(near, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: protos}).Handshake()
	}()
	header := make([]byte, 5)
	if _, err := io.ReadFull(far, header); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(header[3])<<8|int(header[4]))
	if _, err := io.ReadFull(far, body); err != nil {
		t.Fatal(err)
	}
	return append(header, body...)
}

// fragmented spreads the one record of a ClientHello over records of n bytes.
func fragmented(hello []byte, n int) []byte {
	var out []byte
	for rest := hello[5:]; len(rest) > 0; {
		k := min(n, len(rest))
		out = append(append(out, hello[0], hello[1], hello[2], byte(k>>8), byte(k)), rest[:k]...)
		rest = rest[k:]
	}
	return out
}

func TestPassthrough_TheClientShakesHandsWithWhoeverIsBehind(t *testing.T) {
	theirs := proxytest.NewCA(t)
	to := behind(t, func(c net.Conn) {
		tc := tls.Server(c, &tls.Config{GetCertificate: theirs.GetCertificate, NextProtos: []string{"db/1", "acme-tls/1"}})
		_, _ = io.Copy(tc, tc)
		_ = tc.CloseWrite()
	})
	p := passing(t, &proxy.Passthrough{To: to}, nil)
	for _, sni := range []string{"db.test", "DB.test", "x.db.test"} {
		for _, proto := range []string{"db/1", "acme-tls/1"} { // its certificates are its own affair
			c, err := tls.Dial("tcp", p.HTTPS, &tls.Config{ServerName: sni, RootCAs: theirs.Pool, NextProtos: []string{proto}})
			if err != nil {
				t.Fatalf("%s: %v", sni, err)
			}
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if got := c.ConnectionState().NegotiatedProtocol; got != proto {
				t.Errorf("%s: protocol %q", sni, got)
			}
			text := strings.Repeat("x", 1<<20)
			go func() { _, _ = io.WriteString(c, text); _ = c.CloseWrite() }()
			if got, err := io.ReadAll(c); err != nil || string(got) != text {
				t.Errorf("%s: %d bytes came back, %v", sni, len(got), err)
			}
			_ = c.Close()
		}
	}
	// Beside it everything is as ever.
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		client := p.Client(mode)
		if res, body := proxytest.Get(t, client, mode.URL("a.test", "/")); res.StatusCode != 200 || body != "web" {
			t.Errorf("a.test: %d %q", res.StatusCode, body)
		}
		if got, _ := ask(t, client, mode, "a.test", "db.test"); got != 421 {
			t.Errorf("a request for db.test on another's connection: %d", got)
		}
	}, tlsModes...)
	if res, _ := proxytest.Get(t, p.Client(proxytest.Plain), "http://db.test/"); res.StatusCode != 308 {
		t.Errorf("without TLS: %d", res.StatusCode)
	}
	eventually(t, "six connections are logged", func() bool { return p.Access.FilterMessage("passthrough").Len() == 6 })
	m := p.Access.FilterMessage("passthrough").All()[0].ContextMap()
	if m["host"] != "db.test" || m["upstream"] != "tcp://"+to || m["client"] != "127.0.0.1" || m["bytes_in"].(int64) < 1<<20 || m["bytes_out"].(int64) < 1<<20 {
		t.Errorf("record = %v", m)
	}
}

func TestPassthrough_NothingIsLostOrAddedHoweverTheClientHelloComes(t *testing.T) {
	got := make(chan []byte, 1)
	to := behind(t, func(c net.Conn) {
		all, _ := io.ReadAll(c) // to the client's FIN
		got <- all
		_, _ = io.WriteString(c, "bye")
	})
	p := passing(t, &proxy.Passthrough{To: to}, nil)
	whole := hello(t, "db.test", "h2", "http/1.1")
	many := make([]string, 200)
	for i := range many {
		many[i] = strings.Repeat("x", 200)
	}
	for name, text := range map[string][]byte{
		"one record":        whole,
		"records of a byte": fragmented(whole, 1),
		"records of 100":    fragmented(whole, 100),
		"the SNI cut":       fragmented(whole, bytes.Index(whole, []byte("db.test"))-5+3),
		"40 kB":             fragmented(bigHello(t, many), 16000),
	} {
		for _, piece := range []int{1, 333, len(text)} {
			if piece == 1 && len(text) > 10000 {
				continue
			}
			c, err := net.Dial("tcp", p.HTTPS)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			sent := append(bytes.Clone(text), "and more"...)
			for rest := sent; len(rest) > 0; {
				k := min(piece, len(rest))
				if _, err := c.Write(rest[:k]); err != nil {
					t.Fatal(err)
				}
				rest = rest[k:]
			}
			_ = c.(*net.TCPConn).CloseWrite()
			if answer, err := io.ReadAll(c); string(answer) != "bye" || err != nil {
				t.Errorf("%s in pieces of %d: answer %q, %v", name, piece, answer, err)
			}
			if all := <-got; !bytes.Equal(all, sent) {
				t.Errorf("%s in pieces of %d: %d bytes arrived of %d", name, piece, len(all), len(sent))
			}
			_ = c.Close()
		}
	}
}

// bigHello is a ClientHello of several records, as one.
func bigHello(t *testing.T, protos []string) []byte {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go func() {
		_ = tls.Client(near, &tls.Config{ServerName: "db.test", InsecureSkipVerify: true, NextProtos: protos}).Handshake()
	}()
	var message []byte
	header := make([]byte, 5)
	for {
		if _, err := io.ReadFull(far, header); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, int(header[3])<<8|int(header[4]))
		if _, err := io.ReadFull(far, body); err != nil {
			t.Fatal(err)
		}
		message = append(message, body...)
		if len(message) >= 4+(int(message[1])<<16|int(message[2])<<8|int(message[3])) {
			return append(append([]byte(nil), header...), message...)
		}
	}
}

func TestPassthrough_BoundsTheClientHello(t *testing.T) {
	p := passing(t, &proxy.Passthrough{To: behind(t, func(net.Conn) { t.Error("it got through") })}, func(c *proxy.Config, _ *proxy.Settings) {
		c.Limits.HandshakeTimeout = 500 * time.Millisecond
	})
	whole := hello(t, "db.test")
	long := append([]byte{22, 3, 1, 0x3f, 0xff, 1, 0, 0xff, 0xff}, make([]byte, 0x3ffb)...) // announces 65,535 bytes
	for range 5 {
		long = append(long, append([]byte{22, 3, 1, 0x3f, 0xff}, make([]byte, 0x3fff)...)...)
	}
	for name, text := range map[string][]byte{"half of it": whole[:100], "too long": long, "empty records": bytes.Repeat([]byte{22, 3, 1, 0, 0}, 100)} {
		c, err := net.Dial("tcp", p.HTTPS)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = c.Write(text)
		if _, err := io.ReadAll(c); isTimeout(err) {
			t.Errorf("%s: the connection stays open", name)
		}
		_ = c.Close()
	}
	eventually(t, "nothing is open", func() bool { return p.Metrics.Open() == 0 })
}

func TestPassthrough_TellsWhoTheClientIs(t *testing.T) {
	got := make(chan string, 1)
	to := behind(t, func(c net.Conn) {
		buf := make([]byte, 1000)
		n, _ := c.Read(buf)
		got <- string(buf[:n])
	})
	text := string(hello(t, "db.test"))
	for version, want := range map[int]string{0: "", 1: string(headerV1), 2: string(headerV2)} {
		p := passing(t, &proxy.Passthrough{To: to, SendProxy: version}, func(_ *proxy.Config, s *proxy.Settings) {
			s.ProxyProtocol = proxy.ProxyProtocol{V2: true, From: fromLoopback}
		})
		c, err := net.Dial("tcp", p.HTTPS)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, string(headerV2)+text)
		if first := <-got; !strings.HasPrefix(first, want+text[:100]) {
			t.Errorf("version %d: %q", version, first[:min(len(first), 60)])
		}
		_ = c.Close()
	}
}

func TestPassthrough_EndsWhenNothingPassesAndWhenNobodyIsThere(t *testing.T) {
	to := behind(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	p := passing(t, &proxy.Passthrough{To: to, IdleTimeout: time.Second}, nil)
	c, err := net.Dial("tcp", p.HTTPS)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	text := hello(t, "db.test")
	_, _ = c.Write(text)
	if _, err := io.ReadFull(c, make([]byte, len(text))); err != nil {
		t.Fatal(err)
	}
	for range 13 { // more than the timeout in all
		time.Sleep(100 * time.Millisecond)
		_, _ = c.Write([]byte("x"))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatalf("closed although something passed: %v", err)
		}
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("idle: %v", err)
	}

	gone := proxytest.Listen(t)
	_ = gone.Close()
	p = passing(t, &proxy.Passthrough{To: gone.Addr().String()}, nil)
	if _, err := shake(t, p, &tls.Config{ServerName: "db.test"}); err == nil {
		t.Error("a handshake with nobody")
	}
	eventually(t, "it is counted and logged", func() bool {
		return p.Metrics.UpstreamErrors("connect") == 1 && p.Log.FilterMessage("upstream failed").Len() == 1 && p.Metrics.Open() == 0
	})
}

func TestPassthrough_CountsInTheDrain(t *testing.T) {
	to := behind(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	open := func(p *proxytest.Proxy) net.Conn {
		c, err := net.Dial("tcp", p.HTTPS)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		text := hello(t, "db.test")
		_, _ = c.Write(text)
		if _, err := io.ReadFull(c, make([]byte, len(text))); err != nil {
			t.Fatal(err)
		}
		return c
	}
	p := passing(t, &proxy.Passthrough{To: to}, nil)
	c := open(p)
	done := make(chan error, 1)
	go func() { done <- p.Shutdown(t.Context()) }()
	eventually(t, "the listener is closed", func() bool {
		c, err := net.Dial("tcp", p.HTTPS)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	_, _ = c.Write([]byte("x"))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("during the drain: %v", err)
	}
	_ = c.Close()
	if err := <-done; err != nil {
		t.Errorf("Shutdown = %v", err)
	}

	p = passing(t, &proxy.Passthrough{To: to}, nil)
	c = open(p)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown = %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("after the deadline: %v", err)
	}
}

func TestPassthrough_AReloadMovesNewConnections(t *testing.T) {
	to := behind(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	web := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "web") })
	ours := proxytest.Site(t, web, "db.test")
	p := proxytest.Start(t, proxytest.Sites(ours), nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		if err := p.Apply(proxytest.Sites(ours)); err != nil {
			t.Fatal(err)
		}
		client := p.Client(mode)
		if got, _ := ask(t, client, mode, "db.test", "db.test"); got != 200 {
			t.Fatalf("before: %d", got)
		}
		if err := p.Apply(proxytest.Sites(proxy.Site{Name: "db.test", Hosts: ours.Hosts, Passthrough: &proxy.Passthrough{To: to}})); err != nil {
			t.Fatal(err)
		}
		if got, _ := ask(t, client, mode, "db.test", "db.test"); got != 421 {
			t.Errorf("on the connection of before: %d, want 421", got)
		}
		if _, err := shake(t, p, &tls.Config{ServerName: "db.test"}); err == nil {
			t.Error("a new connection was still terminated")
		}
	}, tlsModes...)
}

func TestPassthrough_RefusesSettingsThatMakeNoSense(t *testing.T) {
	p := twoSites(t, nil)
	site, _ := p.Site("a.test")
	for name, s := range map[string]proxy.Site{
		"with an upstream":         {Upstream: site.Upstream, Passthrough: &proxy.Passthrough{To: "127.0.0.1:1"}},
		"without a port":           {Passthrough: &proxy.Passthrough{To: "127.0.0.1"}},
		"with a version 3":         {Passthrough: &proxy.Passthrough{To: "127.0.0.1:1", SendProxy: 3}},
		"with client certificates": {Passthrough: &proxy.Passthrough{To: "127.0.0.1:1"}, ClientAuth: "partners"},
	} {
		s.Name, s.Hosts = "x", []string{"x.test"}
		set := proxytest.Sites(s)
		set.ClientAuth = []proxy.ClientAuth{{Name: "partners", CAs: certsOf(p.CA)}}
		if err := p.Apply(set); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestParsePassthrough_TakesAnAddressAndAVersion(t *testing.T) {
	for text, want := range map[string]proxy.Passthrough{
		"tcp://10.0.0.20:8443":                     {To: "10.0.0.20:8443"},
		"tcp://[2001:db8::1]:443":                  {To: "[2001:db8::1]:443"},
		"tcp://db.internal:5432?proxy_protocol=v1": {To: "db.internal:5432", SendProxy: 1},
		"tcp://db.internal:5432?proxy_protocol=v2": {To: "db.internal:5432", SendProxy: 2},
	} {
		if got, err := proxy.ParsePassthrough(text); err != nil || *got != want {
			t.Errorf("%s = %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "10.0.0.20:8443", "tcp://10.0.0.20", "tcp://:8443", "tcp://10.0.0.20:0", "tcp://10.0.0.20:99999", "tcp://10.0.0.20:8443/x", "https://10.0.0.20:8443",
		"tcp://u@10.0.0.20:8443", "tcp://10.0.0.20:8443?x=1", "tcp://10.0.0.20:8443#x", "tcp:10.0.0.20:8443",
	} {
		if got, err := proxy.ParsePassthrough(text); err == nil {
			t.Errorf("%q = %+v", text, got)
		}
	}
}
