package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gatelodge": main})
}

// TestScripts runs the built binary as its users do; each file in testdata/script is one scenario.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_DATA_HOME", filepath.Join(env.WorkDir, "data"))
			env.Setenv("XDG_RUNTIME_DIR", filepath.Join(env.WorkDir, "runtime"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"freeport": freePort,
			"upstream": scriptUpstream,
			"get":      scriptGet,
			"await":    scriptAwait,
			"signal":   scriptSignal,
			"envsubst": scriptEnvsubst,
			"until":    scriptUntil,
			"differ":   scriptDiffer,
			"request":  scriptRequest,
			"echo":     scriptEcho,
			"decider":  scriptDecider,
			"collect":  scriptCollect,
			"asker":    scriptAsker,

			"ca":         scriptCA,
			"nameserver": scriptNameServer,
		},
	})
}

// freePort VAR...: sets each variable to an address on loopback that nobody listens on.
func freePort(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		addr, err := unusedAddr()
		ts.Check(err)
		ts.Setenv(name, addr)
		ts.Setenv(name+"_PORT", addr[strings.LastIndexByte(addr, ':')+1:])
	}
}

// upstream VAR TEXT [SOCKET]: starts a server that answers every request with TEXT, the method, the host and what the proxy added; at the unix socket, if one is
// named.
func scriptUpstream(ts *testscript.TestScript, _ bool, args []string) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s%s for=%s proto=%s\n", args[1], r.Method, r.Host, r.RequestURI, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Proto"))
	}))
	ts.Defer(srv.Close)
	if len(args) > 2 {
		path := ts.MkAbs(args[2])
		ln, err := net.Listen("unix", path)
		ts.Check(err)
		ts.Check(srv.Listener.Close())
		srv.Listener = ln
		srv.Start()
		ts.Setenv(args[0], "unix://"+path)
		return
	}
	srv.Start()
	ts.Setenv(args[0], srv.URL)
	addr := srv.Listener.Addr().String()
	ts.Setenv(args[0]+"_ADDRESS", addr)
	ts.Setenv(args[0]+"_PORT", addr[strings.LastIndexByte(addr, ':')+1:])
}

// get [-root FILE] [-via ADDRESS] [-unlike FILE] URL: writes status, body and what is known of the certificate to the file "got"; with ! it must fail.
// It tries for up to 20 s, since servers start in the background, and until there is something else than in the file; a refused name is refused for good.
func scriptGet(ts *testscript.TestScript, neg bool, args []string) {
	var root, via, unlike string
	for len(args) > 1 {
		switch args[0] {
		case "-root":
			root, args = args[1], args[2:]
		case "-via":
			via, args = args[1], args[2:]
		case "-unlike":
			unlike, args = ts.ReadFile(args[1]), args[2:]
		default:
			ts.Fatalf("get: unknown flag %s", args[0])
		}
	}
	out, err := get(ts, root, via, args[0])
	for deadline := time.Now().Add(20 * time.Second); !neg && (err != nil || out == unlike) && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
		out, err = get(ts, root, via, args[0])
	}
	if neg != (err != nil) {
		ts.Fatalf("get %s: %v", args[0], err)
	}
	if !neg && out == unlike {
		ts.Fatalf("get %s: it is the same still", args[0])
	}
	if err != nil {
		out = err.Error() + "\n"
	}
	ts.Check(os.WriteFile(ts.MkAbs("got"), []byte(out), 0o600))
}

func get(ts *testscript.TestScript, root, via, url string) (string, error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{}, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	if root != "" {
		pem, err := os.ReadFile(ts.MkAbs(root))
		if err != nil {
			return "", err
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem)
	}
	if via != "" {
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, via)
		}
	}
	client := &http.Client{
		Transport:     transport,
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", res.Proto, res.Status)
	for _, h := range []string{"Location", "Content-Type", "Set-Cookie"} {
		if v := res.Header.Get(h); v != "" {
			fmt.Fprintf(&b, "%s: %s\n", h, v)
		}
	}
	if res.TLS != nil {
		leaf := res.TLS.PeerCertificates[0]
		fmt.Fprintf(&b, "issuer: %s\nserial: %x\nnames: %v\n", leaf.Issuer, leaf.SerialNumber, leaf.DNSNames)
	}
	return b.String() + "\n" + string(body), nil
}

// await FILE TEXT: waits until the file has the text, 20 s at most.
func scriptAwait(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		data, _ := os.ReadFile(ts.MkAbs(args[0]))
		if strings.Contains(string(data), args[1]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s never had %q; it has:\n%s", args[0], args[1], data)
		}
	}
}

// signal NAME: to every command that the script runs in the background.
func scriptSignal(ts *testscript.TestScript, _ bool, args []string) {
	sig := map[string]os.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "USR1": syscall.SIGUSR1, "KILL": syscall.SIGKILL}[args[0]]
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(sig))
	}
}

// envsubst FILE...: replaces $VAR in the files.
func scriptEnvsubst(ts *testscript.TestScript, _ bool, args []string) {
	for _, file := range args {
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(os.Expand(ts.ReadFile(file), ts.Getenv)), 0o600))
	}
}

// until REGEXP COMMAND...: runs the command again and again until its output matches, 20 s at most.
func scriptUntil(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile(args[0])
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout")
		if err == nil && want.MatchString(out) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v never said %q, but %v: %s", args[1:], args[0], err, out)
		}
	}
}

// differ FILE FILE: the two answers of get came with different certificates.
func scriptDiffer(ts *testscript.TestScript, _ bool, args []string) {
	serial := regexp.MustCompile(`serial: [0-9a-f]+`)
	if a, b := serial.FindString(ts.ReadFile(args[0])), serial.FindString(ts.ReadFile(args[1])); a == "" || b == "" || a == b {
		ts.Fatalf("%s and %s", a, b)
	}
}
