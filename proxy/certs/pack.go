package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// entry says what a host is served with: a certificate of its own, that of a wildcard, or the site's own files. There may be hundreds of thousands, so each is two
// pieces of memory: this struct of 80 bytes, and text. Entries are replaced, never modified, but for what says otherwise.
type entry struct {
	next  atomic.Pointer[entry]       // in its chain of the table
	ready atomic.Pointer[certificate] // if it is in the hot set

	// claimed is the generation of the rules under which a site claimed the host. Under other rules we look again who does, so that a reload
	// costs a lookup for each host and nothing else.
	claimed atomic.Uint32

	seen atomic.Uint32 // when it was used last; see touch
	uses atomic.Uint32 // see evict.go

	size    uint32 // bytes of it all
	slot    int32  // in the hot set; -1 if it is not there. Guarded by the cache's mutex
	hostLen uint8
	queue   queueID // guarded by the cache's mutex

	text string  // the host, and then what pack made of its certificate, if it has one
	of   *source // what it has in common with others

	newer, older *entry // in its queue; guarded by the cache's mutex
}

// entryBytes is the size of an entry without its text, and of its part of the table.
const entryBytes = 80 + 20

func newEntry(host, packed string) *entry {
	e := &entry{text: host + packed, hostLen: uint8(len(host)), slot: -1}
	if packed == "" {
		e.text = strings.Clone(host)
	}
	e.size = uint32(entryBytes + len(e.text) + len(e.text)/8) // the allocator rounds up by 1/8 at most
	return e
}

func (e *entry) host() string { return e.text[:e.hostLen] }

// is reports whether the entry is that of host and suffix together.
func (e *entry) is(host, suffix string) bool {
	return int(e.hostLen) == len(host)+len(suffix) && e.text[:len(host)] == host && e.text[len(host):e.hostLen] == suffix
}

// inherit takes over what was known of the use of the entry that it replaces.
func (e *entry) inherit(old *entry) {
	e.claimed.Store(old.claimed.Load())
	e.seen.Store(old.seen.Load())
	e.uses.Store(old.uses.Load())
	if e.of.chain != nil && old.of.chain != nil {
		e.queue = old.queue
	}
}

// seenEvery is how exactly the time of an entry's last use is known.
const seenEvery = 5 * time.Minute

// touch notes one use. Under load it writes nothing: it is about a memory that all processors share.
func (e *entry) touch(now time.Time) {
	if uses := e.uses.Load(); uses != usesMask|usedBit {
		e.uses.Store(min(uses&usesMask+1, usesMask) | usedBit)
	}
	if p := period(now); e.seen.Load() != p {
		e.seen.Store(p)
	}
}

// period counts in steps of seenEvery.
func period(t time.Time) uint32 { return uint32(t.Unix() / int64(seenEvery/time.Second)) }

// How a key lies in a packed certificate.
const (
	keyPKCS8 = iota
	keyP256  // the number alone, 32 bytes
	keyP384  // 48 bytes
)

// Bits of a packed certificate's first byte, above one of the constants for keys.
const (
	packedEarly = 1 << 4
	packedBrief = 1 << 5 // until is renewAt, not the end of its life
)

// brief reports whether the certificate is packed as one that lives in memory only.
func (e *entry) brief() bool { return e.text[e.hostLen]&packedBrief != 0 }

// packedHead is that byte and four times in milliseconds. The lengths of key and leaf follow as varints, then the key, then the leaf as it differs from the host and
// the sample.
const packedHead = 1 + 4*8

// pack makes a certificate small. Its notes, which only a person reads, stay in storage.
func pack(c *certificate, sample []byte) string {
	kind, key := packKey(c.tls.PrivateKey)
	leaf := c.tls.Certificate[0]
	first := byte(kind)
	if c.early {
		first |= packedEarly
	}
	if !c.until.Equal(c.tls.Leaf.NotAfter) {
		first |= packedBrief
	}
	b := append(make([]byte, 0, packedHead+8+len(key)+len(leaf)), first)
	for _, t := range []time.Time{c.renewAt, c.issued, c.window.Start, c.window.End} {
		b = binary.BigEndian.AppendUint64(b, uint64(t.UnixMilli()))
	}
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = binary.AppendUvarint(b, uint64(len(leaf)))
	return string(appendDelta(append(b, key...), leaf, dictionary(c.name, sample)))
}

func dictionary(host string, sample []byte) []byte { return append([]byte(host), sample...) }

// unpack is the reverse of pack. What it returns shares nothing with the entry but the chain.
func (e *entry) unpack() *certificate {
	packed := []byte(e.text[e.hostLen:])
	times := [4]time.Time{}
	for i := range times {
		times[i] = time.UnixMilli(int64(binary.BigEndian.Uint64(packed[1+8*i:]))).UTC()
	}
	keySize, n := binary.Uvarint(packed[packedHead:])
	leafSize, more := binary.Uvarint(packed[packedHead+n:])
	rest := packed[packedHead+n+more:]
	name := strings.Clone(e.host())
	der, err := applyDelta(rest[keySize:], dictionary(name, e.of.sample), int(leafSize))
	var leaf *x509.Certificate
	if err == nil {
		leaf, err = x509.ParseCertificate(der)
	}
	if err != nil {
		panic(fmt.Sprintf("certs: the certificate for %s in memory: %v", name, err)) // cannot happen: it was parsed before
	}
	key, err := unpackKey(int(packed[0]&(packedEarly-1)), rest[:keySize])
	if err != nil {
		panic(fmt.Sprintf("certs: the key for %s in memory cannot be parsed", name)) // cannot happen, as above
	}
	c := &certificate{
		tls:  &tls.Certificate{Certificate: append([][]byte{der}, e.of.chain...), PrivateKey: key, Leaf: leaf},
		name: name, ca: e.of.ca, sum: sha256.Sum256(der), early: packed[0]&packedEarly != 0,
		renewAt: times[0], issued: times[1], window: Window{times[2], times[3]}, until: leaf.NotAfter,
	}
	if packed[0]&packedBrief != 0 {
		c.until = c.renewAt
	}
	return c
}

func packKey(key crypto.PrivateKey) (kind int, packed []byte) {
	if key, ok := key.(*ecdsa.PrivateKey); ok {
		if raw, err := key.Bytes(); err == nil && key.Curve == elliptic.P256() {
			return keyP256, raw
		} else if err == nil && key.Curve == elliptic.P384() {
			return keyP384, raw
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(fmt.Sprintf("certs: pack a key of type %T: %v", key, err)) // cannot happen: it came from PKCS #8
	}
	return keyPKCS8, der
}

func unpackKey(kind int, packed []byte) (crypto.PrivateKey, error) {
	switch kind {
	case keyP256:
		return ecdsa.ParseRawPrivateKey(elliptic.P256(), packed)
	case keyP384:
		return ecdsa.ParseRawPrivateKey(elliptic.P384(), packed)
	}
	return x509.ParsePKCS8PrivateKey(packed)
}
