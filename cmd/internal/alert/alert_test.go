package alert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) {
	// net/http waits for half a second in it before it closes a connection whose client may still be sending, longer than goleak waits.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// receiver is a webhook without a network: what it is posted, and how it answers.
type receiver struct {
	mu     sync.Mutex
	bodies []string
	answer func(n int) (int, error) // of the n-th request, from 1; nil: 204
}

func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.bodies = append(r.bodies, string(body))
	n := len(r.bodies)
	r.mu.Unlock()
	status := http.StatusNoContent
	if r.answer != nil {
		if status, err = r.answer(n); err != nil {
			return nil, err
		}
	}
	return &http.Response{StatusCode: status, Body: http.NoBody, Request: req}, nil
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.bodies)
}

const secretURL = "https://hooks.example/T0P/s3cr3t"

func newSender(t *testing.T, r *receiver) (*Sender, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	s, err := New(Config{URL: func() (string, error) { return secretURL, nil }, Node: "n1", Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	s.client.Transport = r
	return s, logs
}

type sample struct {
	Kind string `json:"kind"`
}

func TestSender_TriesAgainAndNeverShowsTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answer: func(n int) (int, error) {
			switch n {
			case 1:
				return 0, errors.New("connection refused")
			case 2:
				return http.StatusServiceUnavailable, nil
			}
			return http.StatusOK, nil
		}}
		s, logs := newSender(t, r)
		s.Start(context.Background())
		s.Send("renewal_late", sample{"renewal_late"})
		time.Sleep(time.Minute)
		if r.count() != 3 {
			t.Errorf("posted %d times, want 3", r.count())
		}
		var got envelope
		if err := json.Unmarshal([]byte(r.bodies[2]), &got); err != nil || got.Program != "gatelodge" || got.Node != "n1" || got.Event.(map[string]any)["kind"] != "renewal_late" {
			t.Errorf("posted %s, %v", r.bodies[2], err)
		}
		s.Close()
		for _, e := range logs.All() {
			if line := e.Message + " " + zapString(e); strings.Contains(line, "s3cr3t") {
				t.Errorf("the log shows the address: %s", line)
			}
		}
	})
}

func zapString(e observer.LoggedEntry) string {
	data, err := json.Marshal(e.ContextMap())
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func TestSender_TellsTheSameOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{}
		s, _ := newSender(t, r)
		s.Start(context.Background())
		for range 24 {
			s.Send("a", sample{"a"})
			time.Sleep(time.Hour)
		}
		if r.count() != 4 {
			t.Errorf("told %d times in a day", r.count())
		}
		s.Close()
	})
}

func TestSender_LeavesARefusalAndADeadReceiverAlone(t *testing.T) {
	for name, tt := range map[string]struct {
		status      int
		least, most int
	}{"refused": {http.StatusForbidden, 1, 1}, "redirected": {http.StatusFound, 1, 1}, "broken": {http.StatusInternalServerError, 8, 40}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &receiver{answer: func(int) (int, error) { return tt.status, nil }}
				s, _ := newSender(t, r)
				s.Start(context.Background())
				s.Send("a", sample{"a"})
				time.Sleep(24 * time.Hour)
				if n := r.count(); n < tt.least || n > tt.most {
					t.Errorf("%d requests", n)
				}
				s.Close()
			})
		})
	}
}

func TestSender_HasABoundedQueueAndNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{}
		s, logs := newSender(t, r)
		for i := range 10 * queueSize {
			s.Send(string(rune(i+0x4e00)), sample{"a"}) // not started: nothing takes them
		}
		if len(s.queue) != queueSize || logs.FilterMessageSnippet("left out").Len() != 1 {
			t.Errorf("%d wait, the log has %d lines", len(s.queue), logs.Len())
		}
		s.Close()
		if r.count() != queueSize {
			t.Errorf("%d were sent at the end", r.count())
		}
	})
}

func TestSender_SaysEachTimeHowManyItLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Bool
		s, logs := newSender(t, &receiver{answer: func(int) (int, error) {
			for busy.Load() {
				time.Sleep(time.Second)
			}
			return http.StatusOK, nil
		}})
		s.Start(context.Background())
		for flood := range 2 {
			busy.Store(true)
			s.Send(fmt.Sprint(flood), sample{"a"})
			synctest.Wait() // it is under way, and the queue is empty
			for i := range queueSize + 5 {
				s.Send(fmt.Sprint(flood, i), sample{"a"})
			}
			busy.Store(false)
			time.Sleep(time.Minute)
			said := logs.FilterMessage("alerts that came too fast were left out").All()
			if len(said) != flood+1 || said[flood].ContextMap()["alerts"] != int64(5) {
				t.Errorf("after flood %d the log says %v", flood+1, said)
			}
		}
		s.Close()
	})
}

func TestSender_TriesOnceMoreAtItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answer: func(n int) (int, error) {
			if n == 1 {
				return http.StatusServiceUnavailable, nil
			}
			return http.StatusOK, nil
		}}
		s, logs := newSender(t, r)
		s.Start(context.Background())
		s.Send("a", sample{"a"})
		time.Sleep(retryFirst / 2)
		s.Close()
		if r.count() != 2 || logs.FilterMessageSnippet("before the end").Len() != 0 {
			t.Errorf("posted %d times: %v", r.count(), logs.All())
		}
	})
}

func TestSender_WithoutAnAddressDoesNothing(t *testing.T) {
	s, err := New(Config{URL: func() (string, error) { return "", nil }, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	s.Send("a", sample{"a"})
	if len(s.queue) != 0 {
		t.Error("an event waits for nobody")
	}
	s.Close()
}

func TestSender_PostsToARealServer(t *testing.T) {
	got := make(chan string, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.Method + " " + r.Header.Get("Content-Type") + " " + string(body)
	}))
	defer srv.Close()
	s, err := New(Config{URL: func() (string, error) { return srv.URL, nil }, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	s.Start(t.Context())
	defer s.Close()
	s.Send("a", sample{"budget_used_up"})
	select {
	case line := <-got:
		if line != `POST application/json {"program":"gatelodge","event":{"kind":"budget_used_up"}}` {
			t.Error(line)
		}
	case <-time.After(30 * time.Second):
		t.Error("nothing came")
	}
}
