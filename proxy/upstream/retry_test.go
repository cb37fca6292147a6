package upstream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"gatelodge/proxy/upstream"
)

// retries are those of the configuration's defaults, without a bound.
var retries = upstream.Retries{Max: 1, On: []string{"connect", "502", "503", "504"}, Methods: []string{"GET", "HEAD", "OPTIONS", "PUT"}, Budget: 100}

// send sends a request with a body, none if it is empty.
func send(p *upstream.Pool, method, body string) (int, string, error) {
	var src io.Reader
	if body != "" {
		src = bytes.NewReader([]byte(body)) // http.NewRequest makes its GetBody
	}
	r, _ := http.NewRequest(method, "/", src)
	res, err := p.RoundTrip(r)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

func TestRetry_GivesARequestToAnotherTargetOnlyIfThatIsSafe(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(code)
		}
	}
	for _, c := range []struct {
		name         string
		bad          http.HandlerFunc // nil: nobody listens
		method, body string
		retried      bool
	}{
		{"GET, nobody listens", nil, "GET", "", true},
		{"POST, nobody listens", nil, "POST", "", true},
		{"POST with a body, nobody listens", nil, "POST", "body", true},
		{"PATCH with a body, nobody listens", nil, "PATCH", "body", true},
		{"GET, closed without an answer", fails, "GET", "", true},
		{"PUT without a body, closed", fails, "PUT", "", true},
		{"PUT with a body, closed", fails, "PUT", "body", false},
		{"GET with a body, closed", fails, "GET", "body", false},
		{"POST, closed", fails, "POST", "", false},
		{"POST with a body, closed", fails, "POST", "body", false},
		{"DELETE, which is not on the list, closed", fails, "DELETE", "", false},
		{"GET, 502", status(502), "GET", "", true},
		{"GET, 503", status(503), "GET", "", true},
		{"GET, 504", status(504), "GET", "", true},
		{"GET, 500", status(500), "GET", "", false},
		{"GET, 429", status(429), "GET", "", false},
		{"POST, 503", status(503), "POST", "", false},
		{"PUT with a body, 503", status(503), "PUT", "body", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t)
				if c.bad != nil {
					n.serve("10.0.0.1:80", c.bad)
				}
				var got atomic.Pointer[string]
				n.serve("10.0.0.2:80", func(w http.ResponseWriter, r *http.Request) {
					body, _ := io.ReadAll(r.Body)
					text := r.Method + string(body)
					got.Store(&text)
				})
				p := n.pool(upstream.Config{To: []string{"http://10.0.0.1", "http://10.0.0.2"}, Balance: "first", Retries: retries})
				code, _, err := send(p, c.method, c.body)
				if worked := err == nil && code == 200; worked != c.retried || (got.Load() != nil) != c.retried {
					t.Fatalf("%d, %v; the other target got %v", code, err, got.Load())
				}
				if c.retried && *got.Load() != c.method+c.body {
					t.Errorf("the other target got %q", *got.Load())
				}
				if p.Retried() != map[bool]uint64{true: 1}[c.retried] {
					t.Errorf("%d retries are counted", p.Retried())
				}
			})
		})
	}
}

func TestRetry_LetsTheLastOutcomeStand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		busy := func(w http.ResponseWriter, r *http.Request) { http.Error(w, "busy", http.StatusServiceUnavailable) }
		n.serve("10.0.0.1:80", busy)
		n.serve("10.0.0.2:80", busy)
		both := n.pool(upstream.Config{To: []string{"http://10.0.0.1", "http://10.0.0.2"}, Retries: retries})
		alone := n.pool(upstream.Config{To: []string{"http://10.0.0.1"}, Retries: retries})
		for name, p := range map[string]*upstream.Pool{"two targets": both, "one target": alone} {
			if code, body, err := send(p, "GET", ""); code != 503 || body != "busy\n" || err != nil {
				t.Errorf("%s: %d %q, %v", name, code, body, err)
			}
		}
		if both.Retried() != 1 || alone.Retried() != 0 {
			t.Errorf("%d and %d retries; a target gets no request twice", both.Retried(), alone.Retried())
		}
	})
}

func TestRetry_StaysWithinItsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t) // nobody listens
		with := retries
		with.Budget = 20
		p := n.pool(upstream.Config{To: []string{"http://10.0.0.1", "http://10.0.0.2"}, Retries: with})
		for range 500 {
			if _, _, err := send(p, "GET", ""); !errors.Is(err, upstream.ErrConnect) {
				t.Fatal(err)
			}
		}
		if r := p.Retried(); r < 100 || r > 110 {
			t.Errorf("%d retries for 500 requests; 20 %% are 100, and ten are in reserve", r)
		}
		with.Budget = 0
		none := n.pool(upstream.Config{To: []string{"http://10.0.0.1", "http://10.0.0.2"}, Retries: with})
		if _, _, err := send(none, "GET", ""); err == nil || none.Retried() != 0 {
			t.Errorf("%v, %d retries without a budget", err, none.Retried())
		}
	})
}

// brokenBody is the body of a client that breaks off.
type brokenBody struct{ failed atomic.Bool }

func (b *brokenBody) Read([]byte) (int, error) {
	b.failed.Store(true)
	return 0, errors.New("the client broke off")
}
func (b *brokenBody) Close() error { return nil }
func (b *brokenBody) Err() error {
	if b.failed.Load() {
		return errors.New("the client broke off")
	}
	return nil
}

func TestRetry_NeverMakesAClientsFaultTheTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.serve("10.0.0.1:80", says("one"))
		n.serve("10.0.0.2:80", says("two"))
		p := n.pool(upstream.Config{
			To: []string{"http://10.0.0.1", "http://10.0.0.2"}, Balance: "first", Retries: retries, Passive: upstream.Passive{Fails: 1},
		})
		for range 3 {
			r, _ := http.NewRequest(http.MethodPut, "/", &brokenBody{})
			r.ContentLength = 10
			if _, err := p.RoundTrip(r); err == nil {
				t.Fatal("no error")
			}
		}
		if s := p.Status(); s[0].Failures != 0 || s[0].State != "up" || s[1].Requests != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestRetry_GoesThroughAsManyTargetsAsItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.serve("10.0.0.4:80", says("four"))
		var to []string
		for i := range 4 {
			to = append(to, fmt.Sprintf("http://10.0.0.%d", i+1))
		}
		with := retries
		for with.Max = 1; with.Max <= 3; with.Max++ {
			_, body, err := send(n.pool(upstream.Config{To: to, Balance: "first", Retries: with}), "GET", "")
			if worked := body == "four"; worked != (with.Max == 3) {
				t.Errorf("at most %d retries: %q, %v", with.Max, body, err)
			}
		}
	})
}
