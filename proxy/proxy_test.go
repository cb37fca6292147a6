package proxy_test

import (
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap"

	"gatelodge/proxy/proxytest"
)

func TestServer_BringsRequestsToTheUpstreamAndAnswersBack(t *testing.T) {
	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", r.Method+" "+r.Host+" "+r.RequestURI)
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(append([]byte("echo "), body...))
	})
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, to, "a.test")), nil)
	proxytest.Run(t, func(t *testing.T, mode proxytest.Mode) {
		r, _ := http.NewRequest(http.MethodPost, mode.URL("a.test", "/p%2Fq?x=1;y=%zz"), strings.NewReader("body"))
		res, body := proxytest.Do(t, p.Client(mode), r)
		if res.StatusCode != http.StatusTeapot || body != "echo body" {
			t.Errorf("answer = %d %q", res.StatusCode, body)
		}
		if seen, want := res.Header.Get("X-Seen"), "POST a.test /p%2Fq?x=1;y=%zz"; seen != want {
			t.Errorf("upstream saw %q, want %q", seen, want)
		}
	})
}

func certsOf(ca *proxytest.CA) []*x509.Certificate { return []*x509.Certificate{ca.Cert()} }

func pemOf(ca *proxytest.CA) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert().Raw}))
}

func zapBool(key string, v bool) zap.Field { return zap.Bool(key, v) }

// quiet takes what a server has to say about its clients.
var quiet = log.New(io.Discard, "", 0)
