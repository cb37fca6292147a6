//go:build peers

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatelodge/acmeclient/devca"
)

// peer runs another program; a missing one is a failure.
func peer(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func newPeerLodge(t *testing.T) *lodge {
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), "")
	l.write("names", "*.test\nlocalhost\n*.localhost\n")
	l.start()
	return l
}

func TestPeerCurl_LoadsOverBothVersionsOfHTTP(t *testing.T) {
	l := newPeerLodge(t)
	_, port, _ := strings.Cut(l.https, ":")
	for flag, version := range map[string]string{"--http1.1": "1.1", "--http2": "2"} {
		out := peer(t, "curl", "-sS", flag, "--cacert", l.path("root.pem"), "--resolve", "curl.test:"+port+":127.0.0.1",
			"-w", "\n%{http_version} %{http_code}", "https://curl.test:"+port+"/")
		if want := "hello curl.test:" + port + "\n" + version + " 200"; out != want {
			t.Errorf("curl %s: %q, want %q", flag, out, want)
		}
	}
}

func TestPeerOpenSSL_VerifiesTheChain(t *testing.T) {
	l := newPeerLodge(t)
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		out := peer(t, "openssl", "s_client", version, "-connect", l.https, "-servername", "openssl.test", "-verify_hostname", "openssl.test",
			"-CAfile", l.path("root.pem"), "-verify_return_error", "-brief")
		if !strings.Contains(out, "Verification: OK") {
			t.Errorf("openssl %s:\n%s", version, out)
		}
	}
}

func TestPeerChromium_ShowsThePageWithTheRootTrusted(t *testing.T) {
	l := newPeerLodge(t)
	app, err := startDemoApp()
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	l.configure(l.ca.DirectoryURL(), "[[site]]\nhosts = [\"chromium.localhost\"]\nca = [\"test\"]\nto = \""+app.URL()+"\"\n")
	if err := l.program.reload(); err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(l.https, ":")
	page := "https://chromium.localhost:" + port + "/"
	dom := chromium(t, l.path("root.pem"), page)
	if want := `It works: <span id="host">chromium.localhost:` + port + `</span>`; !strings.Contains(dom, want) {
		t.Errorf("the page is not the app's:\n%s", dom)
	}
}

// TestPeerV1_CurlOpenSSLAndChromiumTrustWhatAV1CAIssued: the demo over a CA that speaks nothing but ACME v1.
func TestPeerV1_CurlOpenSSLAndChromiumTrustWhatAV1CAIssued(t *testing.T) {
	l := &lodge{t: t, dir: t.TempDir(), https: freeAddr(t), http: freeAddr(t)}
	demo := &process{cmd: exec.CommandContext(t.Context(), "gatelodge", "demo", "--dir", l.dir, "--https", l.https, "--http", l.http, "--acme", "v1"), log: &syncBuffer{}}
	demo.cmd.Stdout, demo.cmd.Stderr, demo.cmd.Env = demo.log, demo.log, append(os.Environ(), "HOME="+l.dir)
	if err := demo.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer demo.kill()
	root := l.path("root.pem")
	_, port, _ := strings.Cut(l.https, ":")
	at := func(host string) string { return "https://" + host + ".localhost:" + port + "/" }
	resolve := "curl.localhost:" + port + ":127.0.0.1"
	eventually(t, "the demo answers", func() bool {
		return exec.CommandContext(t.Context(), "curl", "-sS", "--cacert", root, "--resolve", resolve, at("curl")).Run() == nil
	})
	if out := peer(t, "curl", "-sS", "--cacert", root, "--resolve", resolve, "-w", "\n%{ssl_verify_result} %{http_code}", at("curl")); !strings.HasSuffix(out, "\n0 200") || !strings.Contains(out, "It works") {
		t.Errorf("curl:\n%s", out)
	}
	out := peer(t, "openssl", "s_client", "-connect", l.https, "-servername", "openssl.localhost", "-verify_hostname", "openssl.localhost", "-CAfile", root, "-verify_return_error", "-brief")
	if !strings.Contains(out, "Verification: OK") {
		t.Errorf("openssl:\n%s", out)
	}
	if dom := chromium(t, root, at("chromium")); !strings.Contains(dom, `It works: <span id="host">chromium.localhost:`+port+`</span>`) {
		t.Errorf("chromium does not show the app's page:\n%s", dom)
	}
	for _, name := range []string{"curl", "openssl", "chromium"} {
		if !strings.Contains(demo.log.String(), "devca v1 account 1") || !strings.Contains(demo.log.String(), name+".localhost") {
			t.Errorf("%s.localhost was not issued over v1:\n%s", name, demo.log)
		}
	}
	if strings.Contains(demo.log.String(), "devca v2") {
		t.Errorf("v2 was spoken:\n%s", demo.log)
	}
}

// chromium returns the document of a page that it loads with the root trusted.
func chromium(t *testing.T, root, page string) string {
	t.Helper()
	t.Setenv("HOME", trustingHome(t, root))
	return peer(t, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(), "--timeout=20000", "--dump-dom", page)
}

// trustingHome is a home folder whose browser trusts a root, by NSS's own tool.
func trustingHome(t *testing.T, root string) string {
	t.Helper()
	home := t.TempDir()
	db := filepath.Join(home, ".pki", "nssdb")
	if err := os.MkdirAll(db, 0o700); err != nil {
		t.Fatal(err)
	}
	peer(t, "certutil", "-d", "sql:"+db, "-N", "--empty-password")
	peer(t, "certutil", "-d", "sql:"+db, "-A", "-t", "C,,", "-n", "demo", "-i", root)
	return home
}
