package certs

import (
	"encoding/base64"
	"math"
	"strings"
	"time"
	"unique"
)

// planItem is what the planner tells of a name.
type planItem struct {
	identity        // of the certificate, as far as known
	ca       string // of the certificate; empty if we have not seen one
	gone     farewell

	due  time.Time   // of the next look
	said *suggestion // nil until we have seen a certificate

	shard   uint8
	resting bool // nobody claims it
	waited  bool // its time has come once, and it was left to the owner of its shard
	stale   bool // the certificate in memory is not the one that is stored
}

// packedItem is what the planner keeps of a name: a planItem in 128 bytes and the text, since there may be a million. Its parts are set and read by the methods
// below; see planner for the rest. The planner's mutex guards it.
type packedItem struct {
	text   string // the name, and then the serial number of its certificate
	shared unique.Handle[sharedTexts]
	leaf   leafID

	due  int64  // of the next look, in microseconds since 1970
	rank uint64 // among those that are ready

	ends, issued seconds
	slot         seconds // when it is to be renewed by its lifetime
	counted      seconds // when it is to be renewed, as the levels have it
	check        seconds // when its CA is asked about it

	start, end, renew, asked, next seconds // see suggestion
	seen, denied, since, found     seconds // see farewell

	pos      int32  // in one of the planner's calendars; -1 while it is being looked at or has no time
	checkPos int32  // in that of questions; -1 while it has no time
	chain    itemID // see itemTable

	nameLen uint16
	shard   uint8
	tries   uint8 // troubles with storage in a row
	misses  uint8 // questions in a row without an answer

	early   bool
	watched bool // its CA is asked about the certificate: planItem.said is not nil
	isReady bool // pos is in the calendar of those that are ready
	resting bool
	waited  bool
	stale   bool
}

// sharedTexts are those that a great number of names have in common. Each combination of them is kept once.
type sharedTexts struct {
	ca        string
	authority string // the first part of identity.id
	page      string // suggestion.URL
	why       string // farewell.Why
}

// seconds is a time from 1970 to 2106, counted like Unix time. Zero means none. Whatever is later counts as 2106, and what is earlier as none.
type seconds uint32

func packSeconds(unix int64) seconds { return seconds(min(max(unix, 0), math.MaxUint32)) }

func secondsOf(t time.Time) seconds { return packSeconds(unixOf(t)) }

func (s seconds) time() time.Time { return unixTime(int64(s)) }

func newPackedItem(name string) packedItem {
	return packedItem{
		text:    strings.Clone(name), // it may be part of a whole shard of the index
		nameLen: uint16(len(name)), shared: unique.Make(sharedTexts{}), shard: uint8(indexShard(name)), pos: -1, checkPos: -1,
	}
}

// setDue sets the time of the next look. A look a moment before its time would find nothing to do, so it is rounded up.
func (it *packedItem) setDue(t time.Time) { it.due = max(t.Add(time.Microsecond-1).UnixMicro(), 1) }

func (it *packedItem) dueAt() time.Time { return time.UnixMicro(it.due).UTC() }

func (it *packedItem) name() string { return it.text[:it.nameLen] }
func (it *packedItem) ca() string   { return it.shared.Value().ca }

// unpack returns what is told of the name.
func (it *packedItem) unpack() planItem {
	view := planItem{identity: it.identity(), ca: it.ca(), gone: it.farewell(), shard: it.shard, resting: it.resting, waited: it.waited, stale: it.stale}
	if it.due != 0 {
		view.due = it.dueAt()
	}
	if it.watched {
		said := it.suggestion()
		view.said = &said
	}
	return view
}

func (it *packedItem) identity() identity {
	id := ""
	if authority := it.shared.Value().authority; authority != "" {
		id = authority + "." + base64.RawURLEncoding.EncodeToString([]byte(it.text[it.nameLen:]))
	}
	return identity{it.name(), it.leaf, id, it.issued.time(), it.ends.time(), it.early}
}

// identify takes in which certificate the name has. What is known of another one stays.
func (it *packedItem) identify(i identity, ca string) {
	authority, encoded, _ := strings.Cut(i.id, ".")
	serial, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || len(serial) == 0 {
		authority, serial = "", nil // nobody can be asked
	}
	it.text = it.name() + string(serial)
	t := it.shared.Value()
	t.ca, t.authority = ca, authority
	it.shared = unique.Make(t)
	it.leaf, it.issued, it.ends, it.early = i.leaf, secondsOf(i.issued), secondsOf(i.ends), i.early
}

func (it *packedItem) suggestion() suggestion {
	return suggestion{it.leaf, int64(it.start), int64(it.end), int64(it.renew), int64(it.asked), int64(it.next), it.shared.Value().page}
}

// suggest takes in what the CA said of the certificate.
func (it *packedItem) suggest(s suggestion) {
	it.start, it.end, it.renew, it.asked, it.next = packSeconds(s.Start), packSeconds(s.End), packSeconds(s.Renew), packSeconds(s.Asked), packSeconds(s.Next)
	if t := it.shared.Value(); t.page != s.URL {
		t.page = s.URL
		it.shared = unique.Make(t)
	}
	it.watched = true
}

func (it *packedItem) farewell() farewell {
	return farewell{int64(it.seen), int64(it.denied), int64(it.since), it.shared.Value().why, int64(it.found)}
}

// leave takes in whether the name has left us.
func (it *packedItem) leave(g farewell) {
	it.seen, it.denied, it.since, it.found = packSeconds(g.Seen), packSeconds(g.Denied), packSeconds(g.Since), packSeconds(g.Found)
	if t := it.shared.Value(); t.why != g.Why {
		t.why = g.Why
		it.shared = unique.Make(t)
	}
}

// life is how long the certificate lives from when we have had it.
func (it *packedItem) life() time.Duration { return it.ends.time().Sub(it.issued.time()) }

// cycle is about how long it lives until it is renewed.
func (it *packedItem) cycle() time.Duration { return scale(it.life(), 2.0/3) }
