package certs

// readyHeap has the names whose time has come, the first by rank on top. It implements heap.Interface.
type readyHeap []*planItem

func (h readyHeap) Len() int           { return len(h) }
func (h readyHeap) Less(i, j int) bool { return h[i].rank < h[j].rank }
func (h readyHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

// Push implements heap.Interface.
func (h *readyHeap) Push(x any) {
	it := x.(*planItem)
	it.pos, it.isReady = len(*h), true
	*h = append(*h, it)
}

// Pop implements heap.Interface.
func (h *readyHeap) Pop() any {
	it := popLast((*[]*planItem)(h))
	it.pos, it.isReady = -1, false
	return it
}

// dueHeap has the others by the time of their next look.
type dueHeap []*planItem

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	it := x.(*planItem)
	it.pos = len(*h)
	*h = append(*h, it)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	it := popLast((*[]*planItem)(h))
	it.pos = -1
	return it
}

// checkHeap has the names whose CA is to be asked about them, by time.
type checkHeap []*planItem

func (h checkHeap) Len() int           { return len(h) }
func (h checkHeap) Less(i, j int) bool { return h[i].check.Before(h[j].check) }
func (h checkHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].checkPos, h[j].checkPos = i, j
}

// Push implements heap.Interface.
func (h *checkHeap) Push(x any) {
	it := x.(*planItem)
	it.checkPos = len(*h)
	*h = append(*h, it)
}

// Pop implements heap.Interface.
func (h *checkHeap) Pop() any {
	it := popLast((*[]*planItem)(h))
	it.checkPos = -1
	return it
}

// popLast takes the last item off, which container/heap has put there, and keeps no reference to it.
func popLast(items *[]*planItem) *planItem {
	last := len(*items) - 1
	it := (*items)[last]
	(*items)[last] = nil
	*items = (*items)[:last]
	return it
}
