package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// request [-root FILE] [-via ADDRESS] [-X METHOD] [-H "NAME: VALUE"]... URL: writes status, all fields of the header and the body to the file "got". It
// tries for up to 20 s to get an answer, whatever the answer is.
func scriptRequest(ts *testscript.TestScript, neg bool, args []string) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{}, DisableKeepAlives: true, ForceAttemptHTTP2: true, DisableCompression: true}
	defer transport.CloseIdleConnections()
	method, header := http.MethodGet, http.Header{}
	for len(args) > 1 {
		switch args[0] {
		case "-root":
			pem, err := os.ReadFile(ts.MkAbs(args[1]))
			ts.Check(err)
			transport.TLSClientConfig.RootCAs = x509.NewCertPool()
			transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem)
		case "-via":
			via := args[1]
			transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, via)
			}
		case "-X":
			method = args[1]
		case "-H":
			name, value, _ := strings.Cut(args[1], ":")
			header.Add(name, strings.TrimSpace(value))
		default:
			ts.Fatalf("request: unknown flag %s", args[0])
		}
		args = args[2:]
	}
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	out, err := sendOnce(client, method, args[0], header)
	for deadline := time.Now().Add(20 * time.Second); !neg && err != nil && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
		out, err = sendOnce(client, method, args[0], header)
	}
	if neg != (err != nil) {
		ts.Fatalf("request %s: %v", args[0], err)
	}
	ts.Check(os.WriteFile(ts.MkAbs("got"), []byte(out), 0o600))
}

func sendOnce(client *http.Client, method, url string, header http.Header) (string, error) {
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		return "", err
	}
	r.Header = header
	res, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %s\n%s\n%s", res.Proto, res.Status, fieldLines(res.Header), body), nil
}

func fieldLines(h http.Header) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[name] {
			fmt.Fprintf(&b, "%s: %s\n", name, v)
		}
	}
	return b.String()
}

// echo VAR: starts a server that answers every request with the fields of its header, and a long text under /page.
func scriptEcho(ts *testscript.TestScript, _ bool, args []string) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "%s %s\n%s", r.Method, r.RequestURI, fieldLines(r.Header))
		if r.URL.Path == "/page" {
			_, _ = io.WriteString(w, strings.Repeat("A line like the one before.\n", 500))
		}
	}))
	ts.Defer(srv.Close)
	ts.Setenv(args[0], srv.URL)
}

// decider VAR: starts a server that lets those in whose Cookie is session=1, as alice, and sends others to log in.
func scriptDecider(ts *testscript.TestScript, _ bool, args []string) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") != "session=1" {
			w.Header().Set("Location", "https://login.example/?then="+r.Header.Get("X-Forwarded-Host")+r.Header.Get("X-Forwarded-Uri"))
			w.WriteHeader(http.StatusFound)
			return
		}
		w.Header().Set("Remote-User", "alice from "+r.Header.Get("X-Forwarded-For"))
	}))
	ts.Defer(srv.Close)
	ts.Setenv(args[0], srv.URL)
}

// collect VAR FILE: starts a collector of OpenTelemetry that writes each span into the file as a line: trace, parent, name, status.
func scriptCollect(ts *testscript.TestScript, _ bool, args []string) {
	var mu sync.Mutex
	file := ts.MkAbs(args[1])
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if proto.Unmarshal(body, &req) != nil {
			return
		}
		var lines strings.Builder
		for _, rs := range req.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					fmt.Fprintf(&lines, "span trace=%x parent=%x %s %v\n", s.TraceId, s.ParentSpanId, s.Name, s.Attributes)
				}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, _ = f.WriteString(lines.String())
			_ = f.Close()
		}
	}))
	ts.Defer(srv.Close)
	ts.Setenv(args[0], srv.URL)
}

// asker VAR NAME TO: starts an ask endpoint that permits NAME alone, says that it is a tenant's, and that its requests go to TO. It fails for
// names that begin with "broken.".
func scriptAsker(ts *testscript.TestScript, _ bool, args []string) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name := r.FormValue("name"); name == args[1] {
			fmt.Fprintf(w, `{"tenant": "tenant of %s", "to": %q}`, name, args[2])
			return
		}
		if strings.HasPrefix(r.FormValue("name"), "broken.") {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		http.NotFound(w, r)
	}))
	ts.Defer(srv.Close)
	ts.Setenv(args[0], srv.URL)
}
