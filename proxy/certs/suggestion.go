package certs

import (
	"crypto/x509"
	"encoding/base64"
	"net/url"
	"strconv"
	"time"
)

// Bounds of what we believe of a CA's renewal information.
const (
	checkUsual   = 6 * time.Hour    // between two questions, if the CA does not say (Let's Encrypt's own Retry-After)
	checkOften   = time.Minute      // RFC 9773 §4.3.2 asks for bounds of "reasonable" lengths
	checkSeldom  = 24 * time.Hour   // and for at least one question a day
	atOnceWithin = 10 * time.Minute // over which names are spread that a CA wants replaced now
	longestURL   = 512
)

// suggestion is what a CA said of the renewal of one certificate (RFC 9773 §4.2), and the time that we chose once for the window it gave. Every process that reads
// it from the index holds to that time. There is one for each name in memory and in the index, so it is small: times are Unix seconds, zero means none.
type suggestion struct {
	Leaf  leafID `json:"leaf,string"` // which certificate it is about
	Start int64  `json:"start,omitempty"`
	End   int64  `json:"end,omitempty"`
	Renew int64  `json:"renew,omitempty"` // the chosen time
	Asked int64  `json:"asked,omitempty"` // when the CA answered last
	Next  int64  `json:"next"`            // nobody asks before
	URL   string `json:"url,omitempty"`   // an explanation for a person
}

// identity is what has to be known of a certificate to ask its CA about it and to understand the answer, without having it at hand.
type identity struct {
	name   string
	leaf   leafID
	id     string    // RFC 9773 §4.1; empty if it has none: then nobody can be asked
	issued time.Time // the beginning of the time that we have it
	ends   time.Time
	early  bool // see certificate.early
}

func (c *certificate) identity() identity {
	leaf := c.tls.Leaf
	return identity{c.name, c.leaf(), renewalID(leaf), latest(c.issued, leaf.NotBefore), leaf.NotAfter, c.early}
}

// spread is a number in [0, 1) of the certificate's own, the same in every process.
func (i identity) spread() float64 { return fraction(i.name, strconv.FormatUint(uint64(i.leaf), 36)) }

// renewalID is how CAs call a certificate when they are asked about its renewal (RFC 9773 §4.1): the authority key identifier and the serial number.
func renewalID(leaf *x509.Certificate) string {
	if len(leaf.AuthorityKeyId) == 0 || leaf.SerialNumber == nil || leaf.SerialNumber.Sign() <= 0 {
		return ""
	}
	serial := leaf.SerialNumber.Bytes()
	if serial[0] >= 0x80 {
		serial = append([]byte{0}, serial...) // the DER integer's own leading zero belongs to it
	}
	return base64.RawURLEncoding.EncodeToString(leaf.AuthorityKeyId) + "." + base64.RawURLEncoding.EncodeToString(serial)
}

// newerThan reports whether s was heard later than other. Where both go back to the same answer, the later claim to ask counts (see indexShardFile.claim).
func (s *suggestion) newerThan(other *suggestion) bool {
	return other == nil || s.Asked > other.Asked || s.Asked == other.Asked && s.Next > other.Next
}

// over reports whether the window was over when the CA gave it: the certificate is, or will be, revoked.
func (s *suggestion) over() bool { return s.Renew != 0 && s.End <= s.Asked }

// hear returns what is known after an answer. A window that makes no sense changes nothing: the last one holds. The time to renew is chosen when a window is seen
// first: inside it, never before it begins, and soon if it is over, which is how a CA says that it revokes the certificate.
func (s suggestion) hear(c identity, info RenewalInfo, now time.Time) suggestion {
	over := s.over() // the last window, that is
	same := s.Start == info.Window.Start.Unix() && s.End == info.Window.End.Unix()
	s.Leaf, s.Asked = c.leaf, now.Unix()
	s.Next = nextCheck(info.NextCheck, now, fraction(c.name, now.String())).Add(time.Second - time.Nanosecond).Unix() // rounded up: not a moment before
	w := Window{info.Window.Start.Truncate(time.Second), info.Window.End.Truncate(time.Second)}
	if !w.End.After(w.Start) || !w.Start.Before(c.ends) {
		return s
	}
	s.URL = explanation(info.Explanation)
	if same && s.Renew != 0 {
		return s
	}
	s.Start, s.End = w.Start.Unix(), w.End.Unix()
	if over && !w.End.After(now) {
		return s // it is over with every answer (Let's Encrypt: an hour ago); the first time holds
	}
	s.Renew = c.renewIn(w, now).Unix()
	return s
}

// without is what is left when the CA says that it has no renewal information.
func (s suggestion) without(now time.Time, next time.Time) suggestion {
	return suggestion{Leaf: s.Leaf, Asked: now.Unix(), Next: next.Unix()}
}

// renewIn chooses the time for a window: by hash, so that all processes agree and names part ways.
func (i identity) renewIn(w Window, now time.Time) time.Time {
	spread := i.spread()
	at := inWindow(Window{w.Start, earliest(w.End, i.ends)}, spread)
	if !w.End.After(now) {
		at = now.Add(scale(min(atOnceWithin, max(i.ends.Sub(now)/4, 0)), spread))
	}
	if i.early { // its predecessor was replaced early too: a CA that says "now" for each certificate must not make us order in a circle
		at = latest(at, i.issued.Add(scale(i.ends.Sub(i.issued), 0.1)))
	}
	return at
}

// nextCheck is when to ask again: not before the CA's word, within bounds, and up to a tenth later, so that names part ways.
func nextCheck(word, now time.Time, spread float64) time.Time {
	pause := checkUsual
	if !word.IsZero() {
		pause = min(max(word.Sub(now), checkOften), checkSeldom)
	}
	return now.Add(pause + scale(pause, 0.1*spread))
}

// explanation keeps what can be a page for a person to visit.
func explanation(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || len(s) > longestURL {
		return ""
	}
	return s
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// unixTime is the reverse of time.Time.Unix, with zero for zero.
func unixTime(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}
