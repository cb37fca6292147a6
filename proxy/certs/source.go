package certs

import (
	"crypto/sha256"
	"encoding/binary"
)

// source is what entries have in common. There is one for each, however many entries refer to it, and none when the last of them has gone. It is of one of three
// kinds:
type source struct {
	// Of certificates of one CA with one chain, for one kind of key: who issued them, the chain without the leaf in DER, never nil, and one leaf that they resemble.
	ca     string
	chain  [][]byte
	sample []byte

	via  string    // of hosts: the wildcard whose entry has the certificate
	file *filePair // of hosts: the site's own files

	key  sourceKey
	refs int // guarded by the cache's mutex
}

// sourceKey tells sources apart: certificates' by a SHA-256 of what they have in common.
type sourceKey struct {
	sum  [sha256.Size]byte
	via  string
	file *filePair
}

// source returns that of the certificate, for one entry more.
func (c *cache) source(cert *certificate) *source {
	chain := cert.tls.Certificate[1:]
	sum := sha256.New()
	for _, part := range append([][]byte{[]byte(cert.ca), []byte(keyTypeOf(cert.tls.Leaf.PublicKey))}, chain...) {
		sum.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		sum.Write(part)
	}
	s := &source{ca: cert.ca, chain: append([][]byte{}, chain...), sample: cert.tls.Certificate[0]}
	sum.Sum(s.key.sum[:0])
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sourceLocked(s)
}

// sourceLocked returns the one that is known by the key of s, else s, for one entry more.
func (c *cache) sourceLocked(s *source) *source {
	if there := c.sources[s.key]; there != nil {
		s = there
	}
	c.sources[s.key] = s
	s.refs++
	return s
}

// releaseLocked is for an entry that has gone.
func (c *cache) releaseLocked(s *source) {
	if s.refs--; s.refs == 0 {
		delete(c.sources, s.key)
	}
}
