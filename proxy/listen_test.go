package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

func TestOpener_OpensTCPUnixAndUDP(t *testing.T) {
	dir := t.TempDir()
	sock := filepath.Join(dir, "web.sock")
	var o proxy.Opener
	s, err := o.Open([]string{"127.0.0.1:0", "unix://" + sock, "unix://" + sock + "2?mode=0600", "localhost:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for path, want := range map[string]os.FileMode{sock: 0o660, sock + "2": 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	udp, err := s.ListenQUIC()
	if err != nil || len(udp) != 2 {
		t.Fatalf("%d UDP sockets, %v", len(udp), err)
	}
	for i, c := range udp {
		if got, want := c.LocalAddr().String(), s.Listeners[3*i].Addr().String(); got != want {
			t.Errorf("UDP on %s, TCP on %s", got, want)
		}
		_ = c.Close()
	}
	if udp, err = s.ListenQUIC(); err != nil || len(udp) != 2 { // again, after it was turned off
		t.Fatalf("the second time: %d UDP sockets, %v", len(udp), err)
	}
	for _, c := range udp {
		_ = c.Close()
	}

	to := proxytest.Upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	p := proxytest.Start(t, proxytest.Sites(proxytest.Site(t, to, "a.test")), func(c *proxy.Config) {
		_ = c.HTTP[0].Close()
		c.HTTP = s.Listeners
	})
	for _, l := range s.Listeners {
		p.HTTP = l.Addr().String()
		if _, body := proxytest.Get(t, p.Client(proxytest.Plain), "http://a.test/"); body != "ok" {
			t.Errorf("%s: %q", p.HTTP, body)
		}
	}
}

func TestSockets_PassTheirSocketsOn(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "web.sock")
	addrs := []string{"127.0.0.1:0", "unix://" + sock}
	var o proxy.Opener
	before, err := o.Open(addrs)
	if err != nil {
		t.Fatal(err)
	}
	quic, err := before.ListenQUIC()
	if err != nil {
		t.Fatal(err)
	}
	passed, err := before.Pass()
	if err != nil || len(passed) != 3 {
		t.Fatalf("%d sockets passed, %v", len(passed), err)
	}
	var files []*os.File
	for _, p := range passed {
		fd, err := syscall.Dup(int(p.File.Fd())) // as another process would have it
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, os.NewFile(uintptr(fd), p.Address))
		_ = p.File.Close()
	}
	web := before.Listeners[0].Addr().String()
	before.Leave()
	_ = quic[0].Close()
	_ = before.Close()

	after, err := proxy.NewOpener(files).Open(addrs)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{web, sock} {
		if got := after.Listeners[i].Addr().String(); got != want {
			t.Errorf("the other process listens on %s, not on %s", got, want)
		}
		c, err := net.Dial(after.Listeners[i].Addr().Network(), want)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	for range 2 { // HTTP/3 is turned off and on
		if quic, err = after.ListenQUIC(); err != nil || len(quic) != 1 || quic[0].LocalAddr().String() != web {
			t.Fatalf("UDP sockets %v, %v", quic, err)
		}
		_ = quic[0].Close()
	}
	if err := after.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(sock); !os.IsNotExist(err) {
		t.Errorf("the unix socket is still there: %v", err)
	}
}

func TestOpener_RefusesAddressesThatAreNoneAndLeavesNothingOpen(t *testing.T) {
	dir := t.TempDir()
	taken := proxytest.Listen(t)
	defer taken.Close()
	for _, addr := range []string{taken.Addr().String(), "x", "unix://rel", "unix:///tmp/x?mode=9", "unix:///tmp/x?owner=me", "unix://" + dir + "/no/such/folder", "fd:web", ""} {
		var o proxy.Opener
		free := proxytest.Listen(t)
		_ = free.Close()
		if s, err := o.Open([]string{free.Addr().String(), addr}); err == nil || addr != "" && !strings.Contains(err.Error(), addr) {
			t.Errorf("%q: %v, %v", addr, s, err)
		}
		l, err := net.Listen("tcp", free.Addr().String())
		if err != nil {
			t.Errorf("%q: the first address stayed open: %v", addr, err)
			continue
		}
		_ = l.Close()
	}
}

func TestOpener_RemovesADeadProcessesSocketAndNoLivingOnes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var o proxy.Opener
	if _, err := o.Open([]string{"unix://" + path}); err == nil {
		t.Error("the socket of a living process was taken away")
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	s, err := o.Open([]string{"unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Open([]string{"unix://" + path}); err == nil {
		t.Error("a file was taken for a socket")
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("the file has %q, %v", text, err)
	}
}

func TestOpener_SharesPortsIfToldTo(t *testing.T) {
	o := proxy.Opener{ReusePort: true}
	one, err := o.Open([]string{"127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	addr := one.Listeners[0].Addr().String()
	two, err := o.Open([]string{addr})
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	for _, s := range []*proxy.Sockets{one, two} {
		udp, err := s.ListenQUIC()
		if err != nil {
			t.Fatal(err)
		}
		defer udp[0].Close()
	}
	if _, err := new(proxy.Opener).Open([]string{addr}); err == nil {
		t.Error("somebody who does not share got in")
	}
}

// TestOpener_TakesSocketsOfSystemdByName starts itself as systemd would start a service.
func TestOpener_TakesSocketsOfSystemdByName(t *testing.T) {
	if os.Getenv("LISTEN_FDS") != "" {
		serveSystemd()
		return
	}
	var files []*os.File
	tcp, plain, unused := proxytest.Listen(t), proxytest.Listen(t), proxytest.Listen(t)
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []any{tcp, plain, udp, unused} {
		f, err := c.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		_ = c.(io.Closer).Close()
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run "$1"`, os.Args[0], "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "LISTEN_FDS=4", "LISTEN_FDNAMES=web:plain:web:spare")
	cmd.ExtraFiles = files
	out, err := cmd.CombinedOutput()
	for _, f := range files {
		_ = f.Close()
	}
	want := fmt.Sprintf("https %s\nudp %s\nudp again %s\nhttp %s\nunused [spare]\nnot there: true\nenvironment \"\"\n",
		tcp.Addr(), tcp.Addr(), tcp.Addr(), plain.Addr())
	if err != nil || !strings.HasPrefix(string(out), want) {
		t.Errorf("%v\ngot\n%s\nwant\n%s", err, out, want)
	}
}

// serveSystemd tells what it got.
func serveSystemd() {
	o := proxy.NewOpener(nil)
	https, err := o.Open([]string{"fd:web"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer https.Close()
	fmt.Println("https", https.Listeners[0].Addr())
	for _, again := range []string{"udp", "udp again"} {
		udp, err := https.ListenQUIC()
		if err != nil || len(udp) != 1 {
			fmt.Println(udp, err)
			return
		}
		fmt.Println(again, udp[0].LocalAddr())
		_ = udp[0].Close()
	}
	http, err := o.Open([]string{"fd:plain"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer http.Close()
	fmt.Println("http", http.Listeners[0].Addr())
	fmt.Println("unused", o.Unused())
	_, err = o.Open([]string{"fd:spare"})
	fmt.Println("not there:", err != nil)
	fmt.Printf("environment %q\n", os.Getenv("LISTEN_FDS"))
}
