package config

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// The TOML decoder says where a syntax error is but not where a key stands. This scanner finds the keys and values of a text that the decoder has
// accepted. It decides nothing: where it should misread something, a fault points to the nearest table that it knows.

// maxDepth bounds nesting, as the decoder does not.
const maxDepth = 100

type scanner struct {
	text   string
	pos    int
	depth  int
	places places
	arrays map[string]int // number of [[path]] headers so far
}

// scan returns where the keys and values of the text stand.
func scan(text string) places {
	s := &scanner{text: text, places: places{}, arrays: map[string]int{}}
	s.pos = len(text) - len(strings.TrimPrefix(text, "\ufeff"))
	table := ""
	for s.skipBlank(true); s.pos < len(s.text); s.skipBlank(true) {
		before := s.pos
		if s.peek() == '[' {
			table = s.header()
		} else {
			s.keyValue(table)
		}
		if s.pos == before { // not TOML: go on behind it
			s.pos++
		}
	}
	return s.places
}

func (s *scanner) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *scanner) take(c byte) bool {
	if s.pos < len(s.text) && s.text[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

// skipBlank skips white space and, if lines, line breaks and comments.
func (s *scanner) skipBlank(lines bool) {
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == ' ' || c == '\t' || c == '\r':
			s.pos++
		case lines && c == '\n':
			s.pos++
		case lines && c == '#':
			s.skipTo("\n")
		default:
			return
		}
	}
}

// skipTo stands before the first of the bytes, or at the end.
func (s *scanner) skipTo(any string) {
	if i := strings.IndexAny(s.text[s.pos:], any); i >= 0 {
		s.pos += i
	} else {
		s.pos = len(s.text)
	}
}

// A part is one segment of a dotted key.
type part struct {
	name string
	at   span
}

// header reads [a.b] or [[a.b]] and returns the path of the table that it opens.
func (s *scanner) header() string {
	s.pos++
	array := s.take('[')
	path := ""
	parts := s.dotted()
	for i, p := range parts {
		path = joinKey(path, p.name)
		last := i == len(parts)-1
		if last && array {
			s.note(path, place{key: p.at})
			path = joinIndex(path, s.arrays[path])
			s.arrays[parentPath(path)]++
		} else if n := s.arrays[path]; n > 0 {
			path = joinIndex(path, n-1)
		}
		s.note(path, place{key: p.at})
	}
	s.skipBlank(false)
	s.take(']')
	s.take(']')
	return path
}

// keyValue reads a.b = value below the table.
func (s *scanner) keyValue(table string) {
	path := table
	var at span
	for _, p := range s.dotted() {
		path = joinKey(path, p.name)
		at = p.at
		s.note(path, place{key: at})
	}
	s.skipBlank(false)
	if !s.take('=') {
		return
	}
	s.skipBlank(false)
	start := s.pos
	s.value(path)
	s.places[path] = place{key: at, value: s.trimmed(start)}
}

// note keeps the first place of a path: [a.b] also is where a stands, if no [a] came before.
func (s *scanner) note(path string, p place) {
	if _, ok := s.places[path]; !ok {
		s.places[path] = p
	}
}

func (s *scanner) trimmed(start int) span {
	return span{start, start + len(strings.TrimRight(s.text[start:s.pos], " \t\r\n"))}
}

func (s *scanner) dotted() []part {
	var parts []part
	for {
		s.skipBlank(false)
		start := s.pos
		name, ok := s.key()
		if !ok {
			return parts
		}
		parts = append(parts, part{name, span{start, s.pos}})
		s.skipBlank(false)
		if !s.take('.') {
			return parts
		}
	}
}

func (s *scanner) key() (string, bool) {
	if c := s.peek(); c == '"' || c == '\'' {
		start := s.pos
		s.quoted(c)
		return unquoteKey(s.text[start:s.pos]), true
	}
	start := s.pos
	for s.pos < len(s.text) && isBare(s.text[s.pos]) {
		s.pos++
	}
	return s.text[start:s.pos], s.pos > start
}

// value reads the value at path; elements of arrays and keys of inline tables are noted too.
func (s *scanner) value(path string) {
	if s.depth++; s.depth > maxDepth {
		s.pos = len(s.text)
	}
	defer func() { s.depth-- }()
	switch c := s.peek(); c {
	case '"', '\'':
		s.quoted(c)
	case '[':
		s.array(path)
	case '{':
		s.inline(path)
	default: // numbers, booleans, dates ("1979-05-27 07:32:00" has a space)
		s.skipTo(",]}\n#")
	}
}

func (s *scanner) array(path string) {
	s.pos++
	for i := 0; ; i++ {
		s.skipBlank(true)
		if s.pos >= len(s.text) || s.take(']') {
			return
		}
		start := s.pos
		elem := joinIndex(path, i)
		s.value(elem)
		at := s.trimmed(start)
		s.places[elem] = place{key: at, value: at}
		s.skipBlank(true)
		if !s.take(',') {
			s.take(']')
			return
		}
	}
}

func (s *scanner) inline(path string) {
	s.pos++
	for {
		s.skipBlank(true)
		if s.pos >= len(s.text) || s.take('}') {
			return
		}
		s.keyValue(path)
		s.skipBlank(true)
		if !s.take(',') {
			s.take('}')
			return
		}
	}
}

// quoted skips a string of any of the four kinds.
func (s *scanner) quoted(q byte) {
	rest := s.text[s.pos:]
	triple := strings.Repeat(string(q), 3)
	if strings.HasPrefix(rest, triple) {
		s.pos += 3
		for s.pos < len(s.text) {
			switch {
			case strings.HasPrefix(s.text[s.pos:], triple):
				s.pos += 3
				for range 2 { // up to two quotes may stand before the closing three
					s.take(q)
				}
				return
			case q == '"' && s.text[s.pos] == '\\':
				s.pos = min(s.pos+2, len(s.text))
			default:
				s.pos++
			}
		}
		return
	}
	s.pos++
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == q:
			s.pos++
			return
		case c == '\n':
			return
		case q == '"' && c == '\\':
			s.pos = min(s.pos+2, len(s.text))
		default:
			s.pos++
		}
	}
}

// unquoteKey decodes a quoted key with the escapes of TOML.
func unquoteKey(q string) string {
	body := strings.Trim(q, q[:1])
	if len(q) >= 2 {
		body = q[1 : len(q)-1]
	}
	if q[0] == '\'' || !strings.Contains(body, `\`) {
		return body
	}
	var b strings.Builder
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' || i+1 == len(body) {
			b.WriteByte(body[i])
			continue
		}
		i++
		if r, digits := escapeRune(body[i:]); digits >= 0 {
			b.WriteRune(r)
			i += digits
		} else {
			b.WriteByte(body[i])
		}
	}
	return b.String()
}

// escapeRune decodes what follows a backslash and returns how many bytes follow its first one; -1 if it is no escape.
func escapeRune(s string) (r rune, digits int) {
	const short, meaning = `btnfre"\`, "\b\t\n\f\r\x1b\"\\"
	if i := strings.IndexByte(short, s[0]); i >= 0 {
		return rune(meaning[i]), 0
	}
	n := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[0]]
	if n == 0 || len(s) <= n {
		return 0, -1
	}
	v, err := strconv.ParseUint(s[1:1+n], 16, 32)
	if err != nil || v > utf8.MaxRune {
		return 0, -1
	}
	return rune(v), n
}
