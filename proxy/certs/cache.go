package certs

import (
	"crypto/tls"
	"strings"
	"sync"
	"time"
)

// cache holds what hosts are served with, within a budget of bytes. Reading takes no lock and, for a certificate that is hot, allocates nothing; what does not fit
// is dropped (evict.go) and costs one read of the Store at its next handshake. Nothing that a handshake needs depends on it staying.
//
// Certificates lie in it in compact form (pack.go), in a table of our own (table.go). Those in demand are kept ready for handshakes as well (hot.go).
type cache struct {
	table table

	mu      sync.Mutex // guards what follows, and every change of the table; never held during I/O or arithmetic on keys
	budget  int64      // bytes, of everything
	queues  queues
	hot     hotSet
	sources map[sourceKey]*source
}

func newCache() *cache {
	c := &cache{sources: map[sourceKey]*source{}}
	c.table.init()
	return c
}

// serve is the warm path: what the host is served with under these rules, or nil if that takes a closer look.
func (c *cache) serve(hello *tls.ClientHelloInfo, host string, r *rules, now time.Time) *tls.Certificate {
	e := c.get(host)
	if r.second != "" && (e == nil || e.of.file == nil) && r.wantsSecond(hello) {
		e = c.find(host, r.suffix)
	}
	if e == nil || e.claimed.Load() != r.generation {
		return nil
	}
	e.touch(now)
	if e.of.file != nil {
		return e.of.file.cert.Load() // nil if the files were never good
	}
	if e.of.via != "" {
		if e = c.get(e.of.via); e == nil {
			return nil
		}
		e.touch(now)
	}
	cert := c.ready(e)
	if !cert.serves(now) {
		return nil
	}
	return cert.tls
}

// get finds the host's entry without a lock. Only while the part of the table is being enlarged, a miss has to wait for that.
func (c *cache) get(host string) *entry { return c.find(host, "") }

// find is get for host and suffix together, which makes the name of a second certificate without allocating.
func (c *cache) find(host, suffix string) *entry {
	hash := c.table.hash(host, suffix)
	e, sure := c.table.lookUp(hash, host, suffix)
	if e == nil && !sure {
		c.mu.Lock()
		defer c.mu.Unlock()
		e, _ = c.table.lookUp(hash, host, suffix)
	}
	return e
}

// cert returns the certificate for the name, whoever claims it; nil if it is not in memory.
func (c *cache) cert(name string) *certificate {
	e := c.get(name)
	if e == nil || e.of.chain == nil {
		return nil
	}
	if cert := e.ready.Load(); cert != nil {
		return cert
	}
	return e.unpack()
}

// put takes the certificate in for its own name.
func (c *cache) put(cert *certificate) {
	of := c.source(cert)
	e := newEntry(cert.name, pack(cert, of.sample))
	e.of = of
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.lookLocked(cert.name)
	if old != nil && old.text == e.text && old.of == of {
		c.releaseLocked(of) // planning puts it in again and again
		return
	}
	if old != nil {
		e.inherit(old)
	}
	c.setLocked(e, old)
}

// claim notes that, under these rules, the host is served as its target says, and was served so just now.
func (c *cache) claim(host string, t target, r *rules) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.lookLocked(t.name); e != nil {
		e.seen.Store(period(time.Now()))
	}
	if len(host) > maxName { // with the suffix of a second certificate: it is found by its name each time
		return
	}
	e := c.lookLocked(host)
	switch {
	case t.file != nil && (e == nil || e.of.file != t.file):
		c.pointLocked(host, e, &source{file: t.file}).claimed.Store(r.generation)
	case t.file == nil && t.name != host && (e == nil || e.of.via != t.name):
		c.pointLocked(host, e, &source{via: t.name}).claimed.Store(r.generation)
	case e != nil && (t.file != nil || t.name != host || e.of.chain != nil):
		e.claimed.Store(r.generation)
	}
}

// pointLocked makes an entry that has no certificate itself, in place of old.
func (c *cache) pointLocked(host string, old *entry, s *source) *entry {
	e := newEntry(host, "")
	s.key = sourceKey{via: s.via, file: s.file}
	e.of = c.sourceLocked(s)
	c.setLocked(e, old)
	return e
}

func (c *cache) lookLocked(host string) *entry {
	e, _ := c.table.lookUp(c.table.hash(host, ""), host, "")
	return e
}

// setLocked brings the entry in, in place of old if there is one. It may be dropped again at once, if the budget is that small.
func (c *cache) setLocked(e, old *entry) {
	hash := c.table.hash(e.host(), "")
	if old != nil {
		c.table.replaceLocked(hash, old, e)
		c.leaveLocked(old)
	} else {
		c.table.addLocked(hash, e)
	}
	c.queues.addLocked(e, hash)
	c.evictLocked(e)
}

// removeLocked takes an entry out of everything.
func (c *cache) removeLocked(e *entry) {
	c.table.removeLocked(c.table.hash(e.host(), ""), e)
	c.leaveLocked(e)
}

// leaveLocked takes an entry that is not in the table any more out of the rest.
func (c *cache) leaveLocked(e *entry) {
	c.queues.removeLocked(e)
	c.hot.removeLocked(e)
	c.releaseLocked(e.of)
}

// drop forgets the host.
func (c *cache) drop(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.lookLocked(host); e != nil {
		c.removeLocked(e)
	}
}

// resize sets the budget. Less of it takes effect step by step, so that no handshake waits for it.
func (c *cache) resize(bytes int64) {
	for again := true; again; {
		c.mu.Lock()
		c.budget = bytes
		c.hot.resizeLocked(bytes)
		c.queues.resizeLocked(bytes)
		again = c.evictSomeLocked(nil, 1000)
		c.mu.Unlock()
	}
}

// bytes is how much of the budget is used, as far as it can be told.
func (c *cache) bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queues.bytes() + c.hot.share()
}

// full reports whether nearly all of the budget is used: what comes in pushes something out.
func (c *cache) full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queues.bytes() > (c.budget-c.hot.share())/10*9
}

// usedSince returns the certificates that were used since then, and when last: in Unix seconds, to seenEvery. Those that live in memory only are left out.
func (c *cache) usedSince(then time.Time) map[string]int64 {
	used, first := map[string]int64{}, period(then)
	c.table.each(func(e *entry) {
		if seen := e.seen.Load(); seen >= first && e.of.chain != nil && !e.brief() {
			used[strings.Clone(e.host())] = int64(seen) * int64(seenEvery/time.Second)
		}
	})
	return used
}

// names calls f for the name of every certificate in memory, as of some moment while it runs.
func (c *cache) names(f func(name string)) {
	c.table.each(func(e *entry) {
		if e.of.chain != nil {
			f(e.host())
		}
	})
}
