package permission

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func newTestAsk(t *testing.T, answer http.HandlerFunc) (*Ask, *atomic.Int64) {
	t.Helper()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	ask, err := NewAsk(AskConfig{URL: server.URL + "/ask?fixed=1", Node: "node1", Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ask.Close)
	return ask, &asked
}

func TestAsk_ReadsVerdicts(t *testing.T) {
	for _, c := range []struct {
		why    string
		answer http.HandlerFunc
		want   string // "allow", "deny", "cannot tell"
		tenant string
		asked  int64 // for two questions
	}{
		{"200 without a body", func(http.ResponseWriter, *http.Request) {}, "allow", "", 1},
		{"200 with a tenant", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"tenant":"acme","to":null,"more":[]}`) }, "allow", "acme", 1},
		{"200 with something else", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "OK") }, "allow", "", 1},
		{"200 cut short", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"tenant":"acme","to":"http://10`) }, "cannot tell", "", 1},
		{"404", http.NotFound, "deny", "", 1},
		{"403", status(403), "deny", "", 1},
		{"404 that must not be kept", keep("no-store", 404), "deny", "", 2},
		{"200 that must not be kept", keep("max-age=0", 200), "allow", "", 2},
		{"200 to be kept", keep("private, max-age=60", 200), "allow", "", 1},
		{"401", status(401), "cannot tell", "", 1},
		{"500", status(500), "cannot tell", "", 1},
		{"a redirect is not followed", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, "cannot tell", "", 1},
		{"no answer", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "cannot tell", "", 1},
	} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			ask, asked := newTestAsk(t, c.answer)
			if c.why == "no answer" {
				ask.cfg.Timeout = 2 * time.Second
			}
			for range 2 {
				got := "cannot tell"
				switch err := ask.Allow(t.Context(), "shop.example.com", netip.MustParseAddr("192.0.2.7")); {
				case err == nil:
					got = "allow"
				case errors.Is(err, ErrDenied):
					got = "deny"
				}
				if got != c.want {
					t.Errorf("%s, want %s", got, c.want)
				}
			}
			if asked.Load() != c.asked {
				t.Errorf("asked %d times, want %d", asked.Load(), c.asked)
			}
			if a, _ := ask.Answer("shop.example.com"); a.Tenant != c.tenant {
				t.Errorf("tenant %q", a.Tenant)
			}
		})
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func keep(control string, code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", control)
		w.WriteHeader(code)
	}
}

func TestAsk_SendsNameClientAndNode(t *testing.T) {
	var query atomic.Value
	ask, _ := newTestAsk(t, func(_ http.ResponseWriter, r *http.Request) { query.Store(r.Method + " " + r.URL.String()) })
	if err := ask.Allow(t.Context(), "shop.example.com", netip.MustParseAddr("2001:db8::7")); err != nil {
		t.Fatal(err)
	}
	if want := "GET /ask?fixed=1&ip=2001%3Adb8%3A%3A7&name=shop.example.com&node=node1"; query.Load() != want {
		t.Errorf("asked %v, want %s", query.Load(), want)
	}
}

func TestAsk_OneRequestForANameHoweverManyAsk(t *testing.T) {
	release := make(chan struct{})
	ask, asked := newTestAsk(t, func(http.ResponseWriter, *http.Request) { <-release })
	ask.cfg.Timeout = 10 * time.Second
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if err := ask.Allow(context.Background(), "shop.example.com", netip.Addr{}); err != nil {
				t.Error(err)
			}
		})
	}
	for asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	all.Wait()
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
}

func TestNewAsk_RefusesWhatIsNoURL(t *testing.T) {
	for _, url := range []string{"", "ask", "ftp://x/", "http://", "://", "unix:/run/ask.sock"} {
		if _, err := NewAsk(AskConfig{URL: url}); err == nil {
			t.Errorf("%q was taken", url)
		}
	}
}

func TestNamesFile_ReadsAndReadsAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := NewNamesFile(path, zap.NewNop()); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a missing file: %v", err)
	}
	write("*\n")
	if _, err := NewNamesFile(path, zap.NewNop()); err == nil || !strings.Contains(err.Error(), path+":1: ") {
		t.Fatalf("a bare star: %v", err)
	}
	write("# customers\nShop.Example.com\n\n*.customers.example  # all of them\nbücher.example\n")
	names, err := NewNamesFile(path, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"shop.example.com": true, "a.shop.example.com": false, "a.customers.example": true, "a.b.customers.example": true,
		"customers.example": false, "evilcustomers.example": false, "xn--bcher-kva.example": true, "other.example.com": false,
	} {
		err := names.Allow(t.Context(), name, netip.Addr{})
		if (err == nil) != want || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	names.Close() // the test looks itself
	again := func(name string) bool {
		names.refresh()
		allowed, _ := names.Known(name)
		return allowed
	}
	write("new.example.com\n")
	if !again("new.example.com") || again("shop.example.com") {
		t.Error("not read again")
	}
	write("new.example.com\nbroken name\n")
	if !again("new.example.com") {
		t.Error("a broken file took the names away")
	}
	os.Remove(path)
	if !again("new.example.com") {
		t.Error("a missing file took the names away")
	}
	write("third.example.com\n")
	if !again("third.example.com") || again("new.example.com") {
		t.Error("not read again after it was mended")
	}
}

func TestNamesFile_SeesAChangeByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "names.txt")
		if err := os.WriteFile(path, []byte("first.example\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		names, err := NewNamesFile(path, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		defer names.Close()
		if err := os.WriteFile(path, []byte("second.example\nfirst.example\nsecond.example\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(namesEvery)
		synctest.Wait()
		if allowed, _ := names.Known("second.example"); !allowed || names.names.Load().size() != 2 {
			t.Errorf("allowed %v, %d names", allowed, names.names.Load().size())
		}
	})
}

// A name takes its text and 8 bytes, so that a list of millions is no burden.
func TestParseNames_TakesLittle(t *testing.T) {
	const n, text = 10000, len("www.customer00000.example")
	var data bytes.Buffer
	for i := range n {
		fmt.Fprintf(&data, "www.customer%05d.example\n", i)
	}
	list, err := parseNames("names", data.Bytes())
	if err != nil || list.size() != n {
		t.Fatalf("%d names, %v", list.size(), err)
	}
	if got := cap(list.exact.text) + 8*cap(list.exact.at); got > n*(text+8)*3/2 {
		t.Errorf("%d bytes a name", got/n)
	}
	for i := range n {
		if name := fmt.Sprintf("www.customer%05d.example", i); !list.has(name) || list.has("x"+name) {
			t.Fatalf("%s: %v", name, list.has(name))
		}
	}
}

func FuzzParseNames(f *testing.F) {
	f.Add([]byte("example.com\n*.example.org # comment\n"))
	f.Add([]byte("*\n\xff\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseNames("names", data)
		if err == nil && list.has("*") {
			t.Fatal("everything is allowed")
		}
	})
}

func TestAsk_TellsOnceThatTheEndpointFailsAndOnceThatItWorksAgain(t *testing.T) {
	var broken atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer srv.Close()
	core, logs := observer.New(zap.InfoLevel)
	ask, err := NewAsk(AskConfig{URL: srv.URL + "/ask?token=secret", Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	defer ask.Close()
	for i, state := range []bool{false, true, true, false} {
		broken.Store(state)
		if err := ask.Allow(t.Context(), fmt.Sprintf("n%d.example", i), netip.Addr{}); (err != nil) != state {
			t.Errorf("question %d: %v", i, err)
		}
	}
	var got []string
	for _, e := range logs.All() {
		got = append(got, e.Level.String()+" "+e.Message)
		if strings.Contains(fmt.Sprint(e.ContextMap()), "secret") {
			t.Errorf("the log has the URL's query: %v", e.ContextMap())
		}
	}
	want := []string{"warn names without a certificate are refused: the ask endpoint fails", "info the ask endpoint works again"}
	if !slices.Equal(got, want) {
		t.Errorf("log is %q, want %q", got, want)
	}
}

// A client that asks for a page and leaves must not make its name one of which nobody can tell.
func TestAsk_SaysWhoseANameIsWhateverTheClientDoes(t *testing.T) {
	ask, asked := newTestAsk(t, func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("name") != "a.test" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte(`{"tenant": "acme", "to": "http://10.0.0.9:80"}`))
	})
	gone, leave := context.WithCancel(t.Context())
	leave()
	for range 2 {
		if answer, err := ask.Say(gone, "a.test"); err != nil || answer.Tenant != "acme" || answer.To != "http://10.0.0.9:80" || !answer.Allowed {
			t.Errorf("answer %+v, %v", answer, err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if answer, err := ask.Say(t.Context(), "b.test"); err == nil {
		t.Errorf("nobody can tell, but: %+v", answer)
	}
}
