package upstream_test

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"gatelodge/proxy/proxytest"
	"gatelodge/proxy/upstream"
)

// serveOn serves h on the listener until the test ends.
func serveOn(t testing.TB, l net.Listener, h http.HandlerFunc, edit func(*http.Server)) {
	t.Helper()
	srv := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	if edit != nil {
		edit(srv)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if srv.TLSConfig != nil {
			_ = srv.ServeTLS(l, "", "")
		} else {
			_ = srv.Serve(l)
		}
	}()
	t.Cleanup(func() { _ = srv.Close(); <-done })
}

// tell answers with the protocol, the host and the path.
func tell(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, r.Proto+" "+r.Host+r.RequestURI)
}

func TestPool_SpeaksHTTP2WithoutTLSWhereItIsToldTo(t *testing.T) {
	l := proxytest.Listen(t)
	serveOn(t, l, tell, func(s *http.Server) {
		s.Protocols = new(http.Protocols)
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetUnencryptedHTTP2(true)
	})
	to := "h2c://" + l.Addr().String()
	p := newPool(t, upstream.Config{To: []string{to}})
	if p.String() != to {
		t.Errorf("the pool is %s", p)
	}
	if _, body, err := get(t, p); err != nil || body != "HTTP/2.0 a.test/path" {
		t.Errorf("%q, %v", body, err)
	}
	r, _ := http.NewRequest(http.MethodGet, "/", nil)
	r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
	res, err := p.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.ProtoMajor != 1 {
		t.Errorf("an upgrade went over %s", res.Proto)
	}
}

func TestPool_ReachesAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, tell, nil)
	p := newPool(t, upstream.Config{To: []string{"unix://" + path}})
	if _, body, err := get(t, p); err != nil || body != "HTTP/1.1 a.test/path" {
		t.Errorf("%q, %v", body, err)
	}
	if s := p.Status(); len(s) != 1 || s[0].Target != "unix://"+path || s[0].Requests != 1 {
		t.Errorf("status %+v", s)
	}
}

func TestPool_ShowsItsCertificateToATargetThatAsks(t *testing.T) {
	ca, clients := proxytest.NewCA(t), proxytest.NewCA(t)
	l := proxytest.Listen(t)
	serveOn(t, l, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}, func(s *http.Server) {
		s.TLSConfig = &tls.Config{
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.Certificate("up.test") },
			ClientAuth:     tls.RequireAndVerifyClientCert, ClientCAs: clients.Pool,
		}
	})
	cfg := upstream.Config{To: []string{"https://" + l.Addr().String()}, TLS: upstream.TLS{ServerName: "up.test", Roots: ca.Pool}}
	if _, _, err := get(t, newPool(t, cfg)); err == nil { // of which kind depends on whether its alert or the end of the connection comes first
		t.Error("it took us without a certificate")
	}
	cfg.TLS.Certificates = []tls.Certificate{clients.Client(t, "the lodge")}
	if _, body, err := get(t, newPool(t, cfg)); err != nil || body != "the lodge" {
		t.Errorf("%q, %v", body, err)
	}
}
