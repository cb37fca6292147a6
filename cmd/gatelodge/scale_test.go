//go:build peers

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/certs"
	"gatelodge/storage"
)

// scaleNames is how many certificates are stored; FULL=1 takes what issue 4 asks for.
func scaleNames() int {
	if os.Getenv("FULL") != "" {
		return 100_000
	}
	return 2_000
}

// scaleBundle is a certificate that is good for all names *.scale.test, so that filling a store costs no signatures; and its root.
func scaleBundle(t *testing.T) (*storage.Bundle, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "scale"}, DNSNames: []string{"*.scale.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		ExtraExtensions: []pkix.Extension{{Id: []int{1, 2, 3}, Value: make([]byte, 1500)}}, // as large as a chain of two
	}
	leaf, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b := &storage.Bundle{Names: []string{"*.scale.test"}, CA: "none", Chain: [][]byte{leaf}, Key: pkcs8, Issued: time.Now()}
	return b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf})
}

func scaleName(i int) string { return fmt.Sprintf("n%06d.scale.test", i) }

// fill stores the certificates with their index.
func fill(t *testing.T, store storage.Store, n int) (root []byte) {
	t.Helper()
	bundle, root := scaleBundle(t)
	data, err := bundle.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if bundle, err = storage.DecodeBundle("certs/x", data); err != nil {
		t.Fatal(err)
	}
	index := certs.NewIndexer(store, 0, zap.NewNop())
	names := make(chan string)
	var writers sync.WaitGroup
	for range 16 {
		writers.Go(func() {
			for name := range names {
				if _, err := store.Put(t.Context(), "certs/"+name, data); err != nil {
					t.Errorf("fill: %v", err)
				}
				if err := index.Stored(t.Context(), name, bundle); err != nil {
					t.Errorf("fill: %v", err)
				}
			}
		})
	}
	for i := range n {
		names <- scaleName(i)
	}
	close(names)
	writers.Wait()
	if err := index.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return root
}

// measure starts the program over what is stored, and reports how long it was until the first handshake, and what cold handshakes cost.
func (l *lodge) measure(root []byte, n int, env ...string) {
	l.t.Helper()
	l.roots.AppendCertsFromPEM(root)
	begin := time.Now()
	var first time.Duration
	var dial sync.WaitGroup
	dial.Go(func() {
		for time.Since(begin) < time.Minute {
			if _, err := l.handshake(scaleName(n - 1)); err == nil {
				first = time.Since(begin)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	p := l.startProcessWith(l.path("gatelodge.toml"), env...)
	defer p.kill()
	dial.Wait()
	if first == 0 {
		l.t.Fatalf("no handshake within a minute:\n%s", p.log)
	}
	var took []time.Duration
	for _, i := range mathrand.Perm(n - 1)[:200] {
		begin := time.Now()
		if _, err := l.handshake(scaleName(i)); err != nil {
			l.t.Fatalf("cold handshake: %v\n%s", err, p.log)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	rss := "?"
	for line := range strings.Lines(string(status)) {
		if after, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			rss = strings.TrimSpace(after)
		}
	}
	l.t.Logf("%d certificates: first handshake %v after the start; cold handshakes p50 %v, p99 %v; resident %s", n, first, took[100], took[198], rss)
	eventually(l.t, "the index is read", func() bool { return strings.Contains(p.log.String(), "stored certificates known") })
}

func (l *lodge) scaleConfig(storage string) {
	l.write("names", "# nobody new\n")
	l.write("gatelodge.toml", fmt.Sprintf(`
[listen]
https = [%q]
http  = []
[listen.limits]
unknown_names_per_ip = "0"
handshakes_per_ip    = "0"
%s
[admin]
listen  = ""
metrics = ""
[log]
format = "text"
access = "off"
[on_demand]
enabled    = true
names_file = %q
[[site]]
hosts     = ["*"]
on_demand = true
to        = %q
`, l.https, storage, l.path("names"), l.upstream.URL))
}

func TestPeerScale_StartsAtOnceOverADisk(t *testing.T) {
	l := newBareLodge(t)
	disk, err := storage.OpenDisk(l.path("storage"), nil)
	if err != nil {
		t.Fatal(err)
	}
	n := scaleNames()
	root := fill(t, disk, n)
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	l.scaleConfig(fmt.Sprintf("[storage]\npath = %q", l.path("storage")))
	l.measure(root, n)
}

func TestPeerScale_StartsAtOnceOverABucketListsNothingAndReadsOnceForAColdHandshake(t *testing.T) {
	l := newBareLodge(t)
	b := startBucket(t)
	for _, pair := range b.env {
		key, value, _ := strings.Cut(pair, "=")
		t.Setenv(key, value)
	}
	bucket, err := storage.OpenS3(t.Context(), storage.S3Config{Endpoint: b.behind, Bucket: "certs", Prefix: "fleet/", PathStyle: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := scaleNames()
	root := fill(t, bucket, n)
	if err := bucket.Close(); err != nil {
		t.Fatal(err)
	}
	l.scaleConfig(fmt.Sprintf(`[storage]
kind = "s3"
path = %q
[storage.s3]
endpoint = %q
bucket   = "certs"
prefix   = "fleet/"
[storage.encryption]
require = false`, l.path("host"), b.url))
	l.measure(root, n, b.env...)
	seen := b.seen.total()
	t.Logf("requests of one start and 201 cold handshakes: %v", seen)
	if got := b.seen.of("GET certs"); got != 201 {
		t.Errorf("%d reads of certificates for 201 cold handshakes", got)
	}
	if got := b.seen.of("LIST"); got != 0 {
		t.Errorf("%d listings", got)
	}
}

// requests counts what a bucket is asked, by kind.
type requests struct {
	mu    sync.Mutex
	kinds map[string]int
	bytes int64 // of answers
	watch func(r *http.Request, done bool) (lost bool)
}

// tell calls watch before and after each request from now on. What is lost before is not done, and what is lost after has no answer. Nil ends it.
func (r *requests) tell(watch func(r *http.Request, done bool) (lost bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watch = watch
}

// serve passes a request on, unless it is lost.
func (r *requests) serve(w http.ResponseWriter, req *http.Request, next http.Handler) {
	r.mu.Lock()
	r.kinds[requestKind(req)]++
	watch := r.watch
	r.mu.Unlock()
	if watch == nil {
		next.ServeHTTP(w, req)
		return
	}
	if watch(req, false) {
		panic(http.ErrAbortHandler)
	}
	answer := httptest.NewRecorder()
	next.ServeHTTP(answer, req)
	if watch(req, true) {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func (r *requests) of(kind string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kinds[kind]
}

func (r *requests) total() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%v, %d bytes answered", r.kinds, r.bytes)
}

// front is a proxy before a bucket that counts. It keeps the host, which is signed.
func (r *requests) front(t *testing.T, to string) string {
	t.Helper()
	r.kinds = map[string]int{}
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host
		},
		ModifyResponse: func(res *http.Response) error {
			body, err := io.ReadAll(res.Body)
			r.mu.Lock()
			r.bytes += int64(len(body))
			r.mu.Unlock()
			res.Body = io.NopCloser(bytes.NewReader(body))
			return err
		},
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.serve(w, req, proxy)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// requestKind is the method and what the key is about, its first segment behind prefix and space.
func requestKind(req *http.Request) string {
	if req.URL.Query().Has("list-type") {
		return "LIST"
	}
	for _, about := range []string{"leases", "certs", "index", "tickets", "acme", "pending", "failures", "budget", "members"} {
		if strings.Contains(req.URL.Path, "/"+about+"/") || strings.HasSuffix(req.URL.Path, "/"+about) {
			if about != "certs" || strings.Count(req.URL.Path, "/certs/") > 1 { // the bucket has that name too
				return req.Method + " " + about
			}
		}
	}
	return req.Method + " other"
}
