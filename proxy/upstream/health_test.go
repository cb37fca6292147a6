package upstream_test

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/proxy/upstream"
)

// health are those of the configuration's defaults, with a path.
var health = upstream.Health{Path: "/up", Every: 5 * time.Second, Timeout: 2 * time.Second, Rise: 2, Fall: 3}

// probed is a target whose probes are answered with a status that can be changed.
type probed struct {
	status atomic.Int32
	probes atomic.Int32
}

func (p *probed) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/up" {
		_, _ = io.WriteString(w, "app")
		return
	}
	p.probes.Add(1)
	if p.status.Load() == 0 {
		<-r.Context().Done() // until who asks has given up
	} else {
		w.WriteHeader(int(p.status.Load()))
	}
}

func TestHealth_TakesTargetsOutAndBringsThemBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		var a, b probed
		a.status.Store(503)
		b.status.Store(204)
		n.serve("10.0.0.1:80", a.serve)
		n.serve("10.0.0.2:80", b.serve)
		p := n.pool(upstream.Config{To: []string{"http://10.0.0.1", "http://10.0.0.2"}, Balance: "first", Health: health})
		synctest.Wait()
		must(t, "the first probe decides alone", p, "down", "up")
		const round = 5300 * time.Millisecond // 5 s, and up to 5 % that no two pools have in common

		a.status.Store(302)
		time.Sleep(round)
		must(t, "after one good probe", p, "down", "up")
		time.Sleep(round)
		must(t, "after two", p, "up", "up")

		a.status.Store(500)
		time.Sleep(2 * round)
		must(t, "after two bad ones", p, "up", "up")
		a.status.Store(200)
		time.Sleep(round)
		a.status.Store(0) // no answer in time
		time.Sleep(2 * round)
		must(t, "after two bad ones again", p, "up", "up")
		time.Sleep(round + 2*time.Second)
		must(t, "after three", p, "down", "up")
		if s := p.Status()[0]; s.LastError == "" {
			t.Errorf("%+v", s)
		}
	})
}

func TestHealth_AnswersAtOnceWhenNothingIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		var a probed
		a.status.Store(503)
		n.serve("10.0.0.1:80", a.serve)
		p := n.pool(upstream.Config{To: []string{"http://10.0.0.1", "http://10.0.0.2"}, Health: health, MaxConns: 1, Queue: upstream.Queue{Max: 1, Wait: time.Hour}})
		synctest.Wait()
		start := time.Now()
		if _, _, err := send(p, "GET", ""); !errors.Is(err, upstream.ErrUnavailable) || time.Since(start) != 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		a.status.Store(200)
		time.Sleep(11 * time.Second)
		if _, body, err := send(p, "GET", ""); body != "app" {
			t.Errorf("%q, %v", body, err)
		}
	})
}

func TestHealth_EndsWithThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		var a probed
		a.status.Store(200)
		n.serve("10.0.0.1:80", a.serve)
		p := n.pool(upstream.Config{To: []string{"http://10.0.0.1"}, Health: health})
		p.Start() // once is enough
		time.Sleep(time.Minute)
		_ = p.Close()
		probes := a.probes.Load()
		if probes < 11 || probes > 13 {
			t.Errorf("%d probes in a minute", probes)
		}
		time.Sleep(time.Minute)
		if a.probes.Load() != probes {
			t.Error("it went on")
		}
		p.Start()
		synctest.Wait()
		if a.probes.Load() != probes {
			t.Error("it began again")
		}
	})
}
