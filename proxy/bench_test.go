package proxy_test

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

// The contenders of a benchmark: this proxy, and the least that Go's standard library needs to do the same.
func contenders(b *testing.B, to string) map[string]func(b *testing.B, ca *proxytest.CA) (addr string) {
	return map[string]func(*testing.B, *proxytest.CA) string{
		"gatelodge": func(b *testing.B, ca *proxytest.CA) string {
			p := proxytest.Start(b, proxytest.Sites(proxytest.Site(b, to, "a.test")), func(c *proxy.Config) {
				c.GetCertificate, c.Logger, c.AccessLog, c.Metrics = ca.GetCertificate, zap.NewNop(), nil, nil
			})
			return p.HTTPS
		},
		"httputil": func(b *testing.B, ca *proxytest.CA) string {
			target, err := url.Parse(to)
			if err != nil {
				b.Fatal(err)
			}
			tr := &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true}
			srv := &http.Server{
				Handler: &httputil.ReverseProxy{
					Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host; r.SetXForwarded() },
					Transport: tr,
				},
				TLSConfig: &tls.Config{GetCertificate: ca.GetCertificate}, ErrorLog: log.New(io.Discard, "", 0),
			}
			l := proxytest.Listen(b)
			done := make(chan struct{})
			go func() { defer close(done); _ = srv.ServeTLS(l, "", "") }()
			b.Cleanup(func() { _ = srv.Close(); <-done; tr.CloseIdleConnections() })
			return l.Addr().String()
		},
	}
}

func benchmark(b *testing.B, run func(b *testing.B, ca *proxytest.CA, addr string)) {
	kilobyte := strings.Repeat("x", 1024)
	up := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, kilobyte) })}
	l := proxytest.Listen(b)
	done := make(chan struct{})
	go func() { defer close(done); _ = up.Serve(l) }()
	b.Cleanup(func() { _ = up.Close(); <-done })
	for name, start := range contenders(b, "http://"+l.Addr().String()) {
		b.Run(name, func(b *testing.B) {
			ca := proxytest.NewCA(b)
			if _, err := ca.Certificate("a.test"); err != nil {
				b.Fatal(err)
			}
			addr := start(b, ca)
			before := cpu()
			b.ReportAllocs()
			b.ResetTimer()
			run(b, ca, addr)
			// Client, proxy and upstream together: the difference between the contenders is what counts.
			b.ReportMetric(float64(cpu()-before)/1e3/float64(b.N), "cpu-us/op")
		})
	}
}

// cpu is the processor time of this process in nanoseconds.
func cpu() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

func BenchmarkHandshake(b *testing.B) {
	benchmark(b, func(b *testing.B, ca *proxytest.CA, addr string) {
		cfg := &tls.Config{ServerName: "a.test", RootCAs: ca.Pool}
		for b.Loop() {
			c, err := tls.Dial("tcp", addr, cfg)
			if err != nil {
				b.Fatal(err)
			}
			_ = c.Close()
		}
	})
}

func BenchmarkProxy1KB(b *testing.B) {
	for _, mode := range []proxytest.Mode{proxytest.H1, proxytest.H2} {
		b.Run(strings.Fields(mode.Name)[0], func(b *testing.B) {
			benchmark(b, func(b *testing.B, ca *proxytest.CA, addr string) {
				protocols := new(http.Protocols)
				protocols.SetHTTP1(!mode.H2)
				protocols.SetHTTP2(mode.H2)
				tr := &http.Transport{
					DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
						return new(net.Dialer).DialContext(ctx, network, addr)
					},
					TLSClientConfig: &tls.Config{RootCAs: ca.Pool}, Protocols: protocols, DisableCompression: true, MaxIdleConnsPerHost: 64,
				}
				defer tr.CloseIdleConnections()
				client := &http.Client{Transport: tr}
				b.SetParallelism(8)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						res, err := client.Get("https://a.test/")
						if err != nil {
							b.Error(err)
							return
						}
						_, _ = io.Copy(io.Discard, res.Body)
						_ = res.Body.Close()
					}
				})
			})
		})
	}
}
