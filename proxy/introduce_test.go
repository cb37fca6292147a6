package proxy_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

// headerV1 and headerV2 say that the client is 192.0.2.1, port 1234, and connected to 192.0.2.2, port 443.
var (
	headerV1 = []byte("PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n")
	headerV2 = append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), 192, 0, 2, 1, 192, 0, 2, 2, 0x04, 0xd2, 0x01, 0xbb)
)

var fromLoopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// behindBalancer is a proxy that takes the PROXY protocol from the loopback network. The upstream answers with X-Forwarded-For.
func behindBalancer(t *testing.T, edit func(*proxy.Config, *proxy.Settings)) *proxytest.Proxy {
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-Forwarded-For"))
	})
	set := proxytest.Sites(proxytest.Site(t, to, "a.test"))
	set.ProxyProtocol = proxy.ProxyProtocol{V1: true, V2: true, From: fromLoopback}
	return proxytest.StartWith(t, set, edit)
}

func TestIntroduce_TheCarriedAddressCountsEverywhere(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	p := behindBalancer(t, func(c *proxy.Config, _ *proxy.Settings) {
		inner := c.GetCertificate
		c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, hello.Conn.RemoteAddr().String()+" "+hello.Conn.LocalAddr().String())
			return inner(hello)
		}
	})
	for _, header := range [][]byte{headerV1, headerV2} {
		p.First = header
		proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
			_ = p.Access.TakeAll()
			if res, body := proxytest.Get(t, p.Client(mode), mode.URL("a.test", "/")); res.StatusCode != 200 || body != "192.0.2.1" {
				t.Errorf("the upstream was told %q", body)
			}
			eventually(t, "the request is logged", func() bool { return p.Access.Len() == 1 })
			if got := p.Access.All()[0].ContextMap()["client"]; got != "192.0.2.1" {
				t.Errorf("logged as %v", got)
			}
		}, proxytest.H1, proxytest.H2, proxytest.Plain)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, s := range seen {
		if s != "192.0.2.1:1234 192.0.2.2:443" {
			t.Errorf("GetCertificate saw %s", s)
		}
	}
	if len(seen) != 4 {
		t.Errorf("%d certificates were asked for", len(seen))
	}
}

func TestIntroduce_HeadersInPiecesAndWithoutAddressesWork(t *testing.T) {
	p := behindBalancer(t, nil)
	for name, header := range map[string][]byte{
		"UNKNOWN": []byte("PROXY UNKNOWN\r\n"), "LOCAL": []byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"), "version 1": headerV1, "version 2": headerV2,
	} {
		want := "192.0.2.1"
		if strings.ToUpper(name) == name {
			want = "127.0.0.1"
		}
		c, err := net.Dial("tcp", p.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		for _, b := range header {
			if _, err := c.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
		answer, _ := io.ReadAll(c)
		if !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") || !strings.HasSuffix(string(answer), "\r\n\r\n"+want) {
			t.Errorf("%s: %q", name, answer)
		}
		_ = c.Close()
	}
}

func TestIntroduce_ListedPeersMustSendAHeaderAndOthersCannot(t *testing.T) {
	request := "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
	p := behindBalancer(t, nil)
	for name, first := range map[string]string{
		"no header": "", "another protocol": "\x16\x03\x01", "a bad header": "PROXY TCP4 x y 1 2\r\n", "a header that never ends": "PROXY TCP4 " + strings.Repeat("1", 1000),
		"a header too long": string(headerV2[:14]) + "\xff\xff" + strings.Repeat("\x00", 5000),
	} {
		for _, mode := range []proxytest.Mode{proxytest.Plain, proxytest.H1} {
			c, err := net.Dial("tcp", p.Addr(mode))
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = io.WriteString(c, first+request)
			if answer, err := io.ReadAll(c); len(answer) > 0 || isTimeout(err) {
				t.Errorf("%s to %s: %q, %v", name, mode.Name, answer, err)
			}
			_ = c.Close()
		}
	}
	elsewhere := behindBalancer(t, func(_ *proxy.Config, s *proxy.Settings) {
		s.ProxyProtocol.From = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	})
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		if _, body := proxytest.Get(t, elsewhere.Client(mode), mode.URL("a.test", "/")); body != "127.0.0.1" {
			t.Errorf("without a header: %q", body)
		}
	}, proxytest.H1, proxytest.H2, proxytest.Plain)
	elsewhere.First = headerV1
	if answer := elsewhere.Raw(proxytest.Plain, "", request); !strings.HasPrefix(answer, "HTTP/1.1 400 ") || strings.Contains(answer, "192.0.2.1") {
		t.Errorf("a header of somebody who must not send one: %q", answer)
	}
}

func TestIntroduce_HasADeadlineOfItsOwnAndDoesNotHoldAShutdown(t *testing.T) {
	p := behindBalancer(t, func(c *proxy.Config, _ *proxy.Settings) {
		c.Limits.ProxyHeaderTimeout = 100 * time.Millisecond
		c.Limits.HandshakeTimeout, c.Limits.HeaderTimeout = time.Hour, time.Hour
	})
	for _, mode := range []proxytest.Mode{proxytest.Plain, proxytest.H1} {
		c, err := net.Dial("tcp", p.Addr(mode))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = c.Write(headerV1[:10])
		if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("%s: %v, want a closed connection", mode.Name, err)
		}
	}
	eventually(t, "nothing is open", func() bool { return p.Metrics.Open() == 0 })

	slow := behindBalancer(t, func(c *proxy.Config, _ *proxy.Settings) { c.Limits.ProxyHeaderTimeout = time.Hour })
	for _, mode := range []proxytest.Mode{proxytest.Plain, proxytest.H1} {
		c, err := net.Dial("tcp", slow.Addr(mode))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	eventually(t, "both are open", func() bool { return slow.Metrics.Open() == 2 })
	if err := slow.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := slow.Wait(); err != nil {
		t.Error(err)
	}
}

func TestIntroduce_CanBeTurnedOnByAReload(t *testing.T) {
	p := behindBalancer(t, func(_ *proxy.Config, s *proxy.Settings) { s.ProxyProtocol = proxy.ProxyProtocol{} })
	if _, body := proxytest.Get(t, p.Client(proxytest.H1), "https://a.test/"); body != "127.0.0.1" {
		t.Errorf("before: %q", body)
	}
	site, _ := p.Site("a.test")
	set := proxytest.Sites(*site)
	set.ProxyProtocol.V2 = true
	if err := p.Apply(set); err == nil {
		t.Error("a PROXY protocol that anybody may send was taken")
	}
	set.ProxyProtocol.From = fromLoopback
	if err := p.Apply(set); err != nil {
		t.Fatal(err)
	}
	p.First = headerV2
	if _, body := proxytest.Get(t, p.Client(proxytest.H1), "https://a.test/"); body != "192.0.2.1" {
		t.Errorf("after: %q", body)
	}
}

func TestIntroduce_UnixSocketsAreTrustedByTheirPermissions(t *testing.T) {
	dir := t.TempDir()
	p := behindBalancer(t, func(c *proxy.Config, s *proxy.Settings) {
		for i, to := range []*[]net.Listener{&c.HTTPS, &c.HTTP} {
			l, err := net.Listen("unix", filepath.Join(dir, string(rune('a'+i))))
			if err != nil {
				t.Fatal(err)
			}
			_ = (*to)[0].Close()
			*to = []net.Listener{l}
		}
		s.HandshakesPerClient = 0.001
	})
	p.HTTPS, p.HTTP = filepath.Join(dir, "a"), filepath.Join(dir, "b")
	modes := []proxytest.Mode{proxytest.H1, proxytest.H2, proxytest.Plain}
	p.First = headerV2
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		if _, body := proxytest.Get(t, p.Client(mode), mode.URL("a.test", "/")); body != "192.0.2.1" {
			t.Errorf("the upstream was told %q", body)
		}
	}, modes...)
	site, _ := p.Site("a.test")
	if err := p.Apply(proxytest.Sites(*site)); err != nil {
		t.Fatal(err)
	}
	p.First = nil
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		if _, body := proxytest.Get(t, p.Client(mode), mode.URL("a.test", "/")); body != "127.0.0.1" {
			t.Errorf("without the PROXY protocol the upstream was told %q", body)
		}
	}, modes...)
}

// v2From is a header of version 2 that says that the client is addr.
func v2From(addr string) []byte {
	a := netip.MustParseAddr(addr)
	server := netip.MustParseAddr("192.0.2.2")
	family := byte(0x11)
	if a.Is6() {
		family, server = 0x21, netip.MustParseAddr("2001:db8::ffff")
	}
	block := append(append(a.AsSlice(), server.AsSlice()...), 0, 1, 0, 2)
	h := append(bytes.Clone(headerV2[:12]), 0x21, family)
	return append(binary.BigEndian.AppendUint16(h, uint16(len(block))), block...)
}

func TestHandshakeLimit_CountsByClientAndNotByBalancer(t *testing.T) {
	p := behindBalancer(t, func(_ *proxy.Config, s *proxy.Settings) { s.HandshakesPerClient = 3 })
	handshakes := func(clients ...string) (ok int) {
		for _, client := range clients {
			p.First = v2From(client)
			tr := p.Client(proxytest.H1)
			if res, err := tr.Get("https://a.test/"); err == nil {
				_ = res.Body.Close()
				ok++
			}
			tr.CloseIdleConnections()
		}
		return ok
	}
	if got := handshakes("192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.7"); got < 3 || got > 4 { // one may come back meanwhile
		t.Errorf("%d of 6 handshakes of one client went through, 3 may", got)
	}
	if got := handshakes("192.0.2.8", "192.0.2.9", "192.0.2.10", "192.0.2.11", "192.0.2.12"); got != 5 {
		t.Errorf("%d of 5 handshakes of five clients went through", got)
	}
	if got := handshakes("2001:db8::1", "2001:db8::2", "2001:db8::3:4", "2001:db8::5", "2001:db8::6", "2001:db8::7"); got < 3 || got > 4 {
		t.Errorf("%d of 6 handshakes of one /64 went through, 3 may", got)
	}
	if p.Metrics.Handshakes(false) < 4 {
		t.Errorf("%d handshakes were counted as failed", p.Metrics.Handshakes(false))
	}
}
