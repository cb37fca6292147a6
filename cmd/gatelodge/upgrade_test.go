package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"gatelodge/acmeclient/devca"
)

// succession is a chain of processes, each started by the one before, with one log.
type succession struct {
	l    *lodge
	log  *os.File
	pids []int
}

func (l *lodge) startSuccession() *succession {
	l.t.Helper()
	log, err := os.Create(l.path("log"))
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command("gatelodge", "run", "-c", l.path("gatelodge.toml"))
	cmd.Stderr = log // a file: its end is not the end of the first process
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	s := &succession{l: l, log: log, pids: []int{cmd.Process.Pid}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	l.t.Cleanup(func() {
		for _, pid := range s.pids {
			if alive(pid) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		<-ended
		_ = log.Close()
	})
	eventually(l.t, "the process serves", func() bool { return strings.Contains(s.text(), servingLine) })
	return s
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !regexp.MustCompile(`\) Z `).Match(stat) // nobody waits for those whose parent has ended
}

func (s *succession) text() string {
	text, _ := os.ReadFile(s.log.Name())
	return string(text)
}

func (s *succession) now() int { return s.pids[len(s.pids)-1] }

// upgrade signals the process that serves and waits for its successor.
func (s *succession) upgrade() {
	s.l.t.Helper()
	if err := syscall.Kill(s.now(), syscall.SIGUSR2); err != nil {
		s.l.t.Fatal(err)
	}
	s.await()
}

func (s *succession) await() {
	s.l.t.Helper()
	said := regexp.MustCompile(`another process serves now.*"pid": (\d+)`)
	eventually(s.l.t, "another process serves", func() bool { return len(said.FindAllString(s.text(), -1)) == len(s.pids) })
	all := said.FindAllStringSubmatch(s.text(), -1)
	pid, _ := strconv.Atoi(all[len(all)-1][1])
	s.pids = append(s.pids, pid)
}

// TestProgram_UpgradesWithoutLosingAConnection hands over three times, from one real process to the next, while clients come and go over HTTP/1.1, HTTP/2 and HTTP/3, a
// WebSocket talks, an upload and a download are under way, and an order is.
func TestProgram_UpgradesWithoutLosingAConnection(t *testing.T) {
	slow, ordering := make(chan struct{}), make(chan struct{}, 1)
	l := newLodge(t, devca.Config{Fault: func(_ http.ResponseWriter, _ *http.Request, endpoint string) bool {
		select {
		case <-slow:
			if endpoint == "finalize" {
				ordering <- struct{}{}
				time.Sleep(2 * time.Second) // the order is under way when the process leaves
			}
		default:
		}
		return false
	}})
	proceed := make(chan struct{})
	l.upstream = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ws":
			echo(w, r)
		case "/slow":
			_, _ = io.WriteString(w, "begin ")
			w.(http.Flusher).Flush()
			<-proceed
			_, _ = io.WriteString(w, "end")
		default:
			_, _ = io.Copy(w, r.Body)
		}
	}))
	t.Cleanup(l.upstream.Close)
	l.configure(l.ca.DirectoryURL(), "[process]\ndrain = \"4s\"\nlong_lived = \"1m\"\n")
	s := l.startSuccession()
	if _, err := l.handshake("rolling.test"); err != nil {
		t.Fatal(err)
	}

	h3 := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: l.roots}, Dial: func(ctx context.Context, _ string, tlsCfg *tls.Config, cfg *quic.Config) (*quic.Conn, error) {
		return quic.DialAddr(ctx, l.https, tlsCfg, cfg)
	}}
	defer h3.Close()
	begun := l.begin(h3, "/slow") // a request of HTTP/3 that ends within the drain
	h1 := l.begin(l.rollingClient(false, false).Transport, "/slow")
	h2 := l.begin(l.rollingClient(true, false).Transport, "/slow")
	chat, _, err := websocket.Dial(t.Context(), "wss://rolling.test/ws", &websocket.DialOptions{HTTPClient: l.rollingClient(false, false)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = chat.CloseNow() }()

	ctx, stop := context.WithCancel(t.Context())
	var answered atomic.Int64
	var clients sync.WaitGroup
	for i := range 8 {
		c := l.rollingClient(i%2 == 0, i%4 < 2)
		clients.Go(func() {
			defer c.CloseIdleConnections()
			for ctx.Err() == nil {
				if err := once(c); err != nil {
					t.Errorf("lost: %v", err)
				}
				answered.Add(1)
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	close(slow)
	visit := make(chan error, 1)
	go func() { _, err := l.handshake("ordered.test"); visit <- err }()
	<-ordering

	s.upgrade()
	if err := <-visit; err != nil {
		t.Errorf("the handshake whose order was under way: %v", err)
	}
	close(proceed)
	for what, answer := range map[string]<-chan string{"HTTP/1.1": h1, "HTTP/2": h2, "HTTP/3": begun} {
		if got := <-answer; got != "begin end" {
			t.Errorf("over %s the answer that had begun was %q", what, got)
		}
	}
	eventually(t, "HTTP/3 at the new process", func() bool {
		fresh := &http3.Transport{TLSClientConfig: h3.TLSClientConfig, Dial: h3.Dial}
		defer fresh.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://rolling.test/", nil)
		res, err := fresh.RoundTrip(r)
		return err == nil && res.Body.Close() == nil
	})
	for i := range 2 {
		before := answered.Load()
		eventually(t, "requests are answered meanwhile", func() bool { return answered.Load() > before+100 })
		if i == 0 {
			out, err := exec.CommandContext(t.Context(), "gatelodge", "upgrade", "-c", l.path("gatelodge.toml")).CombinedOutput()
			if err != nil {
				t.Fatalf("gatelodge upgrade: %v, %s", err, out)
			}
			s.await()
			if want := fmt.Sprintf("process %d serves now\n", s.now()); string(out) != want {
				t.Errorf("gatelodge upgrade said %q, not %q", out, want)
			}
		} else {
			s.upgrade()
		}
	}
	stop()
	clients.Wait()

	if err := chat.Write(t.Context(), websocket.MessageText, []byte("still there?")); err != nil {
		t.Errorf("the WebSocket of the first process: %v", err)
	}
	if _, msg, err := chat.Read(t.Context()); err != nil || string(msg) != "still there?" {
		t.Errorf("the WebSocket of the first process: %q, %v", msg, err)
	}
	if !alive(s.pids[0]) {
		t.Error("the first process ended before its WebSocket")
	}
	_ = chat.Close(websocket.StatusNormalClosure, "")
	for _, pid := range s.pids[:3] {
		eventually(t, "those that have finished end", func() bool { return !alive(pid) })
	}
	if !alive(s.now()) {
		t.Error("the last process does not live")
	}
	if n := l.orders("ordered.test") + l.orders("rolling.test"); n != 2 {
		t.Errorf("%d orders for two names", n)
	}
	t.Logf("%d requests over three upgrades", answered.Load())
}

// begin sends a request and reads the beginning of its answer. The whole answer comes later.
func (l *lodge) begin(rt http.RoundTripper, path string) <-chan string {
	l.t.Helper()
	r, err := http.NewRequestWithContext(l.t.Context(), http.MethodGet, "https://rolling.test"+path, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	res, err := rt.RoundTrip(r)
	if err != nil {
		l.t.Fatal(err)
	}
	begin := make([]byte, len("begin "))
	if _, err := io.ReadFull(res.Body, begin); err != nil {
		l.t.Fatal(err)
	}
	whole := make(chan string, 1)
	go func() {
		defer res.Body.Close()
		rest, err := io.ReadAll(res.Body)
		if err != nil {
			whole <- err.Error()
			return
		}
		whole <- string(begin) + string(rest)
	}()
	return whole
}

func TestProgram_EndsAtSIGTERMWhileAnotherProcessServes(t *testing.T) {
	l := newLodge(t, devca.Config{})
	l.upstream = httptest.NewServer(http.HandlerFunc(echo))
	t.Cleanup(l.upstream.Close)
	l.configure(l.ca.DirectoryURL(), "[process]\ndrain = \"2s\"\n")
	s := l.startSuccession()
	chat, _, err := websocket.Dial(t.Context(), "wss://rolling.test/", &websocket.DialOptions{HTTPClient: l.rollingClient(false, false)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = chat.CloseNow() }()
	s.upgrade()
	if err := syscall.Kill(s.pids[0], syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, _, err := chat.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the WebSocket ended with %v, not with a Close frame that says why", err)
	}
	eventually(t, "the end of the first process", func() bool { return !alive(s.pids[0]) })
	if !alive(s.now()) {
		t.Error("the other process has ended too")
	}
}

func TestProgram_GoesOnIfTheNewProcessDoesNotServe(t *testing.T) {
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), "")
	s := l.startSuccession()
	if _, err := l.handshake("a.test"); err != nil {
		t.Fatal(err)
	}
	l.configure(l.ca.DirectoryURL(), "[nonsense]\n")
	out, err := exec.CommandContext(t.Context(), "gatelodge", "upgrade", "--admin", "unix://"+l.path("admin.sock")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "ended before it served") {
		t.Errorf("gatelodge upgrade with a bad configuration: %v, %s", err, out)
	}
	if text := s.text(); !strings.Contains(text, "unknown key \"nonsense\"") || !strings.Contains(text, "not upgraded, this process goes on") {
		t.Errorf("the log does not say why:\n%s", text)
	}
	if body, err := l.get("a.test"); err != nil || body != "hello a.test" {
		t.Errorf("after a failed upgrade: %q, %v", body, err)
	}
	l.configure(l.ca.DirectoryURL(), "[process]\nupgrade = \"off\"\n")
	if err := syscall.Kill(s.now(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reload", func() bool { return strings.Contains(s.text(), "configuration reloaded") })
	if err := syscall.Kill(s.now(), syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the refusal", func() bool { return strings.Contains(s.text(), `process.upgrade is \"off\"`) })
	if _, err := l.get("a.test"); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(s.now(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its end", func() bool { return !alive(s.now()) })
}
