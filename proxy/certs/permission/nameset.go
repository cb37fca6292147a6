package permission

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gatelodge/proxy/hostname"
)

// nameList is what a names file allows.
type nameList struct {
	exact, suffix nameSet // suffix without its "*."
}

// parseNames reads a list of names. All faults come in one error with file and line, up to ten of them.
func parseNames(file string, data []byte) (*nameList, error) {
	list := &nameList{}
	var faults []error
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 64<<10)
	for n := 1; lines.Scan() && len(faults) < 10; n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if err := list.add(text); err != nil {
			faults = append(faults, fmt.Errorf("%s:%d: %w", file, n, err))
		}
	}
	if err := lines.Err(); err != nil {
		faults = append(faults, fmt.Errorf("%s: %w", file, err))
	}
	list.exact.sort()
	list.suffix.sort()
	return list, errors.Join(faults...)
}

func (l *nameList) add(text string) error {
	name, err := hostname.FromConfig(text)
	if err != nil {
		return err
	}
	if name == "*" {
		return errors.New("a bare * would let strangers order certificates for any name")
	}
	if suffix, ok := strings.CutPrefix(name, "*."); ok {
		l.suffix.add(suffix)
	} else {
		l.exact.add(name)
	}
	return nil
}

func (l *nameList) has(name string) bool {
	if l.exact.has(name) {
		return true
	}
	for rest, more := name, true; more && l.suffix.size() > 0; {
		if _, rest, more = strings.Cut(rest, "."); more && l.suffix.has(rest) {
			return true
		}
	}
	return false
}

func (l *nameList) size() int { return l.exact.size() + l.suffix.size() }

// nameSet is a set of names in 8 bytes each and their text, since there may be millions: one of them is looked for when a visitor brings a name that has no certificate,
// and seldom else. It can be read when it is sorted.
type nameSet struct {
	text []byte
	at   []uint64 // where each name stands in text, shifted by 8, and how long it is (a canonical name has 253 bytes at most)
}

func (s *nameSet) add(name string) {
	s.at = append(s.at, uint64(len(s.text))<<8|uint64(len(name)))
	s.text = append(s.text, name...)
}

func (s *nameSet) name(at uint64) []byte {
	begin := at >> 8
	return s.text[begin : begin+at&0xff]
}

func (s *nameSet) sort() {
	slices.SortFunc(s.at, func(a, b uint64) int { return bytes.Compare(s.name(a), s.name(b)) })
	s.at = slices.CompactFunc(s.at, func(a, b uint64) bool { return bytes.Equal(s.name(a), s.name(b)) })
	s.at, s.text = slices.Clip(s.at), slices.Clip(s.text)
}

func (s *nameSet) has(name string) bool {
	_, found := slices.BinarySearchFunc(s.at, name, func(at uint64, name string) int { return strings.Compare(string(s.name(at)), name) })
	return found
}

func (s *nameSet) size() int { return len(s.at) }
