package proxy_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

// Connections beyond the limit wait in the kernel's queue; who is in is served, and who waits comes in when somebody leaves.
func TestServer_AcceptsNoMoreConnectionsThanThereMayBe(t *testing.T) {
	const most = 5
	up := proxytest.Upstream(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "here") })
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, up, "a.test")), func(cfg *proxy.Config) {
		cfg.Limits.Connections, cfg.Limits.HandshakeTimeout = most, time.Minute
	})
	addr := p.Addr(proxytest.Mode{Name: "tls", TLS: true})
	first := p.Client(proxytest.H1)
	if _, body := proxytest.Get(t, first, proxytest.H1.URL("a.test", "/")); body != "here" {
		t.Fatal(body)
	}
	var silent []net.Conn
	for range most - 1 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	for deadline := time.Now().Add(30 * time.Second); p.Metrics.Open() < most; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections were accepted, want %d", p.Metrics.Open(), most)
		}
	}
	late, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	shaken := make(chan error, 1)
	go func() { shaken <- tls.Client(late, &tls.Config{ServerName: "a.test", RootCAs: p.CA.Pool}).Handshake() }()
	if _, body := proxytest.Get(t, first, proxytest.H1.URL("a.test", "/")); body != "here" {
		t.Error("who is in is not served")
	}
	if n := p.Metrics.Open(); n != most {
		t.Errorf("%d connections, the limit is %d", n, most)
	}
	_ = silent[0].Close()
	select {
	case err := <-shaken:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("a place became free, and who waited did not get it")
	}
}
