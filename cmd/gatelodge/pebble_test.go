package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/challtestsrv"
	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// startPebble runs Let's Encrypt's test CA in process: strict, 20 % of nonces refused, certificates of the given lifetime in seconds. It
// validates by connecting to the lodge. It returns the directory's URL.
func (l *lodge) startPebble(lifetime uint64) string {
	return l.startPebbleBehind(lifetime, func(pebble http.Handler) http.Handler { return pebble })
}

// startPebbleBehind puts a handler in front of Pebble that counts or spoils what it answers.
func (l *lodge) startPebbleBehind(lifetime uint64, wrap func(http.Handler) http.Handler) string {
	t := l.t
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "20")
	quiet := log.New(io.Discard, "", 0)
	dnsAddr := freeAddr(t)
	dns, err := challtestsrv.New(challtestsrv.Config{Log: quiet, DNSAddrs: []string{dnsAddr}})
	if err != nil {
		t.Fatal(err)
	}
	dns.SetDefaultDNSIPv4("127.0.0.1")
	dns.SetDefaultDNSIPv6("")
	dns.Run()
	t.Cleanup(dns.Shutdown)

	store := db.NewMemoryStore()
	authority := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: lifetime}})
	validation := va.New(quiet, portIn(t, l.http), portIn(t, l.https), true, dnsAddr, store)
	front := wfe.New(quiet, store, validation, authority, []string{"pebble.test"}, true, false, 0, 0)
	srv := httptest.NewTLSServer(wrap(oneByOne(front.Handler())))
	t.Cleanup(srv.Close)
	l.write("root.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	l.roots.AppendCertsFromPEM([]byte(authority.GetRootCert(0).PEM()))
	return srv.URL + wfe.DirectoryPath
}

// oneByOne serves one request at a time: with more than a hundred at once, Pebble's store locks itself up for good, and its readers with it.
func oneByOne(next http.Handler) http.Handler {
	var turn sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		turn.Lock()
		defer turn.Unlock()
		next.ServeHTTP(w, r)
	})
}

func portIn(t *testing.T, addr string) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return a.Port
}

func TestProgram_ObtainsAndRenewsAtPebble(t *testing.T) {
	for _, challenge := range []string{"tls-alpn-01", "http-01"} {
		t.Run(challenge, func(t *testing.T) {
			l := newBareLodge(t)
			l.configure(l.startPebble(10), "[issue]\nchallenges = [\""+challenge+"\"]\n")
			l.start()
			body, err := l.get("pebble.test")
			if err != nil || body != "hello pebble.test" {
				t.Fatalf("%q, %v", body, err)
			}
			first, err := l.handshake("pebble.test")
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "a renewed certificate", func() bool {
				leaf, err := l.handshake("pebble.test")
				if err != nil {
					t.Fatal(err)
				}
				return leaf.SerialNumber.Cmp(first.SerialNumber) != 0
			})
			if time.Now().After(first.NotAfter) {
				t.Error("renewed only after the end")
			}
		})
	}
}

// orderCounter counts newOrder requests that the CA answered with an order, by name.
type orderCounter struct {
	mu    sync.Mutex
	names map[string]int
}

func (c *orderCounter) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/order-plz") {
			next.ServeHTTP(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		status := &statusWriter{ResponseWriter: w}
		next.ServeHTTP(status, r)
		var jws struct{ Payload string }
		var order struct{ Identifiers []struct{ Value string } }
		if status.code != http.StatusCreated || json.Unmarshal(body, &jws) != nil {
			return
		}
		payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
		_ = json.Unmarshal(payload, &order)
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, id := range order.Identifiers {
			c.names[id.Value]++
		}
	})
}

type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}
