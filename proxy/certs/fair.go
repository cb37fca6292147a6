package certs

import (
	"cmp"
	"container/heap"
	"slices"
)

// fairQueue holds the new names that wait for a place, and says whose turn it is: tenants take turns, however many names each of them brings (start-time
// fair queueing). Every order gets a tag when it comes first: one step after the last one of its tenant, but not before the order that was taken last. The
// smallest tag goes first. So a tenant's first name waits for one name of each other tenant at most, and an order that had to
// come back keeps its turn. The queue's mutex guards it.
type fairQueue struct {
	orders orderHeap
	taken  float64 // tag of the last order that was taken
	count  uint64  // orders that got a tag: among equals who came first goes first
	lanes  map[string]*lane
}

// lane is a tenant with orders.
type lane struct {
	tag    float64 // of its last order
	orders int     // of all kinds and states
}

// stepUnvisited is what a name counts that nobody waits for, in names that somebody waits for: a list of a thousand names is no hurry.
const stepUnvisited = 4

func newFairQueue() *fairQueue { return &fairQueue{lanes: map[string]*lane{}} }

// enter counts a new order to its tenant. It reports false if there is no room: a tenant may take as many places as are left free, so that there always are
// some for others.
func (f *fairQueue) enter(tenant string, all int) bool {
	l := f.lanes[tenant]
	switch {
	case all >= maxOrders || l != nil && l.orders >= maxOrders-all:
		return false
	case l == nil:
		l = &lane{}
		f.lanes[tenant] = l
	}
	l.orders++
	return true
}

// leave is the end of an order.
func (f *fairQueue) leave(tenant string) {
	if l := f.lanes[tenant]; l != nil {
		if l.orders--; l.orders <= 0 {
			delete(f.lanes, tenant)
		}
	}
}

// push lets the order wait.
func (f *fairQueue) push(o *order) {
	if o.seq == 0 {
		step := 1.0
		if o.wanted.IsZero() {
			step = stepUnvisited
		}
		f.count++
		o.seq, o.tag = f.count, f.taken+step
		if l := f.lanes[o.tenant]; l != nil {
			o.tag = max(f.taken, l.tag) + step
			l.tag = o.tag
		}
	}
	heap.Push(&f.orders, o)
}

// first returns the order whose turn it is, nil if none waits.
func (f *fairQueue) first() *order {
	if len(f.orders) == 0 {
		return nil
	}
	return f.orders[0]
}

// pop takes it.
func (f *fairQueue) pop() *order {
	o := heap.Pop(&f.orders).(*order)
	if o.trial == "" {
		f.taken = max(f.taken, o.tag)
	}
	return o
}

// remove takes the order out.
func (f *fairQueue) remove(o *order) {
	if i := slices.Index(f.orders, o); i >= 0 {
		heap.Remove(&f.orders, i)
	}
}

// drop takes out the orders for which gone reports true.
func (f *fairQueue) drop(gone func(*order) bool) {
	f.orders = slices.DeleteFunc(f.orders, gone)
	heap.Init(&f.orders)
}

func (f *fairQueue) clear() { f.orders = nil }

// compareTurns puts the order first whose turn comes first; a trial goes before all others.
func compareTurns(a, b *order) int {
	return cmp.Or(compareBool(a.trial == "", b.trial == ""), cmp.Compare(a.tag, b.tag), cmp.Compare(a.seq, b.seq))
}

// orderHeap implements heap.Interface.
type orderHeap []*order

func (h orderHeap) Len() int           { return len(h) }
func (h orderHeap) Less(i, j int) bool { return compareTurns(h[i], h[j]) < 0 }
func (h orderHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *orderHeap) Push(x any) { *h = append(*h, x.(*order)) }

// Pop implements heap.Interface.
func (h *orderHeap) Pop() any {
	old := *h
	o := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return o
}
