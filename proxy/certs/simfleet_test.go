package certs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"time"
)

// This file makes a fleet that has run for long: every name has a certificate, obtained at some time of the last two months, the index knows them all and what the
// CA said of them.

// past is the certificate that the name had before the simulation began.
func (w *simWorld) past(n *simName) *simLeaf {
	life := w.life(n)
	begins := w.begin.Add(-scale(life, (2.0/3-1.0/40)*w.dice.fixed("age", n.name))).Truncate(time.Second)
	return &simLeaf{nth: 1, begins: begins, ends: begins.Add(life), stored: true}
}

// pastDER is its DER.
func (w *simWorld) pastDER(n *simName, leaf *simLeaf) []byte {
	return w.ca.mint.certificate(n.name, simSerial(n.number, 1), w.ca.mint.spki, leaf.begins, leaf.ends)
}

// object is what storage has of that: what storage.Bundle.Encode writes, without looking whether the pair is one.
func (w *simWorld) object(number int) []byte {
	n := w.names[number]
	leaf := w.past(n)
	var out bytes.Buffer
	date := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	fmt.Fprintf(&out, `{"format":1,"names":[%q],"ca":%q,"not_before":%q,"not_after":%q,"issued":%[3]q}`+"\n", n.name, w.ca.name, date(leaf.begins), date(leaf.ends))
	pair := out.Len()
	for _, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: w.pastDER(n, leaf)}, {Type: "PRIVATE KEY", Bytes: w.ca.mint.key}} {
		if err := pem.Encode(&out, block); err != nil {
			panic(err) // cannot happen
		}
	}
	fmt.Fprintf(&out, "pair sha256 %x\n", sha256.Sum256(out.Bytes()[pair:]))
	return out.Bytes()
}

// furnish writes the index of all names.
func (w *simWorld) furnish() {
	w.store.old = make(map[int]bool, len(w.names))
	files := make([]indexShardFile, indexShards)
	for i := range files {
		files[i].Names = map[string]indexEntry{}
	}
	for _, n := range w.names {
		n.leaf = w.past(n)
		w.store.old[n.number] = true
		w.expectsLocked(n)
		files[indexShard(n.name)].Names[n.name] = w.entry(n)
	}
	for shard := range files {
		if _, err := w.store.inner.Put(context.Background(), indexObject(shard), files[shard].encode()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// entry is that of the index. The CA was asked about the certificate within the last day, or will be soon.
func (w *simWorld) entry(n *simName) indexEntry {
	leaf := n.leaf
	sum, serial := leafSum(sha256.Sum256(w.pastDER(n, leaf))), simSerial(n.number, 1)
	it := identity{name: n.name, leaf: (&certificate{sum: sum}).leaf(), id: simIDOf(serial), issued: leaf.begins, ends: leaf.ends}
	asked := w.begin.Add(-scale(24*time.Hour, w.dice.fixed("asked", n.name)))
	if asked.Before(leaf.begins) {
		asked = leaf.begins.Add(time.Hour)
	}
	w.inform(n, leaf, asked)
	leaf.told = w.begin // nobody was there to heed it before
	said := suggestion{}.hear(it, RenewalInfo{Window: leaf.window, NextCheck: leaf.next}, asked)
	return indexEntry{
		CA: w.ca.name, NotAfter: leaf.ends, RenewAt: renewAt(leaf.begins, leaf.ends, defaultRenewAt, fraction(n.name, hex.EncodeToString(serial))).Truncate(time.Second),
		Leaf: it.leaf, ID: it.id, Issued: leaf.begins, Said: &said, Gone: farewell{Seen: asked.Unix()},
	}
}
