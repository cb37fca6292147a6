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
	t.Setenv("HOME", trustingHome(t, l.path("root.pem")))
	dom := peer(t, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(), "--timeout=20000", "--dump-dom", page)
	if want := `It works: <span id="host">chromium.localhost:` + port + `</span>`; !strings.Contains(dom, want) {
		t.Errorf("the page is not the app's:\n%s", dom)
	}
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
