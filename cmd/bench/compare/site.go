package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// host is the one name that is served.
const host = "bench.test"

// site is what all peers serve: a certificate and an upstream.
type site struct {
	Cert, Key string // files in PEM; nginx and gatelodge want two, HAProxy takes Both
	Both      string
	Upstream  string // host:port

	roots  *x509.CertPool
	server *http.Server
}

func newSite(dir string) (*site, error) {
	s := &site{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), Both: filepath.Join(dir, "both.pem"), roots: x509.NewCertPool()}
	if err := s.certify(); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.Upstream = ln.Addr().String()
	s.server = &http.Server{Handler: upstream(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.server.Serve(ln) }() // until Close
	return s, nil
}

// Close ends the upstream.
func (s *site) Close() { _ = s.server.Close() }

// certify writes a P-256 certificate of a day, signed by itself.
func (s *site) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	s.roots.AppendCertsFromPEM(cert)
	for file, content := range map[string][]byte{s.Cert: cert, s.Key: private, s.Both: append(append([]byte{}, cert...), private...)} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// upstream answers GET /N with N bytes and swallows what is sent to it.
func upstream() http.Handler {
	chunk := make([]byte, 64<<10)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		n, err := strconv.Atoi(r.URL.Path[1:])
		if err != nil || n > 64<<20 {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(n))
		for n > 0 {
			sent, err := w.Write(chunk[:min(n, len(chunk))])
			if err != nil {
				return
			}
			n -= sent
		}
	})
}

// tlsConfig is the client's side: TLS 1.3 with X25519, so that all peers do the same work.
func (s *site) tlsConfig(protocol string) *tls.Config {
	return &tls.Config{
		ServerName: host, RootCAs: s.roots, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}, NextProtos: []string{protocol},
	}
}
