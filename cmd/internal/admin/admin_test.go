package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"gatelodge/cmd/internal/config"
)

func TestMain(m *testing.M) {
	// net/http waits for half a second in it before it closes a connection whose client may still be sending, longer than goleak waits.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

func TestServer_ShowsCertificatesByName(t *testing.T) {
	end := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	a := CertStatus{Name: "a.example", Site: "a.example", State: "valid", CA: "letsencrypt", NotAfter: end, Serial: "0a", Notes: map[string]string{"order": "https://ca/1"}}
	b := CertStatus{Name: "*.b.example", State: "failing", LastError: "no", Attempts: 2, NextAttempt: end}
	_, client := start(t, func(c *Config) {
		c.Certs = func(_ context.Context, failing bool) (iter.Seq[CertStatus], error) {
			if failing {
				return slices.Values([]CertStatus{b}), errors.New("the disk is\ngone")
			}
			return slices.Values([]CertStatus{b, a}), nil
		}
		c.Cert = func(_ context.Context, name string) (CertStatus, error) {
			if name == b.Name {
				return b, nil
			}
			return CertStatus{}, fmt.Errorf("%w: %s", ErrUnknownName, name)
		}
	})
	got, err := collect(client.Certs(t.Context(), false))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]CertStatus{b, a}, got); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	got, err = collect(client.Certs(t.Context(), true))
	if diff := cmp.Diff([]CertStatus{b}, got); err == nil || err.Error() != "the disk is gone" || diff != "" {
		t.Errorf("a list that is not complete: %v (-want +got):\n%s", err, diff)
	}
	one, err := client.Cert(t.Context(), "*.b.example")
	if diff := cmp.Diff(b, one); err != nil || diff != "" {
		t.Errorf("show: %v (-want +got):\n%s", err, diff)
	}
	for _, name := range []string{"c.example", "../config", "a/b"} {
		if _, err := client.Cert(t.Context(), name); !errors.Is(err, ErrUnknownName) || !strings.Contains(err.Error(), name) {
			t.Errorf("show %s: %v", name, err)
		}
	}
}

func TestServer_ShowsTheConfigurationInForce(t *testing.T) {
	_, client := start(t, nil)
	cfg, err := client.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(cfg, []byte(`"to":"http://127.0.0.1:3000"`)) {
		t.Errorf("the configuration is %s", cfg)
	}
}

func TestServer_ShowsUpstreams(t *testing.T) {
	want := []UpstreamStatus{{Name: "app", Retries: 1, Targets: []TargetStatus{{Target: "http://a", State: "up", Weight: 1, Requests: 2}}}}
	_, client := start(t, func(c *Config) { c.Upstreams = func() []UpstreamStatus { return want } })
	got, err := client.Upstreams(t.Context())
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestServer_ReloadsAndSaysWhyNot(t *testing.T) {
	var fail error
	_, client := start(t, func(c *Config) { c.Reload = func(context.Context) error { return fail } })
	if _, err := client.Reload(t.Context(), ""); err != nil {
		t.Errorf("reload: %v", err)
	}
	fail = errors.New("a.toml:1:1: unknown key \"hots\"\n    1 | hots\n      | ^^^^")
	if _, err := client.Reload(t.Context(), ""); err == nil || err.Error() != fail.Error() {
		t.Errorf("reload: %v, want %v", err, fail)
	}
}

func TestServer_RefusesWhatItDoesNotKnow(t *testing.T) {
	s, client := start(t, nil)
	for _, r := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/", 404},
		{"GET", "/reload", 405},
		{"POST", "/certs", 405},
		{"GET", "/certs/", 404},
		{"GET", "/" + strings.Repeat("a", 64<<10), 431},
	} {
		req, err := http.NewRequestWithContext(t.Context(), r.method, "http://admin"+r.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.http.Do(req)
		if err != nil {
			t.Errorf("%s %.20s: %v", r.method, r.path, err)
			continue
		}
		res.Body.Close()
		if res.StatusCode != r.status {
			t.Errorf("%s %.20s: %d, want %d", r.method, r.path, res.StatusCode, r.status)
		}
	}
	if s.http.ReadHeaderTimeout == 0 || s.http.WriteTimeout == 0 || s.http.IdleTimeout == 0 {
		t.Error("a timeout is missing")
	}
}

func TestServer_KeepsItsSocketToItself(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	startAt(t, filepath.Join(dir, "admin.sock"), nil)
	for path, want := range map[string]os.FileMode{dir: 0o700, dir + "/admin.sock": 0o600, dir + "/admin.sock.lock": 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
}

func TestServer_TakesThePlaceOfADeadProcessOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	dead := listenUnix(t, path)
	dead.SetUnlinkOnClose(false) // as a process that was killed
	dead.Close()
	s, client := startAt(t, path, nil)
	if _, err := client.Reload(t.Context(), ""); err != nil {
		t.Errorf("over the socket of a dead process: %v", err)
	}
	if _, err := NewServer(s.cfg); err == nil || !strings.Contains(err.Error(), "another gatelodge") {
		t.Errorf("a second server on the same socket: %v", err)
	}
	if _, err := client.Reload(t.Context(), ""); err != nil {
		t.Errorf("the first server after the second tried: %v", err)
	}
}

func TestServer_LeavesWhatIsNotItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T, path string)
		want    string
	}{
		"a program without our lock answers": {func(t *testing.T, path string) { listenUnix(t, path) }, "somebody answers"},
		"a file is there": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "no socket"},
		"everybody may write to the folder": {func(t *testing.T, path string) {
			if err := os.Chmod(filepath.Dir(path), 0o777); err != nil {
				t.Fatal(err)
			}
		}, "everybody may write"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "admin.sock")
			c.prepare(t, path)
			before, _ := os.Lstat(path)
			_, err := NewServer(testConfig(path))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want one with %q", err, c.want)
			}
			if after, _ := os.Lstat(path); (before == nil) != (after == nil) {
				t.Error("what was there is gone")
			}
		})
	}
}

func TestServer_CanStartAgainAfterClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	for range 2 { // the first never starts
		s, err := NewServer(testConfig(path))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestSocket_KnowsWhoIsThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := listenUnix(t, path)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	for side, conn := range map[string]net.Conn{"listener": peer, "dialler": c} {
		if uid, err := peerUID(conn.(*net.UnixConn)); err != nil || uid != os.Geteuid() {
			t.Errorf("the %s sees user %d, %v; want %d", side, uid, err, os.Geteuid())
		}
	}
	for _, r := range []struct {
		peer, me int
		want     bool
	}{{1000, 1000, true}, {0, 1000, true}, {1001, 1000, false}, {1000, 0, false}, {-1, 0, false}} {
		if got := permitted(r.peer, r.me); got != r.want {
			t.Errorf("user %d at a process of user %d: %v", r.peer, r.me, got)
		}
	}
}

func TestClient_SaysWhatToDoWhenNobodyAnswers(t *testing.T) {
	client, err := NewClient("unix://" + filepath.Join(t.TempDir(), "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Reload(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "is it running") {
		t.Errorf("error is %v", err)
	}
	for _, listen := range []string{"", "/run/admin.sock", "unix://relative", "127.0.0.1:80"} {
		if _, err := NewClient(listen); err == nil {
			t.Errorf("%q is taken for a socket", listen)
		}
	}
}

func TestClient_DoesNotBelieveAnotherProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	l := listenUnix(t, path)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "<html>")
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	client, err := NewClient("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := collect(client.Certs(t.Context(), false)); err == nil || !strings.Contains(err.Error(), "418") {
		t.Errorf("error is %v", err)
	}
}

func listenUnix(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func testConfig(path string) Config {
	cfg, err := config.ForHost("example.com", "127.0.0.1:3000")
	if err != nil {
		panic(err)
	}
	return Config{
		Listen: "unix://" + path,
		Certs: func(context.Context, bool) (iter.Seq[CertStatus], error) {
			return slices.Values[[]CertStatus](nil), nil
		},
		Retry: func(context.Context, string) (Retried, error) { return Retried{}, nil },
		Cert: func(_ context.Context, name string) (CertStatus, error) {
			return CertStatus{}, fmt.Errorf("%w: %s", ErrUnknownName, name)
		},
		Revoke: func(_ context.Context, name string, _ Revocation) error {
			return fmt.Errorf("%w: %s", ErrUnknownName, name)
		},
		Config: func() *config.Config { return cfg },
		Reload: func(context.Context) error { return nil },
		Logger: zap.NewNop(),
	}
}

func start(t *testing.T, change func(*Config)) (*Server, *Client) {
	t.Helper()
	return startAt(t, filepath.Join(t.TempDir(), "admin.sock"), change)
}

func startAt(t *testing.T, path string, change func(*Config)) (*Server, *Client) {
	t.Helper()
	cfg := testConfig(path)
	if change != nil {
		change(&cfg)
	}
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	client, err := NewClient(cfg.Listen)
	if err != nil {
		t.Fatal(err)
	}
	return s, client
}

func TestRevoke_CarriesWhatWasAsked(t *testing.T) {
	var got Revocation
	_, client := start(t, func(c *Config) {
		c.Revoke = func(_ context.Context, name string, r Revocation) error {
			if name != "a.example" {
				return fmt.Errorf("%w: %s", ErrUnknownName, name)
			}
			got = r
			if r.Reason == 1 {
				return ErrGoesOn
			}
			return nil
		}
	})
	if err := client.Revoke(t.Context(), "a.example", Revocation{Reason: 1}); !errors.Is(err, ErrGoesOn) {
		t.Errorf("one that takes long: %v", err)
	}
	want := Revocation{Reason: 4, Compromised: true}
	if err := client.Revoke(t.Context(), "a.example", want); err != nil || got != want {
		t.Errorf("revoked %+v, %v; want %+v", got, err, want)
	}
	if err := client.Revoke(t.Context(), "b.example", want); !errors.Is(err, ErrUnknownName) {
		t.Errorf("unknown name: %v", err)
	}
}

// collect is all that a sequence yields, or its error.
func collect(certs iter.Seq2[CertStatus, error]) (all []CertStatus, err error) {
	for c, err := range certs {
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, nil
}

func TestServer_ListsAnyNumberOfCertificatesOneByOne(t *testing.T) {
	const many = 20000
	asked := false
	_, client := start(t, func(c *Config) {
		c.Certs = func(_ context.Context, failing bool) (iter.Seq[CertStatus], error) {
			if failing {
				asked = true
			}
			return func(yield func(CertStatus) bool) {
				for i := range many {
					if !yield(CertStatus{Name: fmt.Sprintf("n%d.example", i), State: "serving"}) {
						return
					}
				}
			}, nil
		}
	})
	got, err := collect(client.Certs(t.Context(), true))
	if err != nil || len(got) != many || got[many-1].Name != "n19999.example" || !asked {
		t.Errorf("%d certificates, %v", len(got), err)
	}
	for c := range client.Certs(t.Context(), false) { // and a reader may go away
		if c.Name == "n10.example" {
			break
		}
	}
}

func TestServer_RetriesNames(t *testing.T) {
	next := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	_, client := start(t, func(c *Config) {
		c.Retry = func(_ context.Context, name string) (Retried, error) {
			switch name {
			case "":
				return Retried{Names: 7}, nil
			case "a.example":
				return Retried{Names: 1, Next: next}, nil
			}
			return Retried{}, fmt.Errorf("%w: %s", ErrUnknownName, name)
		}
	})
	if got, err := client.Retry(t.Context(), ""); err != nil || got.Names != 7 {
		t.Errorf("all: %+v, %v", got, err)
	}
	if got, err := client.Retry(t.Context(), "a.example"); err != nil || !got.Next.Equal(next) {
		t.Errorf("one: %+v, %v", got, err)
	}
	if _, err := client.Retry(t.Context(), "b.example"); !errors.Is(err, ErrUnknownName) {
		t.Errorf("unknown: %v", err)
	}
}
