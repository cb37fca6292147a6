package devca

import (
	"maps"
	"sync"
)

// Stats counts what the CA has done since New.
type Stats struct {
	Accounts     int            // made
	Orders       map[string]int // accepted newOrder requests and, over v1, new-cert requests; by name
	Certificates int            // issued
	Validations  int            // attempts, of which
	Failures     int            // failed
	Requests     map[string]int // by endpoint: directory, newNonce, newOrder, ...; over v1 new-reg, authz, new-cert, ...
}

type counters struct {
	mu sync.Mutex
	n  Stats
}

func newCounters() *counters {
	return &counters{n: Stats{Orders: make(map[string]int), Requests: make(map[string]int)}}
}

// Stats returns a copy of the counters.
func (ca *CA) Stats() Stats {
	c := ca.stats
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.n
	n.Orders, n.Requests = maps.Clone(n.Orders), maps.Clone(n.Requests)
	return n
}

func (c *counters) do(f func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.n)
}

func (c *counters) account()                { c.do(func(n *Stats) { n.Accounts++ }) }
func (c *counters) certificate()            { c.do(func(n *Stats) { n.Certificates++ }) }
func (c *counters) request(endpoint string) { c.do(func(n *Stats) { n.Requests[endpoint]++ }) }

func (c *counters) order(names []identifier) {
	c.do(func(n *Stats) {
		for _, name := range names {
			n.Orders[name.Value]++
		}
	})
}

func (c *counters) validation(ok bool) {
	c.do(func(n *Stats) {
		n.Validations++
		if !ok {
			n.Failures++
		}
	})
}
