package certs

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage"
)

// The simulation runs managers as they are (planner, index, membership, queue, budgets, memory, leases) against a bucket and a CA that misbehave by chance, in a
// bubble whose clock jumps. After every step it looks whether what must hold holds. What it leaves out: sockets, the CA's validation, sealed objects, damage to
// stored bytes (see damage_test.go).
//
//	SIM_SEED=x go test -run TestSimulation ./proxy/certs    one seed again
//	FULL=1 go test -run TestSimulation ./proxy/certs        more seeds, more names
//	SIM_NAMES=n SIM_DAYS=d SIM_BEAT=seconds                   another size of the simulation of many names

// simListed bounds the names that a site lists; others are obtained on demand.
const simListed = 1000

// When names are given up.
const (
	simIdle   = 30 * 24 * time.Hour
	simDenied = 7 * 24 * time.Hour
)

// simPlan is what a simulation is like.
type simPlan struct {
	names, nodes, days int
	beat, step, retry  time.Duration // of the membership; between checks; that the CA says before the next question
	accidents          bool          // processes die, stand still, come and go
	visits             int           // in a step
	memory             int64         // of each process, for certificates
	lives              []time.Duration
	orders             Limit
}

// simWorld is one run.
type simWorld struct {
	simPlan
	t     *testing.T
	dice  *dice
	store *simStore
	ca    *simCA
	begin time.Time
	all   []string
	index map[string]int

	running  []*simNode
	accident time.Time // the last one

	mu     sync.Mutex // guards what follows
	faults []string
	latest map[string]time.Time // the end of the newest certificate of a name
}

// simNode is a process.
type simNode struct {
	w      *simWorld
	wire   *simWire
	shared *storage.Shared
	m      *Manager
	woke   time.Time // the end of the last time that it stood still
	still  bool
}

// stood reports whether the process stands still, did so a moment ago, or is dead: what it sends is out of date, and it cannot know.
func (n *simNode) stood(now time.Time) bool {
	return n.wire.dead.Load() || n.still || now.Sub(n.woke) < 5*time.Minute
}

// violated notes that something does not hold.
func (w *simWorld) violated(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) < 20 {
		w.faults = append(w.faults, fmt.Sprintf("day %.2f: ", time.Since(w.begin).Hours()/24)+fmt.Sprintf(format, args...))
	}
}

// issued notes that the CA has made a certificate.
func (w *simWorld) issued(name string, end time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latest[name] = latest(w.latest[name], end)
}

func (w *simWorld) broken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.faults) > 0
}

// modern reports whether the CA speaks the new protocol by now.
func (w *simWorld) modern() bool {
	return time.Since(w.begin) > time.Duration(w.days)*24*time.Hour/6
}

// wave is when the CA announces that it revokes half of what it has issued.
func (w *simWorld) wave() time.Time { return w.begin.Add(time.Duration(w.days) * 24 * time.Hour / 2) }

func (w *simWorld) revoked(leaf *simLeaf, now time.Time) bool {
	return !now.Before(w.wave()) && leaf.begins.Before(w.wave()) && w.dice.fixed("wave", leaf.name) < 0.5
}

// outage reports whether the CA is down: for three hours, once in a fortnight or so.
func (w *simWorld) outage(ca string, now time.Time) bool {
	slot := now.Sub(w.begin) / (6 * time.Hour)
	return w.dice.fixed("outage", ca, strconv.Itoa(int(slot))) < 0.02 && now.Sub(w.begin)%(6*time.Hour) < 3*time.Hour
}

// bad reports whether the name's owner has broken something: for a day now and then, and only where certificates live long enough to bear it.
func (w *simWorld) bad(name string, now time.Time) bool {
	day := int(now.Sub(w.begin) / (24 * time.Hour))
	return w.life(name) > 20*24*time.Hour && w.dice.fixed("bad", name) < 0.2 && w.dice.fixed("bad", name, strconv.Itoa(day)) < 0.5
}

func (w *simWorld) life(name string) time.Duration {
	return w.lives[w.index[name]%len(w.lives)]
}

// shaken reports whether a process has died or stood still since then: what it had heard may be lost.
func (w *simWorld) shaken(since, now time.Time) bool {
	return w.accident.After(since.Add(-time.Hour)) || w.dice.weather("store", w.begin, since) > 0 || w.dice.weather("store", w.begin, now) > 0
}

// leaves says how a customer leaves, and when: nobody visits the name any more, or it is no longer permitted.
func (w *simWorld) leaves(name string) (how string, at time.Time) {
	i := w.index[name]
	switch at = w.begin.Add(time.Duration(w.days) * 6 * time.Hour); {
	case i < min(len(w.all)/2, simListed):
	case i%10 == 7:
		return "idle", at
	case i%10 == 8:
		return "denied", at
	}
	return "", at
}

// unwanted says why nobody may order for the name; empty if somebody may.
func (w *simWorld) unwanted(name string, now time.Time) string {
	how, at := w.leaves(name)
	late := map[string]time.Duration{"idle": simIdle + 3*24*time.Hour, "denied": simDenied + 3*24*time.Hour}
	if how == "" || now.Before(at.Add(late[how])) {
		return ""
	}
	return how
}

// permit is the gate of on-demand names.
func (w *simWorld) permit(name string) error {
	if how, at := w.leaves(name); how == "denied" && time.Now().After(at) {
		return ErrDenied
	}
	return nil
}

// simulate runs a world to its end.
func simulate(t *testing.T, seed string, plan simPlan) {
	synctest.Test(t, func(t *testing.T) {
		w := &simWorld{simPlan: plan, t: t, dice: newDice(seed), begin: time.Now(), index: map[string]int{}, latest: map[string]time.Time{}}
		w.store = &simStore{inner: storage.NewMemory(), dice: w.dice, begin: w.begin}
		w.ca = newSimCA(w, "sim")
		for i := range plan.names {
			w.all = append(w.all, fmt.Sprintf("n%d.customer%d.example", i, i/10))
			w.index[w.all[i]] = i
		}
		for range plan.nodes {
			w.join()
		}
		end := w.begin.Add(time.Duration(plan.days) * 24 * time.Hour)
		for step := 0; time.Now().Before(end) && !w.broken(); step++ {
			time.Sleep(w.step)
			if w.accidents {
				w.mishaps(step)
			}
			for i := range w.visits {
				w.visit(step, i)
			}
			w.check()
		}
		for _, n := range w.running {
			n.wake()
			n.m.Close()
			n.shared.Close()
		}
		w.report(seed)
	})
}

// join starts a process.
func (w *simWorld) join() {
	n := &simNode{w: w, wire: &simWire{simStore: w.store}}
	var err error
	if n.shared, err = storage.NewShared(n.wire, storage.LeaseTimes{}, nil); err != nil {
		w.t.Fatal(err)
	}
	listed := w.all[:min(len(w.all)/2, simListed)]
	set := Settings{
		Lookup:     func(string) (Policy, bool) { return Policy{Site: "*", OnDemand: true}, true },
		Listed:     listed,
		CAs:        []CA{{Issuer: &simIssuer{w.ca, n}}},
		Permission: &gate{allow: w.permit},
		ARI:        true,
		Spread:     true,
		Abandon:    Abandon{Idle: simIdle, Denied: simDenied},
		CacheBytes: w.memory,
		Budget:     Budget{Orders: w.orders, Reserve: 0.3},
	}
	if n.m, err = New(Config{Store: n.shared, Logger: quiet(), Beat: w.beat}, set); err != nil {
		w.t.Fatal(err)
	}
	if err := n.m.Start(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	w.running = append(w.running, n)
}

func (n *simNode) wake() {
	if p := n.wire.pause.Swap(nil); p != nil {
		close(*p)
		n.still, n.woke = false, time.Now()
	}
}

// mishaps lets processes die, be restarted, stand still, come and go.
func (w *simWorld) mishaps(step int) {
	perDay := float64(w.step) / float64(24*time.Hour)
	for i := len(w.running) - 1; i >= 0; i-- {
		n, now := w.running[i], time.Now()
		if n.still {
			n.wake()
			continue
		}
		switch x := w.dice.fixed("mishap", strconv.Itoa(step), strconv.Itoa(i)) / perDay; {
		case x < 0.03: // kill -9, and a restart by its supervisor
			w.accident = now
			n.wire.dead.Store(true)
			n.end()
			w.running = append(w.running[:i], w.running[i+1:]...)
			w.join()
		case x < 0.06: // a restart as it should be
			n.end()
			w.running = append(w.running[:i], w.running[i+1:]...)
			w.join()
		case x < 0.10:
			w.accident = now
			still := make(chan struct{})
			n.still = true
			n.wire.pause.Store(&still)
		case x < 0.12 && len(w.running) < 2*w.nodes:
			w.join()
		case x < 0.14 && len(w.running) > w.nodes:
			n.end()
			w.running = append(w.running[:i], w.running[i+1:]...)
		}
	}
}

func (n *simNode) end() {
	n.m.Close()
	n.shared.Close()
}

// visit is a handshake somewhere.
func (w *simWorld) visit(step, i int) {
	u := w.dice.fixed("visitor", strconv.Itoa(step), strconv.Itoa(i))
	name := w.all[int(float64(len(w.all))*u*u*u)]
	n := w.running[int(w.dice.fixed("node", strconv.Itoa(step), strconv.Itoa(i))*float64(len(w.running)))]
	if how, at := w.leaves(name); n.still || how == "idle" && time.Now().After(at) {
		return
	}
	began := time.Now()
	cert, err := n.m.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
	if took := time.Since(began); took > 21*time.Second {
		w.violated("a handshake for %s took %s", name, took)
	}
	switch {
	case cert != nil && !time.Now().Before(cert.Leaf.NotAfter):
		w.violated("%s is served with a certificate that ended at %s", name, cert.Leaf.NotAfter)
	case cert == nil && err == nil && w.permit(name) == nil:
		w.violated("%s is refused without a reason", name)
	}
}

// check looks at what must always hold.
func (w *simWorld) check() {
	now := time.Now()
	w.mu.Lock()
	var ended []string
	for _, name := range w.all {
		if end, issued := w.latest[name]; issued && !now.Before(end) && w.unwanted(name, now) == "" {
			ended = append(ended, name)
		}
	}
	w.mu.Unlock()
	for _, name := range ended {
		n := w.running[0]
		s, err := n.m.Status(context.Background(), name)
		w.violated("the certificate of %s has ended; status %+v, %v", name, s, err)
	}
	for i, n := range w.running {
		if got := n.m.cache.bytes(); got > w.memory {
			w.violated("process %d has %d bytes of certificates, allowed are %d", i, got, w.memory)
		}
		if got := n.m.planner.size(); got > len(w.all) {
			w.violated("process %d plans %d names of %d", i, got, len(w.all))
		}
	}
	if w.store.lists.Load() > 0 {
		w.violated("storage was listed")
	}
}

// report says what the run cost, or what did not hold.
func (w *simWorld) report(seed string) {
	ran := time.Since(w.begin)
	days := ran.Hours() / 24
	if w.orders.Count > 0 {
		if got := w.ca.busiest(w.orders.Per); got > w.orders.Count {
			w.violated("%d orders in %s, allowed are %d", got, w.orders.Per, w.orders.Count)
		}
	}
	for _, name := range w.all {
		// An answer that got lost at the end is fetched by the next process: the CA knows the request.
		if end, issued := w.latest[name]; issued && !w.broken() && time.Since(end.Add(-w.life(name))) > 24*time.Hour {
			if b := w.store.stored(name); b == nil {
				w.violated("the certificate of %s was issued and is not stored", name)
			}
		}
	}
	worst, mean := w.ca.hours(w.begin.Add(ran/10), w.wave())
	w.t.Logf("seed %s: %d names, %d processes, %.0f days: %d orders, busiest hour %d, mean %.1f (before the wave); %d questions about renewal; storage requests a day: %.0f index, %.0f beats, %.0f others",
		seed, len(w.all), w.nodes, days, len(w.ca.orders), worst, mean, w.ca.polls,
		float64(w.store.index.Load())/days, float64(w.store.beats.Load())/days, float64(w.store.other.Load())/days)
	if len(w.faults) > 0 {
		w.t.Errorf("seed %s:\n%s\nagain: SIM_SEED=%s go test -run '%s' ./proxy/certs", seed, strings.Join(w.faults, "\n"), seed, w.t.Name())
	}
}

// simSeeds are those to run.
func simSeeds(n int) []string {
	if seed := os.Getenv("SIM_SEED"); seed != "" {
		return []string{seed}
	}
	if os.Getenv("FULL") != "" {
		n *= 10
	}
	var seeds []string
	for i := range n {
		seeds = append(seeds, strconv.Itoa(i+1))
	}
	return seeds
}

func simNumber(env string, usual int) int {
	if n, err := strconv.Atoi(os.Getenv(env)); err == nil {
		return n
	}
	return usual
}

func TestSimulation_AYearOfFiftyNames(t *testing.T) {
	const day = 24 * time.Hour
	days, seeds := 365, 2
	if testing.Short() {
		days, seeds = 20, 1 // for the race detector
	}
	for _, seed := range simSeeds(seeds) {
		t.Run("seed "+seed, func(t *testing.T) {
			t.Parallel()
			simulate(t, seed, simPlan{
				names: 50, nodes: 3, days: simNumber("SIM_DAYS", days), beat: 30 * time.Minute, step: time.Hour, retry: 12 * time.Hour, accidents: true, visits: 5, memory: 24 << 10,
				lives:  []time.Duration{90 * day, 90 * day, 64 * day, 45 * day, 90 * day, 64 * day, 45 * day, 90 * day, 160 * time.Hour, 24 * time.Hour},
				orders: Limit{24, 3 * time.Hour},
			})
		})
	}
}

func TestSimulation_ManyNamesForAQuarter(t *testing.T) {
	t.Parallel()
	names, days := 1000, 90
	if testing.Short() {
		names, days = 100, 10
	}
	if os.Getenv("FULL") != "" {
		names = 50000
	}
	const day = 24 * time.Hour
	for _, seed := range simSeeds(1)[:1] {
		simulate(t, seed, simPlan{
			names: simNumber("SIM_NAMES", names), nodes: 3, days: simNumber("SIM_DAYS", days), beat: time.Duration(simNumber("SIM_BEAT", 600)) * time.Second, step: 6 * time.Hour, retry: 24 * time.Hour, visits: 200, memory: 1 << 20,
			lives: []time.Duration{90 * day}, orders: Limit{},
		})
	}
}
