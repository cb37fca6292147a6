package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Fault is one thing that is wrong in a configuration, or odd (see [Config.Warnings]).
type Fault struct {
	// File, Line and Column (in characters, from 1) say where. Line is 0 for a fault of no line: a missing file, a flag.
	File         string
	Line, Column int

	// Source is the line, as far as it can be shown: secrets are left out. Width is how many of its characters are meant.
	Source string
	Width  int

	Problem string // what is wrong
	Hint    string // what to do; may be empty

	order int // the file's place among the files
}

// Error says all about the fault in up to four lines: what, the source line, a caret, what to do.
func (f *Fault) Error() string {
	var b strings.Builder
	switch {
	case f.Line > 0:
		fmt.Fprintf(&b, "%s:%d:%d: %s", f.File, f.Line, f.Column, f.Problem)
		number := fmt.Sprintf("%5d", f.Line)
		fmt.Fprintf(&b, "\n%s | %s", number, f.Source)
		fmt.Fprintf(&b, "\n%*s | %s%s", len(number), "", strings.Repeat(" ", f.indent()), strings.Repeat("^", max(f.Width, 1)))
	case f.File != "":
		fmt.Fprintf(&b, "%s: %s", f.File, f.Problem)
	default:
		b.WriteString(f.Problem)
	}
	if f.Hint != "" {
		b.WriteString("\n        ")
		b.WriteString(f.Hint)
	}
	return b.String()
}

// indent is where the caret begins: below the column, or below the end of what is shown of the line.
func (f *Fault) indent() int {
	return max(min(f.Column, utf8.RuneCountInString(f.Source))-1, 0)
}

// Place is "file:line:column", or the file alone.
func (f *Fault) Place() string {
	if f.Line == 0 {
		return f.File
	}
	return fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
}

// Faults are all that is wrong with a configuration, in the order of the files. It is the error of [Load] and [Parse].
type Faults []Fault

func (fs Faults) Error() string {
	var b strings.Builder
	for i := range fs {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(fs[i].Error())
	}
	return b.String()
}

// Unwrap lets errors.As find each Fault.
func (fs Faults) Unwrap() []error {
	errs := make([]error, len(fs))
	for i := range fs {
		errs[i] = &fs[i]
	}
	return errs
}

func (fs Faults) sorted() Faults {
	slices.SortStableFunc(fs, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return fs
}

// orNil avoids an error that is not nil and has no faults.
func (fs Faults) orNil() error {
	if len(fs) == 0 {
		return nil
	}
	return fs.sorted()
}

// A file is one text with the places of its keys.
type file struct {
	name   string
	text   string
	order  int
	places places

	// hidden are spans of the text that are never shown: secrets that stand there literally, values of keys that we do not know.
	hidden []span

	// slips are the keys that others were probably meant to be.
	slips map[string]bool
}

func (f *file) slip(path string) {
	if f.slips == nil {
		f.slips = map[string]bool{}
	}
	f.slips[path] = true
}

// A source is where something of the configuration stands: a path in a file. A nil source is no file at all.
type source struct {
	file *file
	at   string
}

// key is the source of a key below s.
func (s *source) key(k string) *source {
	if s == nil {
		return nil
	}
	return &source{s.file, joinKey(s.at, k)}
}

// has reports whether the file has a key, by its path from the top.
func (s *source) has(path string) bool {
	if s == nil {
		return false
	}
	_, ok := s.file.places[path]
	return ok
}

// elem is the source of the element i of an array.
func (s *source) elem(i int) *source {
	if s == nil {
		return nil
	}
	return &source{s.file, joinIndex(s.at, i)}
}

// slipped reports whether the key was written wrongly, which was reported: it is not missing.
func (s *source) slipped() bool { return s != nil && s.file.slips[s.at] }

// fault makes a Fault that points to the value of s, or to its key if there is none, or to what holds it.
func (s *source) fault(problem, hint string) Fault {
	if s == nil {
		return Fault{Problem: problem, Hint: hint}
	}
	p := s.file.places.nearest(s.at)
	if p.value.len() > 0 {
		return s.file.fault(p.value, problem, hint)
	}
	return s.file.fault(p.key, problem, hint)
}

// faultAtKey makes a Fault that points to the key of s.
func (s *source) faultAtKey(problem, hint string) Fault {
	if s == nil {
		return Fault{Problem: problem, Hint: hint}
	}
	return s.file.fault(s.file.places.nearest(s.at).key, problem, hint)
}

// place is "file:line:column" of s.
func (s *source) place() string {
	f := s.fault("", "")
	return f.Place()
}

// fault makes a Fault that points to a span of the text. It never points outside of it.
func (f *file) fault(at span, problem, hint string) Fault {
	start := min(max(at.start, 0), len(f.text))
	end := min(max(at.end, start), len(f.text))
	lineStart := strings.LastIndexByte(f.text[:start], '\n') + 1
	lineEnd := len(f.text)
	if i := strings.IndexByte(f.text[start:], '\n'); i >= 0 {
		lineEnd = start + i
	}
	shown, cut := f.visible(lineStart, lineEnd)
	end = min(end, cut)
	return Fault{
		File:    f.name,
		Line:    1 + strings.Count(f.text[:lineStart], "\n"),
		Column:  1 + utf8.RuneCountInString(f.text[lineStart:start]),
		Source:  shown,
		Width:   max(utf8.RuneCountInString(f.text[min(start, end):end]), 1),
		Problem: problem,
		Hint:    hint,
		order:   f.order,
	}
}

// maxShown bounds a shown line, in bytes: a minified file has only one.
const maxShown = 400

// visible is the line from start to end as a terminal may show it: up to the first hidden span, which becomes "…", and without
// control characters, each of which becomes one space. It also returns where it ends.
func (f *file) visible(start, end int) (line string, cut int) {
	cut, more := end, ""
	for _, h := range f.hidden {
		if h.start < cut && h.end > start {
			cut, more = max(h.start, start), "…"
		}
	}
	if cut-start > maxShown {
		cut, more = start+maxShown, "…"
		for cut > start && !utf8.RuneStart(f.text[cut]) {
			cut--
		}
	}
	line = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.TrimRight(f.text[start:cut], "\r"))
	return line + more, cut
}
