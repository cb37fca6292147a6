package certs

// This file says what goes when the budget is used up. It is S3-FIFO (Yang et al., SOSP 2023) counted in bytes: newcomers pass through a small queue, where most of
// what a scan brings ends; what was asked for again meanwhile moves on to the main queue, where it gets another turn for each use. Each step takes a fixed time, and a
// reader does no more than to count up to three.

const (
	smallShare = 10 // the small queue has a tenth of the budget
	usesMask   = 3  // of entry.uses: how often it was used, up to three times
	usedBit    = 4  // of entry.uses: since the hot set looked at it last
)

// queueID says in which queue an entry is.
type queueID uint8

const (
	noQueue queueID = iota
	smallQueue
	mainQueue
)

// queues are the small and the main one. The cache's mutex guards them.
type queues struct {
	of     [mainQueue + 1]fifo
	ghosts []uint32 // of hosts that left through the small queue not long ago, by their hash
}

// fifo is a list from the newest to the oldest.
type fifo struct {
	newest, oldest *entry
	bytes          int64
}

func (q *queues) bytes() int64 { return q.of[smallQueue].bytes + q.of[mainQueue].bytes }

// addLocked appends an entry that is new or, as its queue says, takes the place of another one.
func (q *queues) addLocked(e *entry, hash uint64) {
	if e.queue == noQueue {
		e.queue = smallQueue
		if q.returns(hash) {
			e.queue = mainQueue
		}
	}
	q.of[e.queue].push(e)
}

func (q *queues) removeLocked(e *entry) { q.of[e.queue].unlink(e) }

// moveLocked makes the entry the newest of a queue.
func (q *queues) moveLocked(e *entry, to queueID) {
	q.of[e.queue].unlink(e)
	e.queue = to
	q.of[to].push(e)
}

// resizeLocked makes room for as many ghosts as there may be certificates.
func (q *queues) resizeLocked(budget int64) {
	n := 64
	for int64(n)*2048 < budget {
		n *= 2
	}
	if n != len(q.ghosts) {
		q.ghosts = make([]uint32, n)
	}
}

func (q *queues) ghost(hash uint64) *uint32 { return &q.ghosts[hash&uint64(len(q.ghosts)-1)] }

func (q *queues) buryLocked(hash uint64) { *q.ghost(hash) = uint32(hash>>32) | 1 }

// returns reports whether the host left through the small queue not long ago, as far as one can tell from its hash.
func (q *queues) returns(hash uint64) bool {
	return len(q.ghosts) > 0 && *q.ghost(hash) == uint32(hash>>32)|1
}

func (f *fifo) push(e *entry) {
	e.older, e.newer = f.newest, nil
	if f.newest != nil {
		f.newest.newer = e
	} else {
		f.oldest = e
	}
	f.newest = e
	f.bytes += int64(e.size)
}

func (f *fifo) unlink(e *entry) {
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		f.newest = e.older
	}
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		f.oldest = e.newer
	}
	e.newer, e.older = nil, nil
	f.bytes -= int64(e.size)
}

// evictLocked drops entries until the rest keeps to the budget; keep goes last.
func (c *cache) evictLocked(keep *entry) {
	for c.evictSomeLocked(keep, 1000) {
	}
}

// evictSomeLocked takes so many steps at most. It reports whether there is more to do.
func (c *cache) evictSomeLocked(keep *entry, steps int) bool {
	room := max(c.budget-c.hot.share(), 0)
	for range steps {
		small, main := &c.queues.of[smallQueue], &c.queues.of[mainQueue]
		switch over := small.bytes+main.bytes > room; {
		case !over:
			return false
		case small.oldest != nil && (small.bytes > room/smallShare || main.oldest == nil) && !(small.oldest == keep && main.oldest != nil):
			c.leaveSmallLocked(small.oldest)
		default:
			c.leaveMainLocked(main.oldest)
		}
	}
	return true
}

// leaveSmallLocked moves the entry on if it was used again since it came, and else drops it.
func (c *cache) leaveSmallLocked(e *entry) {
	if e.uses.Load()&usesMask > 1 {
		e.uses.Store(e.uses.Load() &^ usesMask)
		c.queues.moveLocked(e, mainQueue)
		return
	}
	c.queues.buryLocked(c.table.hash(e.host(), ""))
	c.removeLocked(e)
}

// leaveMainLocked gives the entry another turn if it was used, and else drops it.
func (c *cache) leaveMainLocked(e *entry) {
	if uses := e.uses.Load(); uses&usesMask > 0 {
		e.uses.Store(uses - 1)
		c.queues.moveLocked(e, mainQueue)
		return
	}
	c.removeLocked(e)
}
