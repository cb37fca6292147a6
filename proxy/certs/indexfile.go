package certs

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// indexEntry is what the index says of a name. The certificate itself decides; the index only says that there is one.
type indexEntry struct {
	CA       string
	NotAfter time.Time
	RenewAt  time.Time // by its lifetime, or where it was put so that no hour has too many
	Leaf     leafID    // which certificate; zero is unknown
	ID       string    // see identity
	Issued   time.Time // when it was obtained, or began
	Early    bool      // see certificate.early
	Gone     farewell  // whether the name has left us

	// Said is what the CA said of it, nil if it was not asked. What one process heard, the others hold to.
	Said *suggestion
}

// indexShardFile is one object of the index: text, a line for each name, 120 bytes or so at Let's Encrypt, since an object with the 16,000 names that a shard has
// when there are a million must be small enough to be written now and then. Fields of newer programs are lost when it is written: the index can always be told again.
type indexShardFile struct {
	Names map[string]indexEntry

	// Asker is the process that asks the CAs about the shard's certificates until Until. Nobody else asks about those that were due by then: its answers
	// may not be written yet.
	Asker string
	Until time.Time
}

// indexFormat is the first line.
const indexFormat = "gatelodge index 2"

// Flags of an entry.
const (
	flagEarly = 1 << iota
	flagSaid
)

// encode returns the object. Strings that many entries share are lines of their own in front ("s ..."), to which entries refer by number.
func (f *indexShardFile) encode() []byte {
	var shared, lines bytes.Buffer
	numbers := map[string]int64{}
	var line []byte
	text := func(s string) {
		n, known := numbers[s]
		if !known {
			n = int64(len(numbers))
			numbers[s] = n
			fmt.Fprintf(&shared, "s %q\n", s)
		}
		line = strconv.AppendInt(append(line, ' '), n, 36)
	}
	number := func(n int64) { line = strconv.AppendInt(append(line, ' '), n, 36) }
	for name, e := range f.Names {
		line = append(append(line[:0], "n "...), name...)
		authority, serial, _ := strings.Cut(e.ID, ".")
		text(e.CA)
		text(authority)
		line = append(append(line, ' ', '.'), serial...)
		flags := int64(0)
		if e.Early {
			flags |= flagEarly
		}
		if e.Said != nil {
			flags |= flagSaid
		}
		number(flags)
		number(unixOf(e.NotAfter))
		number(unixOf(e.RenewAt))
		number(unixOf(e.Issued))
		line = strconv.AppendUint(append(line, ' '), uint64(e.Leaf), 36)
		number(e.Gone.Seen)
		number(e.Gone.Denied)
		number(e.Gone.Since)
		text(e.Gone.Why)
		number(e.Gone.Found)
		if s := e.Said; s != nil {
			line = strconv.AppendUint(append(line, ' '), uint64(s.Leaf), 36)
			for _, n := range [...]int64{s.Start, s.End, s.Renew, s.Asked, s.Next} {
				number(n)
			}
			text(s.URL)
		}
		lines.Write(append(line, '\n'))
	}
	var out bytes.Buffer
	out.Grow(shared.Len() + lines.Len() + 200)
	fmt.Fprintf(&out, "%s\n", indexFormat)
	if f.Asker != "" {
		fmt.Fprintf(&out, "a %q %d\n", f.Asker, f.Until.Unix())
	}
	shared.WriteTo(&out)
	lines.WriteTo(&out)
	return out.Bytes()
}

// errIndexFormat says nothing more: the shard is put aside whole, for a person to look at.
var errIndexFormat = errors.New("not a shard of the index")

// decodeIndex is the reverse of encode.
func decodeIndex(data []byte) (*indexShardFile, error) {
	first, rest, _ := strings.Cut(string(data), "\n")
	if first != indexFormat {
		return nil, errIndexFormat
	}
	f := &indexShardFile{Names: make(map[string]indexEntry, strings.Count(rest, "\n"))}
	var shared []string
	for line := range strings.Lines(rest) {
		kind, line, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch kind {
		case "s":
			s, err := strconv.Unquote(line)
			if err != nil {
				return nil, errIndexFormat
			}
			shared = append(shared, s)
		case "a":
			var until int64
			if n, err := fmt.Sscanf(line, "%q %d", &f.Asker, &until); n != 2 || err != nil {
				return nil, errIndexFormat
			}
			f.Until = time.Unix(until, 0)
		case "n":
			r := indexLine{rest: line, shared: shared}
			name := r.word()
			e := r.entry()
			if r.bad || name == "" {
				return nil, errIndexFormat
			}
			f.Names[name] = e
		default:
			return nil, errIndexFormat
		}
	}
	return f, nil
}

// indexLine reads the words of a line from left to right.
type indexLine struct {
	rest   string
	shared []string
	bad    bool
}

func (r *indexLine) entry() indexEntry {
	e := indexEntry{CA: r.text()}
	authority := r.text()
	if serial, ok := strings.CutPrefix(r.word(), "."); !ok {
		r.bad = true
	} else if authority != "" && serial != "" {
		e.ID = authority + "." + serial
	}
	flags := r.number()
	e.Early = flags&flagEarly != 0
	e.NotAfter, e.RenewAt, e.Issued = unixTime(r.number()), unixTime(r.number()), unixTime(r.number())
	e.Leaf = leafID(r.unsigned())
	e.Gone = farewell{r.number(), r.number(), r.number(), r.text(), r.number()}
	if flags&flagSaid != 0 {
		e.Said = &suggestion{Leaf: leafID(r.unsigned()), Start: r.number(), End: r.number(), Renew: r.number(), Asked: r.number(), Next: r.number(), URL: r.text()}
	}
	return e
}

func (r *indexLine) word() string {
	word, rest, _ := strings.Cut(r.rest, " ")
	r.rest = rest
	return word
}

// number reads what strconv.AppendInt writes in base 36: a shard of a million names has two hundred thousand of them.
func (r *indexLine) number() int64 {
	n, at, negative := int64(0), 0, strings.HasPrefix(r.rest, "-")
	if negative {
		at = 1
	}
	first := at
	for ; at < len(r.rest) && r.rest[at] != ' ' && n <= maxUnix; at++ {
		digit := int64(r.rest[at] - '0')
		if c := r.rest[at]; c >= 'a' && c <= 'z' {
			digit = int64(c-'a') + 10
		} else if c < '0' || c > '9' {
			r.bad = true
		}
		n = 36*n + digit
	}
	r.bad = r.bad || at == first || n > maxUnix
	if r.rest = r.rest[at:]; r.rest != "" {
		r.rest = r.rest[1:]
	}
	if negative {
		return -n
	}
	return n
}

func (r *indexLine) unsigned() uint64 {
	n, err := strconv.ParseUint(r.word(), 36, 64)
	r.bad = r.bad || err != nil
	return n
}

func (r *indexLine) text() string {
	n := r.number()
	if r.bad || n < 0 || n >= int64(len(r.shared)) {
		r.bad = true
		return ""
	}
	return r.shared[n]
}

// maxUnix keeps times within what can be calculated with: the year 10000 and its like before Christ.
const maxUnix = 253402300800

// unixOf is the reverse of unixTime.
func unixOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// apply brings changes in, and reports whether anything changed. What is older than what is there does not count.
func (f *indexShardFile) apply(changes map[string]*indexEntry) bool {
	changed := false
	for name, e := range changes {
		old, there := f.Names[name]
		switch {
		case e == nil && there:
			delete(f.Names, name)
			changed = true
		case e == nil || there && !e.same(old) && old.Issued.After(e.Issued):
		default:
			now := old
			if !there || !e.same(old) {
				now = *e
			}
			if e.Said != nil && e.Said.newerThan(now.Said) {
				now.Said = e.Said
			}
			now.Gone = e.Gone.newer(old.Gone)
			if !there || now != old {
				f.Names[name] = now
				changed = true
			}
		}
	}
	return changed
}

// see enters the visits that this process knows of, where that is worth a write, and returns the names.
func (f *indexShardFile) see(v *visits, now time.Time) map[string]indexEntry {
	seen := map[string]indexEntry{}
	for name, e := range f.Names {
		at, _ := v.last(subject(name))
		if e.Gone.Seen == 0 {
			at = max(at, now.Unix()) // we begin to look
		}
		if at-e.Gone.Seen >= int64(visitEvery/time.Second) {
			e.Gone.Seen = at
			f.Names[name], seen[name] = e, e
		}
	}
	return seen
}

// same reports whether both are about one certificate.
func (e *indexEntry) same(other indexEntry) bool {
	return e.Leaf == other.Leaf && e.CA == other.CA && e.NotAfter.Equal(other.NotAfter)
}

// claim makes us the one who asks about the shard's certificates until then. It returns until when another process does instead; zero if none does.
func (f *indexShardFile) claim(self string, now, until time.Time) (others time.Time) {
	if f.Asker != self && now.Before(f.Until) && f.Until.Before(now.Add(2*indexSeldom)) {
		return f.Until
	}
	f.Asker, f.Until = self, until.Truncate(time.Second)
	return time.Time{}
}
