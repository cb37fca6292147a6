package main

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatelodge/acmeclient/devca"
)

// crowd is how many names come at once.
func crowd() int {
	if testing.Short() {
		return 30
	}
	return 300
}

// shakeAll opens a connection for each of the names at once, and returns how many were served and how long the last took.
func (l *lodge) shakeAll(names int) (served int, slowest time.Duration) {
	var all sync.WaitGroup
	var ok atomic.Int64
	began := time.Now()
	for i := range names {
		all.Go(func() {
			if _, err := l.handshake(fmt.Sprintf("n%d.test", i)); err == nil {
				ok.Add(1)
			}
		})
	}
	all.Wait()
	return int(ok.Load()), time.Since(began)
}

// unshielded takes the client's limit of unknown names away: here all clients have one address.
const unshielded = "[listen.limits]\nunknown_names_per_ip = \"0\"\n"

// Three hundred customers at once, each at a first handshake: nobody is sent away, and nothing is ordered twice.
func TestProgram_ServesThreeHundredNewNamesAtOnce(t *testing.T) {
	l := newBareLodge(t)
	orders := orderCounter{names: map[string]int{}}
	l.configure(l.startPebbleBehind(90*24*3600, orders.count), unshielded)           // of one hour, Pebble would want some renewed at once
	l.rewrite("gatelodge.toml", "[on_demand]\n", "[on_demand]\nmax_wait = \"2m\"\n") // the machine may be slow
	p := l.startProcess()
	defer p.kill()
	served, took := 0, time.Duration(0)
	for round, end := 0, time.Now().Add(2*time.Minute); served < crowd() && time.Now().Before(end); round++ { // the client of this test gives up after half a minute, a visitor would come again
		if round > 0 {
			time.Sleep(time.Second) // on a loaded machine the CA may have failed for a moment, and those who come meanwhile are sent away at once
		}
		served, took = l.shakeAll(crowd())
		t.Logf("round %d: %d of %d served in %v", round+1, served, crowd(), took)
	}
	if served < crowd() {
		t.Errorf("%d of %d names are served\n%s", served, crowd(), p.log)
	}
	for name, n := range orders.names {
		if n != 1 {
			t.Errorf("%d orders for %s", n, name)
		}
	}
}

// All certificates end while the CA is down. They come back with it, by themselves, one order each, and the CA is left alone meanwhile.
func TestProgram_NamesWhoseCertificatesEndedInAnOutageComeBackWithoutAStorm(t *testing.T) {
	const names = 20
	var down atomic.Bool
	l := newLodge(t, devca.Config{Lifetime: 20 * time.Second, Fault: func(w http.ResponseWriter, _ *http.Request, _ string) bool {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return down.Load()
	}})
	l.configure(l.ca.DirectoryURL(), unshielded)
	p := l.startProcess()
	defer p.kill()
	eventually(t, "all are served", func() bool { n, _ := l.shakeAll(names); return n == names })
	down.Store(true)
	before, began := l.ca.Stats(), time.Now()
	eventually(t, "all certificates have ended", func() bool { n, _ := l.shakeAll(names); return n == 0 })
	// Renewals that begin in the same moment all meet the outage; then there is one trial every 8 s, where every handshake would be one without the circuit.
	trials, most := l.ca.Stats().Requests["newOrder"]-before.Requests["newOrder"], names+3+int(time.Since(began)/(4*time.Second))
	if trials > most {
		t.Errorf("%d orders during %v of outage, want %d at most", trials, time.Since(began), most)
	}
	down.Store(false)
	back := l.ca.Stats()
	eventually(t, "all are served again", func() bool { n, _ := l.shakeAll(names); return n == names })
	if n := l.ca.Stats().Requests["newOrder"] - back.Requests["newOrder"]; n > 2*names { // they live so briefly that the first may be due again
		t.Errorf("%d orders for %d names after the outage", n, names)
	}
}
