package certs

import (
	"crypto/tls"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// cacheShards is how many parts the cache has, so that a writer keeps few readers waiting, and for nanoseconds.
const cacheShards = 64

// cache holds what hosts are served with. Reading allocates nothing and never waits for I/O. It keeps to a budget by dropping entries at
// random: a dropped certificate costs one read of the Store at its next handshake.
type cache struct {
	seed   maphash.Seed
	budget atomic.Int64 // bytes, of all shards together
	shards [cacheShards]cacheShard
}

type cacheShard struct {
	mu      sync.RWMutex // guards what follows
	entries map[string]*entry
	bytes   int64
}

// entry says what a host is served with: a certificate of its own, that of a wildcard, or the site's own files. Entries are replaced, never
// modified, but for claimed.
type entry struct {
	// claimed are the rules under which a site claimed the host. Under other rules we look again who does, so that a reload
	// costs a lookup for each host and nothing else.
	claimed atomic.Pointer[rules]

	cert *certificate // its own
	via  string       // or the wildcard whose entry has the certificate
	file *filePair    // or the site's own
	size int64
}

func newCache() *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].entries = map[string]*entry{}
	}
	return c
}

func (c *cache) shard(host string) *cacheShard {
	return &c.shards[maphash.String(c.seed, host)%cacheShards]
}

func (c *cache) get(host string) *entry {
	s := c.shard(host)
	s.mu.RLock()
	e := s.entries[host]
	s.mu.RUnlock()
	return e
}

// getSecond is get for the host's second certificate, whose key it puts together without allocating.
func (c *cache) getSecond(host, suffix string) *entry {
	var room [maxName]byte
	key := append(append(room[:0], host...), suffix...)
	s := &c.shards[maphash.Bytes(c.seed, key)%cacheShards]
	s.mu.RLock()
	e := s.entries[string(key)]
	s.mu.RUnlock()
	return e
}

// serve is the warm path: what the host is served with under these rules, or nil if that takes a closer look.
func (c *cache) serve(hello *tls.ClientHelloInfo, host string, r *rules, now time.Time) *tls.Certificate {
	e := c.get(host)
	if r.second != "" && (e == nil || e.file == nil) && r.wantsSecond(hello) {
		e = c.getSecond(host, r.suffix)
	}
	if e == nil || e.claimed.Load() != r {
		return nil
	}
	if e.file != nil {
		return e.file.cert.Load() // nil if the files were never good
	}
	if e.via != "" {
		if e = c.get(e.via); e == nil {
			return nil
		}
	}
	if !e.cert.serves(now) {
		return nil
	}
	return e.cert.tls
}

// cert returns the certificate for the name, whoever claims it; nil if it is not in memory.
func (c *cache) cert(name string) *certificate {
	if e := c.get(name); e != nil {
		return e.cert
	}
	return nil
}

// put takes the certificate in for its own name.
func (c *cache) put(cert *certificate) {
	e := &entry{cert: cert, size: entrySize(cert.name) + certSize(cert)}
	if old := c.get(cert.name); old != nil {
		e.claimed.Store(old.claimed.Load())
	}
	c.set(cert.name, e)
}

// claim notes that, under these rules, the host is served as its target says.
func (c *cache) claim(host string, t target, r *rules) {
	switch e := c.get(host); {
	case t.file != nil && (e == nil || e.file != t.file):
		c.set(host, claimedEntry(&entry{file: t.file, size: entrySize(host)}, r))
	case t.file == nil && t.name != host && (e == nil || e.via != t.name):
		c.set(host, claimedEntry(&entry{via: t.name, size: entrySize(host)}, r))
	case e != nil && (t.file != nil || t.name != host || e.cert != nil):
		e.claimed.Store(r)
	}
}

func claimedEntry(e *entry, r *rules) *entry {
	e.claimed.Store(r)
	return e
}

func (c *cache) set(host string, e *entry) {
	s := c.shard(host)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.entries[host]; old != nil {
		s.bytes -= old.size
	}
	s.entries[host] = e
	s.bytes += e.size
	budget := c.budget.Load() / cacheShards
	for other, old := range s.entries { // Go begins to walk a map at a random place
		if s.bytes <= budget {
			return
		}
		if other != host {
			delete(s.entries, other)
			s.bytes -= old.size
		}
	}
}

// drop forgets the host.
func (c *cache) drop(host string) {
	s := c.shard(host)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[host]; e != nil {
		s.bytes -= e.size
		delete(s.entries, host)
	}
}

// entrySize and certSize estimate the memory of an entry in bytes: the map's part, and a parsed certificate, which takes about
// 3 KB beside the DER of its chain.
func entrySize(host string) int64 { return 160 + int64(len(host)) }

func certSize(c *certificate) int64 {
	size := int64(3 << 10)
	for _, der := range c.tls.Certificate {
		size += int64(len(der))
	}
	return size
}

// each calls f for a moment's view of the certificates in memory.
func (c *cache) each(f func(*certificate)) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		all := make([]*certificate, 0, len(s.entries))
		for _, e := range s.entries {
			if e.cert != nil {
				all = append(all, e.cert)
			}
		}
		s.mu.RUnlock()
		for _, cert := range all {
			f(cert)
		}
	}
}
