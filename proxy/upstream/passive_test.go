package upstream_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatelodge/proxy/upstream"
)

// passive are those of the configuration's defaults.
var passive = upstream.Passive{Fails: 5, Within: 10 * time.Second, OutFor: 10 * time.Second}

// must compares the states of the targets.
func must(t *testing.T, when string, p *upstream.Pool, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, states(p)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", when, diff)
	}
}

func TestPassive_TakesAFailingTargetOutAndTriesItWithOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.serve("10.0.0.2:80", says("two"))
		p := n.pool(upstream.Config{To: []string{"http://10.0.0.1", "http://10.0.0.2"}, Balance: "first", Passive: passive})
		for i := range 5 {
			must(t, "before the fifth failure", p, "up", "up")
			if _, _, err := send(p, "GET", ""); err == nil {
				t.Fatalf("request %d worked", i)
			}
			time.Sleep(time.Second)
		}
		must(t, "after five", p, "out", "up")
		if _, body, err := send(p, "POST", "x"); body != "two" {
			t.Fatalf("%q, %v", body, err)
		}
		time.Sleep(9 * time.Second)
		must(t, "after 10 s", p, "trial", "up")
		if _, _, err := send(p, "GET", ""); err == nil {
			t.Fatal("the trial worked")
		}
		must(t, "after a trial that failed", p, "out", "up")
		time.Sleep(19 * time.Second)
		must(t, "after 19 s, since now it is 20", p, "out", "up")
		time.Sleep(time.Second)

		// Of many requests at one time one tries.
		release := make(chan struct{})
		var tried atomic.Int32
		n.serve("10.0.0.1:80", func(http.ResponseWriter, *http.Request) { tried.Add(1); <-release })
		first := begin(t.Context(), p)
		synctest.Wait()
		for range 10 {
			if _, body, err := send(p, "GET", ""); body != "two" {
				t.Errorf("%q, %v", body, err)
			}
		}
		if tried.Load() != 1 {
			t.Errorf("%d requests tried", tried.Load())
		}
		close(release)
		if got := <-first; got.err != nil {
			t.Error(got.err)
		}
		must(t, "after a trial that worked", p, "up", "up")
	})
}

func TestPassive_NeverTakesOutTheLastTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t) // nobody listens
		p := n.pool(upstream.Config{To: []string{"http://10.0.0.1", "http://10.0.0.2"}, Passive: passive})
		for range 100 {
			_, _, _ = send(p, "GET", "")
		}
		out := 0
		for _, s := range states(p) {
			if s == "out" {
				out++
			}
		}
		if out != 1 {
			t.Errorf("the states are %v", states(p))
		}
		n.serve("10.0.0.1:80", says("one"))
		n.serve("10.0.0.2:80", says("two"))
		if _, _, err := send(p, "GET", ""); err != nil {
			t.Errorf("the last one works again: %v", err)
		}
	})
}

func TestPassive_ForgivesWhatIsRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		var bad atomic.Bool
		n.serve("10.0.0.1:80", func(w http.ResponseWriter, r *http.Request) {
			if bad.Load() {
				fails(w, r)
			}
		})
		n.serve("10.0.0.2:80", says("two"))
		p := n.pool(upstream.Config{To: []string{"http://10.0.0.1", "http://10.0.0.2"}, Balance: "first", Passive: passive})
		for i := range 200 { // five failures in 2 s, but only every thirtieth request
			bad.Store(i%30 == 29)
			_, _, _ = send(p, "GET", "")
			time.Sleep(10 * time.Millisecond)
		}
		must(t, "after rare failures", p, "up", "up")
		bad.Store(true)
		for range 10 { // all fail, but slowly
			_, _, _ = send(p, "GET", "")
			time.Sleep(4 * time.Second)
		}
		must(t, "after slow failures", p, "up", "up")
		for range 5 {
			_, _, _ = send(p, "GET", "")
		}
		must(t, "after quick failures", p, "out", "up")
	})
}

func TestPassive_CountsAnswersThatAreCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.serve("10.0.0.1:80", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("short"))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		n.serve("10.0.0.2:80", says("two"))
		p := n.pool(upstream.Config{To: []string{"http://10.0.0.1", "http://10.0.0.2"}, Balance: "first", Passive: passive, Retries: retries})
		for range 5 {
			if _, body, err := send(p, "GET", ""); err == nil || body != "short" {
				t.Errorf("%q, %v", body, err)
			}
		}
		must(t, "after five cut answers", p, "out", "up")
		if s := p.Status()[0]; s.Failures != 5 || s.LastError == "" || s.InFlight != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestSlowStart_GivesATargetThatCameBackLittleAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.serve("10.0.0.2:80", says("two"))
		p := n.pool(upstream.Config{
			To: []string{"http://10.0.0.1", "http://10.0.0.2"}, Balance: "round_robin", Passive: upstream.Passive{Fails: 1}, Retries: retries, SlowStart: time.Minute,
		})
		if _, _, err := send(p, "GET", ""); err != nil {
			t.Fatal(err)
		}
		must(t, "after a failure", p, "out", "up")
		n.serve("10.0.0.1:80", says("one"))
		time.Sleep(10 * time.Second)
		for states(p)[0] == "trial" {
			if _, _, err := send(p, "GET", ""); err != nil {
				t.Fatal(err)
			}
		}
		must(t, "back", p, "slow", "up")
		share := func() (ones int) {
			for range 100 {
				if _, body, _ := send(p, "GET", ""); body == "one" {
					ones++
				}
			}
			return ones
		}
		if ones := share(); ones < 7 || ones > 12 { // a tenth of the other's
			t.Errorf("it got %d of 100 at once", ones)
		}
		time.Sleep(30 * time.Second)
		if ones := share(); ones < 30 || ones > 36 { // a half
			t.Errorf("it got %d of 100 after half of the time", ones)
		}
		time.Sleep(30 * time.Second)
		if ones := share(); ones != 50 {
			t.Errorf("it got %d of 100 at the end", ones)
		}
		must(t, "at the end", p, "up", "up")
	})
}
