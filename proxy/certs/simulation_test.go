package certs

import (
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/proxy/certs/permission"
	"gatelodge/storage"
)

// The simulation runs managers as they are (planner, index, membership, queue, budgets, memory, leases) against a bucket and a CA that misbehave by chance, in a
// bubble whose clock jumps. After every step it looks whether what must hold holds (simcheck_test.go). What it leaves out: sockets, the CA's validation, signatures
// of the CA, sealed objects, damage to stored bytes (see damage_test.go).
//
//	SIM_SEED=x go test -run TestSimulation ./proxy/certs    one seed again
//	FULL=1 go test -run TestSimulation ./proxy/certs        more seeds
//
// Another size of the simulation of many names, such as a million for a year, whose CA says when to ask again after so many hours:
//
//	SIM_NAMES=1000000 SIM_DAYS=365 SIM_NODES=3 SIM_BEAT=60 SIM_UPGRADE=0 SIM_LIFE=90 GOMEMLIMIT=7GiB go test -run TestSimulation_Many -timeout 0 -v ./proxy/certs

// simListed bounds the names that a site lists; others are obtained on demand.
const simListed = 1000

// simDenied is when names are given up whose permission was taken back.
const simDenied = 7 * 24 * time.Hour

// simPlan is what a simulation is like.
type simPlan struct {
	names, nodes      int
	length            time.Duration
	beat, step, retry time.Duration // of the membership; between checks; that the CA says before the next question
	accidents         bool          // processes die, stand still, come and go
	old               bool          // every name has a certificate already
	upgrade, revokes  time.Duration // when the CA learns the new protocol; when it announces that it revokes some of what it has issued
	revoked           float64       // what part of it
	bad               float64       // the part of the names whose owners break something now and then
	visits, looks     int           // in a step: handshakes; names that are looked at
	idle              time.Duration // see Abandon
	memory            int64         // of each process, for certificates
	lives             []time.Duration

	orders, domain, failures Limit
}

// simWorld is one run.
type simWorld struct {
	simPlan
	t     *testing.T
	dice  *dice
	store *simStore
	ca    *simCA
	begin time.Time
	names []*simName

	running  []*simNode
	joined   int
	accident simTime // the last one

	yesterday simCosts // see daily

	mu       sync.Mutex      // guards what follows, the CA and what is in names
	ends     map[int][]int32 // names by the hour in which a certificate of theirs ends
	looked   int             // the next of these hours
	hindered time.Time       // until then something keeps orders back

	faulting sync.Mutex // guards faults
	faults   []string
}

// simName is what the world knows of a name.
type simName struct {
	name   string
	number int

	leaf, before *simLeaf  // what the CA has made last
	request      uint64    // what leaf was made for
	kept         time.Time // when storage took a certificate last

	open     *simNode  // who orders for it
	fence    uint64    // of the lease of the last order
	placed   int       // orders under it
	orders   simTimes  // of a day
	failed   time.Time // at validation
	row      int       // how often, since the CA issued something
	failures simTimes
	held     simHold
	hindered time.Time // until then something keeps it from being renewed
}

// simNode is a process.
type simNode struct {
	w      *simWorld
	wire   *simWire
	shared *storage.Shared
	m      *Manager
	began  time.Time
	woke   simTime // the end of the last time that it stood still
	still  atomic.Bool

	held    simHold         // of the account
	domains map[int]simHold // of registered domains
}

func simNameOf(number int) string { return fmt.Sprintf("n%d.customer%d.example", number, number/10) }

// simNumberOf is the reverse of simNameOf; below zero for other names.
func simNumberOf(name string) int {
	digits, _, _ := strings.Cut(strings.TrimPrefix(name, "n"), ".")
	if n, err := strconv.Atoi(digits); err == nil {
		return n
	}
	return -1
}

func (n *simName) customer() int { return n.number / 10 }

func (w *simWorld) called(name string) *simName { return w.names[simNumberOf(name)] }

// siblings are the names below the same registered domain.
func (w *simWorld) siblings(n *simName) []*simName {
	first := n.customer() * 10
	return w.names[first:min(first+10, len(w.names))]
}

// listed is how many names, the first ones, a site lists.
func (w *simWorld) listed() int { return min(w.simPlan.names/2, simListed) }

// simTime is a time that goroutines of the processes read while the world sets it.
type simTime struct{ nanos atomic.Int64 }

func (t *simTime) set(at time.Time) { t.nanos.Store(at.UnixNano()) }

// get returns the zero time if none was set.
func (t *simTime) get() time.Time {
	if n := t.nanos.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// stood reports whether the process stands still, did so a moment ago, or is dead: what it sends is out of date, and it cannot know.
func (n *simNode) stood(now time.Time) bool {
	return n.wire.dead.Load() || n.still.Load() || now.Sub(n.woke.get()) < 5*time.Minute
}

// modern reports whether the CA speaks the new protocol by now.
func (w *simWorld) modern() bool {
	return time.Since(w.begin) >= w.upgrade
}

// wave is when the CA announces that it revokes some of what it has issued.
func (w *simWorld) wave() time.Time { return w.begin.Add(w.revokes) }

func (w *simWorld) revoked(n *simName, leaf *simLeaf, now time.Time) bool {
	return !now.Before(w.wave()) && leaf.begins.Before(w.wave()) && w.dice.fixed("wave", n.name) < w.simPlan.revoked
}

// outage reports whether the CA is down: for three hours, once in a fortnight or so.
func (w *simWorld) outage(ca string, now time.Time) bool {
	slot := now.Sub(w.begin) / (6 * time.Hour)
	return now.Sub(w.begin)%(6*time.Hour) < 3*time.Hour && w.dice.fixed("outage", ca, strconv.Itoa(int(slot))) < 0.02
}

// bad reports whether the name's owner has broken something: for a day now and then, and only where certificates live long enough to bear it.
func (w *simWorld) bad(n *simName, now time.Time) bool {
	day := int(now.Sub(w.begin) / (24 * time.Hour))
	return w.life(n) > 20*24*time.Hour && w.dice.fixed("bad", n.name) < w.simPlan.bad && w.dice.fixed("bad", n.name, strconv.Itoa(day)) < 0.5
}

func (w *simWorld) life(n *simName) time.Duration { return w.lives[n.number%len(w.lives)] }

// shaken reports whether a process has died or stood still since then: what it had heard may be lost.
func (w *simWorld) shaken(since, now time.Time) bool {
	return w.accident.get().After(since.Add(-time.Hour)) || w.dice.weather("store", w.begin, since) > 0 || w.dice.weather("store", w.begin, now) > 0
}

// calm reports whether storage did what it was asked, from the day of one time to that of the other.
func (w *simWorld) calm(from, to time.Time) bool {
	for at := from; at.Before(to.Add(24 * time.Hour)); at = at.Add(24 * time.Hour) {
		if w.dice.weather("store", w.begin, at) > 0 {
			return false
		}
	}
	return true
}

// leaves says how a customer leaves, and when: nobody visits the name any more, or it is no longer permitted.
func (w *simWorld) leaves(n *simName) (how string, at time.Time) {
	switch at = w.begin.Add(w.length / 4); {
	case n.number < w.listed():
	case n.number%10 == 7 && w.idle > 0:
		return "idle", at
	case n.number%10 == 8:
		return "denied", at
	}
	return "", at
}

// unwanted says why nobody may order for the name; empty if somebody may.
func (w *simWorld) unwanted(n *simName, now time.Time) string {
	switch how, at := w.leaves(n); {
	case how == "idle" && now.After(at.Add(w.idle+3*24*time.Hour)), how == "denied" && now.After(at.Add(simDenied+3*24*time.Hour)):
		return how
	}
	return ""
}

// givenUp reports whether the name may have been given up by now, which is before it must have been: its last visitor may have come long before there were no more.
func (w *simWorld) givenUp(n *simName, now time.Time) bool {
	how, at := w.leaves(n)
	return how == "idle" && now.After(at.Add(w.idle-10*24*time.Hour)) || how == "denied" && now.After(at.Add(simDenied))
}

// simGate is a Permission.
type simGate func(ctx context.Context, name string, client netip.Addr) error

func (g simGate) Allow(ctx context.Context, name string, client netip.Addr) error {
	return g(ctx, name, client)
}

// permit is the gate of on-demand names.
func (w *simWorld) permit(_ context.Context, name string, _ netip.Addr) error {
	if how, at := w.leaves(w.called(name)); how == "denied" && time.Now().After(at) {
		return permission.ErrDenied
	}
	return nil
}

// simulate runs a world to its end.
func simulate(t *testing.T, seed string, plan simPlan) {
	synctest.Test(t, func(t *testing.T) {
		w := &simWorld{simPlan: plan, t: t, dice: newDice(seed, plan.names > simListed), begin: time.Now(), ends: map[int][]int32{}}
		w.store = &simStore{inner: storage.NewMemory(), w: w}
		w.ca = newSimCA(w, "sim")
		for i := range plan.names {
			w.names = append(w.names, &simName{name: simNameOf(i), number: i})
		}
		if plan.old {
			w.furnish()
		}
		for range plan.nodes {
			w.join()
		}
		end := w.begin.Add(plan.length)
		for step := 0; time.Now().Before(end) && !w.broken(); step++ {
			time.Sleep(w.step)
			if w.accidents {
				w.mishaps(step)
			}
			for i := range w.visits {
				w.visit(step, i)
			}
			w.check(step)
			w.daily(time.Now())
		}
		for _, n := range w.running {
			n.wake()
			n.end()
		}
		w.report(seed)
	})
}

// join starts a process.
func (w *simWorld) join() {
	n := &simNode{w: w, wire: &simWire{simStore: w.store}, began: time.Now(), domains: map[int]simHold{}}
	var err error
	if n.shared, err = storage.NewShared(n.wire, storage.LeaseTimes{}, nil); err != nil {
		w.t.Fatal(err)
	}
	set := Settings{
		Lookup:     func(string) (Policy, bool) { return Policy{Site: "*", OnDemand: true}, true },
		CAs:        []CA{{Issuer: &simIssuer{w.ca, n}}},
		Permission: simGate(w.permit),
		ARI:        true,
		Spread:     true,
		Abandon:    Abandon{Idle: w.idle, Denied: simDenied},
		CacheBytes: w.memory,
		Budget:     Budget{Orders: w.orders, Domain: w.domain, Failures: w.failures, Reserve: 0.3},
	}
	for _, name := range w.names[:w.listed()] {
		set.Listed = append(set.Listed, name.name)
	}
	if n.m, err = New(Config{Store: n.shared, Logger: quiet(), Beat: w.beat}, set); err != nil {
		w.t.Fatal(err)
	}
	w.joined++
	n.m.members.self = "process " + strconv.Itoa(w.joined) // who has which share follows from the seed
	n.m.index.self = n.m.members.self
	if err := n.m.Start(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	w.running = append(w.running, n)
}

func (n *simNode) wake() {
	if p := n.wire.pause.Swap(nil); p != nil {
		close(*p)
		n.woke.set(time.Now())
		n.still.Store(false)
	}
}

func (n *simNode) end() {
	n.m.Close()
	n.shared.Close()
}

// mishaps lets processes die, be restarted, stand still, come and go.
func (w *simWorld) mishaps(step int) {
	perDay := float64(w.step) / float64(24*time.Hour)
	for i := len(w.running) - 1; i >= 0; i-- {
		n, now := w.running[i], time.Now()
		if n.still.Load() {
			n.wake()
			continue
		}
		switch x := w.dice.fixed("mishap", strconv.Itoa(step), strconv.Itoa(i)) / perDay; {
		case x < 0.03: // kill -9, and a restart by its supervisor
			w.accident.set(now)
			n.wire.dead.Store(true)
			n.end()
			w.running = append(w.running[:i], w.running[i+1:]...)
			w.join()
		case x < 0.06: // a restart as it should be
			n.end()
			w.running = append(w.running[:i], w.running[i+1:]...)
			w.join()
		case x < 0.10:
			w.accident.set(now)
			still := make(chan struct{})
			n.still.Store(true)
			n.wire.pause.Store(&still)
		case x < 0.12 && len(w.running) < 2*w.nodes:
			w.join()
		case x < 0.14 && len(w.running) > w.nodes:
			n.end()
			w.running = append(w.running[:i], w.running[i+1:]...)
		}
	}
}

// visit is a handshake somewhere. Names are visited by Zipf's law: the second half as often as the first, the third a third.
func (w *simWorld) visit(step, i int) {
	u := w.dice.fixed("visitor", strconv.Itoa(step), strconv.Itoa(i))
	n := w.names[int(math.Pow(float64(len(w.names)+1), u))-1]
	node := w.running[int(w.dice.fixed("node", strconv.Itoa(step), strconv.Itoa(i))*float64(len(w.running)))]
	if how, at := w.leaves(n); node.still.Load() || how == "idle" && time.Now().After(at) {
		return
	}
	began := time.Now()
	cert, err := node.m.GetCertificate(&tls.ClientHelloInfo{ServerName: n.name})
	w.served(node, n, cert, err, time.Since(began))
}

// simCosts are what was counted until some moment.
type simCosts struct {
	orders, polls int
	calls         [simKinds]int64
}

// daily says what the day has cost that is over, of a world that takes so long that somebody waits.
func (w *simWorld) daily(now time.Time) {
	if w.simPlan.names < 200_000 || now.Sub(w.begin)%(24*time.Hour) >= w.step {
		return
	}
	w.mu.Lock()
	is, was := simCosts{orders: w.ca.orders, polls: w.ca.polls}, w.yesterday
	worst, mean := w.ca.worst(now.Add(-24*time.Hour), now)
	w.mu.Unlock()
	for kind := range is.calls {
		is.calls[kind] = w.store.calls[kind].Load()
	}
	w.yesterday = is
	calls := func(kind int) int64 { return is.calls[kind] - was.calls[kind] }
	w.t.Logf("day %.2f: %d orders, %d questions; storage: %d index, %d beats, %d certificates, %d leases, %d others; busiest hour %d, mean %.1f", now.Sub(w.begin).Hours()/24,
		is.orders-was.orders, is.polls-was.polls, calls(simIndex), calls(simBeats), calls(simCerts), calls(simLeases), calls(simOther), worst, mean)
}

// report says what the run cost, or what did not hold.
func (w *simWorld) report(seed string) {
	ran := time.Since(w.begin)
	days := ran.Hours() / 24
	if !w.broken() {
		w.finally()
	}
	steady := w.begin.Add(ran) // until something happens to many at once
	for _, at := range []time.Duration{w.upgrade, w.revokes} {
		if at > 0 {
			steady = earliest(steady, w.begin.Add(at))
		}
	}
	worst, mean := w.ca.worst(w.begin.Add(ran/10), steady)
	if w.old && float64(worst) > 3*mean+levelSmall && !w.broken() {
		w.violated("%d orders in the worst hour, %.1f in the mean", worst, mean)
	}
	perDay := func(kind int) float64 { return float64(w.store.calls[kind].Load()) / days }
	w.t.Logf("seed %s: %d names, %d processes, %.0f days: %d orders, busiest hour %d, mean %.1f (before the CA changes anything); %d questions about renewal; storage requests a day: %.0f index, %.0f beats, %.0f certificates, %.0f leases, %.0f others",
		seed, len(w.names), w.nodes, days, w.ca.orders, worst, mean, w.ca.polls, perDay(simIndex), perDay(simBeats), perDay(simCerts), perDay(simLeases), perDay(simOther))
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
	t.Parallel()
	const day = 24 * time.Hour
	days, seeds := 365, 3
	if testing.Short() {
		days, seeds = 20, 1 // for the race detector
	}
	length := time.Duration(simNumber("SIM_DAYS", days)) * day
	for _, seed := range simSeeds(seeds) {
		t.Run("seed "+seed, func(t *testing.T) {
			t.Parallel()
			simulate(t, seed, simPlan{
				names: 50, nodes: 3, length: length, upgrade: length / 6, revokes: length / 2, revoked: 0.5, bad: 0.2,
				beat: 30 * time.Minute, step: 2 * time.Hour, retry: 24 * time.Hour, accidents: true, visits: 6, looks: 4,
				idle: 30 * day, memory: 12 << 10,
				lives:  []time.Duration{90 * day, 90 * day, 64 * day, 45 * day, 90 * day, 64 * day, 45 * day, 90 * day, 160 * time.Hour, 24 * time.Hour},
				orders: Limit{Count: 24, Per: 3 * time.Hour}, domain: Limit{Count: 8, Per: day}, failures: Limit{Count: 4, Per: day},
			})
		})
	}
}

func TestSimulation_ManyNamesForAQuarter(t *testing.T) {
	const day = 24 * time.Hour
	t.Parallel()
	names, days := 50_000, 90
	if testing.Short() {
		names, days = 500, 20
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	length, long := time.Duration(simNumber("SIM_DAYS", days))*day, time.Duration(simNumber("SIM_LIFE", 200))*day // the longest that public CAs may give since 2026
	for _, seed := range simSeeds(1)[:1] {
		simulate(t, seed, simPlan{
			names: simNumber("SIM_NAMES", names), nodes: simNumber("SIM_NODES", 1), length: length, upgrade: length * time.Duration(simNumber("SIM_UPGRADE", 97)) / 100, revokes: length * time.Duration(simNumber("SIM_REVOKES", 98)) / 100, revoked: 0.05, bad: 0.05,
			beat: time.Duration(simNumber("SIM_BEAT", 600)) * time.Second, step: 6 * time.Hour,
			retry: time.Duration(simNumber("SIM_RETRY", 24)) * time.Hour, old: true, visits: 100, looks: 20, memory: 1 << 20,
			lives: []time.Duration{90 * day, long, long, long, long},
		})
	}
}
