package acmeclient

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"gatelodge/storage"
)

func TestWire_RefusesURLsThatACAMustNotSendUsTo(t *testing.T) {
	w := newWire(&Config{Name: "ca", Directory: "https://ca.test/dir"})
	defer w.close()
	for _, target := range []string{"http://ca.test/x", "http://127.0.0.1/x", "file:///etc/passwd", "https://user@ca.test/x", "ftp://ca.test/"} {
		var refused *urlError
		if err := w.do(t.Context(), &exchange{}, http.MethodPost, target, nil); !errors.As(err, &refused) {
			t.Errorf("%s: %v", target, err)
		}
	}
}

func TestWire_DoesNotRedirectSignedRequests(t *testing.T) {
	c, srv := clientAt(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	var refused *urlError
	if err := c.wire.do(t.Context(), &exchange{}, http.MethodPost, srv.URL+"/order", []byte("{}")); !errors.As(err, &refused) {
		t.Errorf("error is %v", err)
	}
}

func TestWire_IdentifiesItselfAndKeepsNoncesToItself(t *testing.T) {
	var got http.Header
	c, srv := clientAt(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		w.Header().Set("Replay-Nonce", "abc123")
	}))
	ex := &exchange{endpoint: endpointCertificate}
	if err := c.wire.do(t.Context(), ex, http.MethodPost, srv.URL+"/cert", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if got.Get("User-Agent") != "gatelodge" || got.Get("Accept") != "application/pem-certificate-chain" || got.Get("Content-Type") != "application/jose+json" {
		t.Errorf("header is %v", got)
	}
	if ex.header.Get("Replay-Nonce") != "" {
		t.Error("the nonce left the wire")
	}
	if n, _ := c.wire.nonces.take(time.Now()); n != "abc123" {
		t.Errorf("nonce is %q", n)
	}
}

func TestWire_BoundsBodies(t *testing.T) {
	c, srv := clientAt(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(w, zeros{}, maxChainBody+1)
	}))
	for _, endpoint := range []string{endpointOrder, endpointCertificate} {
		var body []byte
		err := c.wire.do(t.Context(), &exchange{endpoint: endpoint}, http.MethodPost, srv.URL, nil, &body)
		if err == nil || !strings.Contains(err.Error(), "larger than") || len(body) != 0 {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestWire_TellsACAWhoseCertificateIsNotTrusted(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = quietLog()
	var handshakes atomic.Int64
	srv.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		handshakes.Add(1)
		return nil, nil
	}}
	srv.StartTLS()
	defer srv.Close()
	store := storage.NewMemory()
	c, err := New(Config{Name: "pebble", Directory: srv.URL, Store: store, Responder: NewResponder(store, zaptest.NewLogger(t)), Logger: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Account(t.Context())
	if p := problemOf(t, err, ScopeCA); !strings.Contains(p.Advice, "roots") {
		t.Errorf("problem is %v", p)
	}
	if n := handshakes.Load(); n != 1 {
		t.Errorf("%d handshakes: an untrusted certificate does not become trusted within a second", n)
	}
}

func TestWire_KeepsBelowTheRatesOfLetsEncrypt(t *testing.T) {
	w := newWire(&Config{Name: "ca", Directory: "https://ca.test/dir"})
	defer w.close()
	if w.newNonces.Limit() >= 20 || w.newNonces.Burst() >= 10 || w.requests.Limit() >= 250 || w.requests.Burst() >= 125 {
		t.Errorf("rates are %v/%d and %v/%d", w.newNonces.Limit(), w.newNonces.Burst(), w.requests.Limit(), w.requests.Burst())
	}
}

func TestNew_TellsAllFaultsOfAConfigAtOnce(t *testing.T) {
	_, err := New(Config{Name: "../x", Directory: "http://ca.test/dir", Protocol: "3", DirectoryV1: "ftp://ca.test/", Challenges: []string{"dns-01", "http-01", "http-01"}, OrderTimeout: -1})
	for _, want := range []string{"../x", "loopback", "protocol \"3\"", "directory_v1", "dns-01", "twice", "negative", "store", "responder", "logger"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q: %v", want, err)
		}
	}
}

func TestClient_RefusesWorkAfterClose(t *testing.T) {
	c, _ := clientAt(t, http.NotFoundHandler())
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Obtain(t.Context(), newRequest(t, "a.example.test")); !errors.Is(err, ErrClosed) {
		t.Errorf("error is %v", err)
	}
	if _, err := c.Account(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("error is %v", err)
	}
}
