package upstream_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/proxy/upstream"
)

// outcome is what became of a request that a goroutine sent.
type outcome struct {
	body string
	err  error
	took time.Duration
}

// begin sends a GET in a goroutine of its own.
func begin(ctx context.Context, p *upstream.Pool) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		start := time.Now()
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
		res, err := p.RoundTrip(r)
		if err != nil {
			done <- outcome{err: err, took: time.Since(start)}
			return
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		done <- outcome{string(body), err, time.Since(start)}
	}()
	return done
}

// slowly answers after a second.
func slowly(w http.ResponseWriter, r *http.Request) {
	time.Sleep(time.Second)
	_, _ = io.WriteString(w, "done")
}

func TestQueue_LetsRequestsWaitForAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.serve("10.0.0.1:80", slowly)
		n.serve("10.0.0.2:80", slowly)
		p := n.pool(upstream.Config{To: []string{"http://10.0.0.1", "http://10.0.0.2"}, MaxConns: 2, Queue: upstream.Queue{Max: 8, Wait: 10 * time.Second}})
		var all []<-chan outcome
		for range 12 {
			all = append(all, begin(t.Context(), p))
			synctest.Wait() // so that they come one after the other
		}
		if p.Waiting() != 8 {
			t.Errorf("%d requests wait", p.Waiting())
		}
		for _, s := range p.Status() {
			if s.InFlight != 2 {
				t.Errorf("%s has %d requests", s.Target, s.InFlight)
			}
		}
		late := <-begin(t.Context(), p)
		if upstream.Classify(late.err) != "unavailable" || late.took != 0 {
			t.Errorf("the thirteenth: %v after %s", late.err, late.took)
		}
		for i, c := range all { // four at a time, in the order in which they came
			if got, want := <-c, time.Duration(i/4+1)*time.Second; got.err != nil || got.took != want {
				t.Errorf("request %d: %v after %s, want %s", i, got.err, got.took, want)
			}
		}
		if n.open("10.0.0.1:80") > 2 || n.open("10.0.0.2:80") > 2 {
			t.Error("more connections than there may be")
		}
	})
}

func TestQueue_GivesUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.serve("10.0.0.1:80", func(w http.ResponseWriter, r *http.Request) { time.Sleep(30 * time.Second) })
		p := n.pool(upstream.Config{To: []string{"http://10.0.0.1"}, MaxConns: 1, Queue: upstream.Queue{Max: 10, Wait: 3 * time.Second}})
		first := begin(t.Context(), p)
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		waiting, leaving := begin(t.Context(), p), begin(ctx, p)
		time.Sleep(time.Second)
		cancel()
		if got := <-leaving; !errors.Is(got.err, upstream.ErrCanceled) || got.took != time.Second {
			t.Errorf("the client that left: %v after %s", got.err, got.took)
		}
		if got := <-waiting; !errors.Is(got.err, upstream.ErrUnavailable) || got.took != 3*time.Second {
			t.Errorf("%v after %s", got.err, got.took)
		}
		if p.Waiting() != 0 {
			t.Errorf("%d requests wait", p.Waiting())
		}
		if got := <-first; got.err != nil {
			t.Error(got.err)
		}
	})
}

func TestQueue_AnUpgradedConnectionKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.serve("10.0.0.1:80", func(w http.ResponseWriter, r *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			_, _ = io.Copy(c, c)
			_ = c.Close()
		})
		p := n.pool(upstream.Config{To: []string{"http://10.0.0.1"}, MaxConns: 1})
		r, _ := http.NewRequest(http.MethodGet, "/", nil)
		r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"x"}}
		res, err := p.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		c := res.Body.(io.ReadWriteCloser)
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if got := <-begin(t.Context(), p); !errors.Is(got.err, upstream.ErrUnavailable) {
			t.Errorf("a second request: %v", got.err)
		}
		_ = c.Close()
		if s := p.Status(); s[0].InFlight != 0 {
			t.Errorf("%d requests after the end", s[0].InFlight)
		}
	})
}
