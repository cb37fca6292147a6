package certs

import (
	"hash/maphash"
	"sync/atomic"
)

// tableParts is how many parts the table has. Each grows by itself, so that even at a million entries growing takes well below a millisecond.
const tableParts = 256

// table finds entries by host. Readers take no lock; changes are made under the cache's mutex. The chains of its buckets run through the entries themselves, which
// makes it about 20 bytes for each.
type table struct {
	seed  maphash.Seed
	parts [tableParts]tablePart
}

type tablePart struct {
	// buckets are the beginnings of chains; replaced when the part grows. Their number is a power of two.
	buckets atomic.Pointer[[]bucket]

	// growth is odd while chains are put together anew: entries that are there may not be found then.
	growth atomic.Uint32

	count int // entries
}

type bucket = atomic.Pointer[entry]

func (t *table) init() {
	t.seed = maphash.MakeSeed()
	for i := range t.parts {
		buckets := make([]bucket, 4)
		t.parts[i].buckets.Store(&buckets)
	}
}

func (t *table) part(hash uint64) *tablePart { return &t.parts[hash>>56] }

func bucketOf(buckets []bucket, hash uint64) *bucket { return &buckets[hash&uint64(len(buckets)-1)] }

func push(b *bucket, e *entry) {
	e.next.Store(b.Load())
	b.Store(e)
}

// hash is that of host and suffix together.
func (t *table) hash(host, suffix string) uint64 {
	if suffix == "" {
		return maphash.String(t.seed, host)
	}
	var h maphash.Hash
	h.SetSeed(t.seed)
	h.WriteString(host)
	h.WriteString(suffix)
	return h.Sum64()
}

// lookUp returns the entry for host and suffix together. It is not sure of a miss when the part grows meanwhile. A reader that stands on an entry which is being
// removed goes on to the end of the chain all the same: the entry keeps its link.
func (t *table) lookUp(hash uint64, host, suffix string) (e *entry, sure bool) {
	p := t.part(hash)
	growth := p.growth.Load()
	for e = bucketOf(*p.buckets.Load(), hash).Load(); e != nil; e = e.next.Load() {
		if e.is(host, suffix) {
			return e, true
		}
	}
	return nil, growth%2 == 0 && p.growth.Load() == growth
}

func (t *table) addLocked(hash uint64, e *entry) {
	p := t.part(hash)
	if p.count++; p.count > len(*p.buckets.Load()) {
		t.growLocked(p)
	}
	push(bucketOf(*p.buckets.Load(), hash), e)
}

// replaceLocked puts e into the place of old, another entry of the same host: whoever goes along the chain meets one of the two.
func (t *table) replaceLocked(hash uint64, old, e *entry) {
	e.next.Store(old.next.Load())
	t.linkLocked(hash, old).Store(e)
}

func (t *table) removeLocked(hash uint64, e *entry) {
	t.linkLocked(hash, e).Store(e.next.Load())
	t.part(hash).count--
}

// linkLocked is what points to the entry, which is in the table.
func (t *table) linkLocked(hash uint64, e *entry) *bucket {
	link := bucketOf(*t.part(hash).buckets.Load(), hash)
	for link.Load() != e {
		link = &link.Load().next
	}
	return link
}

// growLocked doubles the buckets. The new chains are made of the same entries, one after the other, so a reader may be led from an old chain into a new one: it
// comes to an end all the same, and knows that it may have missed something.
func (t *table) growLocked(p *tablePart) {
	old := *p.buckets.Load()
	buckets := make([]bucket, 2*len(old))
	p.growth.Add(1)
	for i := range old {
		for e := old[i].Load(); e != nil; {
			next := e.next.Load()
			push(bucketOf(buckets, t.hash(e.host(), "")), e)
			e = next
		}
	}
	p.buckets.Store(&buckets)
	p.growth.Add(1)
}

// each calls f for every entry without a lock. Those that come or go meanwhile, or are in a part that grows just then, may be left out.
func (t *table) each(f func(*entry)) {
	for i := range t.parts {
		buckets := *t.parts[i].buckets.Load()
		for b := range buckets {
			for e := buckets[b].Load(); e != nil; e = e.next.Load() {
				f(e)
			}
		}
	}
}
