package permission

import (
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
)

func TestAsk_ReportsWhatItRemembersAndSinceWhenItFails(t *testing.T) {
	var down atomic.Bool
	ask, asked := newTestAsk(t, func(w http.ResponseWriter, r *http.Request) {
		switch name := r.FormValue("name"); {
		case down.Load():
			w.WriteHeader(http.StatusBadGateway)
		case name == "good.test":
			w.Header().Set("Cache-Control", "max-age=0")
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	allow := func(name string) { _ = ask.Allow(t.Context(), name, netip.Addr{}) }
	if got := ask.Report("bad.test"); got != (Report{By: "ask"}) {
		t.Errorf("before anybody asked: %+v", got)
	}
	began := time.Now()
	allow("bad.test")
	got := ask.Report("bad.test")
	if got.Verdict != "denied" || got.Asked.Before(began) || got.Failing != "" || !got.Since.IsZero() || got.Until.Sub(got.Asked) != time.Minute {
		t.Errorf("denied: %+v", got)
	}
	allow("good.test")
	if got := ask.Report("good.test"); got.Verdict != "allowed" || got.Asked.Before(began) || got.Failing != "" || !got.Stale.IsZero() {
		t.Errorf("allowed: %+v", got)
	}
	down.Store(true)
	allow("other.test")
	since := ask.Report("other.test").Since
	allow("good.test")
	got = ask.Report("good.test")
	if got.Verdict != "allowed" || !strings.Contains(got.Failing, "502") || since.IsZero() || !got.Since.Equal(since) || got.Stale.Sub(got.Asked) != 7*24*time.Hour || !got.Until.IsZero() {
		t.Errorf("what was allowed before: %+v", got)
	}
	if got := ask.Report("other.test"); got.Verdict != "" || !strings.Contains(got.Failing, "502") || !got.Stale.IsZero() {
		t.Errorf("one of which nothing is known: %+v", got)
	}
	before := asked.Load()
	if ask.Report("new.test"); asked.Load() != before {
		t.Error("a report asked the endpoint")
	}
	down.Store(false)
	eventuallyWell(t, ask) // it is asked about the same name once a second
}

// eventuallyWell waits until the endpoint has given a verdict again.
func eventuallyWell(t *testing.T, ask *Ask) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ask.Report("new.test").Failing != ""; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it works again, and still fails")
		}
		_ = ask.Allow(t.Context(), "good.test", netip.Addr{})
	}
}

func TestNamesFile_ReportsWhatItHas(t *testing.T) {
	file := filepath.Join(t.TempDir(), "names")
	if err := os.WriteFile(file, []byte("good.test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := NewNamesFile(file, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, want := range map[string]string{"good.test": "allowed", "bad.test": "denied"} {
		if got := f.Report(name); got != (Report{By: "names_file", Verdict: want}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
