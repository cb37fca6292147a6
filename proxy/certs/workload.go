package certs

import "gatelodge/proxy/certs/budget"

// Workload is what a Manager has to do just now, for metrics.
type Workload struct {
	Queued  int // orders that wait for a place
	Running int // orders that have one
	Parked  int // orders that wait for a CA that fails

	// Withheld are the names that wait for a budget, by what the configuration calls it.
	Withheld map[string]int

	// Allowed and Denied are the names of which it is remembered what the permission said.
	Allowed, Denied int
}

// A rememberingPermission can tell how many names it remembers.
type rememberingPermission interface {
	Remembered() (allowed, denied int)
}

// Workload counts what there is to do. It looks at every order, and is for whoever asks a few times a minute.
func (m *Manager) Workload() Workload {
	w := Workload{Withheld: map[string]int{budgetOrders: 0, budgetDomain: 0, budgetTenant: 0}}
	m.withheld.Each(func(_ string, e *budget.Error) { w.Withheld[e.Budget]++ })
	m.queue.count(&w)
	if p, ok := m.rules.Load().Permission.(rememberingPermission); ok {
		w.Allowed, w.Denied = p.Remembered()
	}
	return w
}

// count adds the orders.
func (q *queue) count(w *Workload) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, o := range q.orders {
		switch {
		case o.state == orderQueued:
			w.Queued++
		case o.state == orderRunning:
			w.Running++
		case o.withheld != nil:
			w.Withheld[o.withheld.Budget]++
		default:
			w.Parked++
		}
	}
}
