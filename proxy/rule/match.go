package rule

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Match says which requests a route takes: those that meet all of it. The zero Match takes every request.
type Match struct {
	// Paths are patterns, of which one has to match; none matches every path. "/a/b" is that path alone, "/a/*" is "/a" and everything below it, "/*" is every
	// path. Patterns are compared with the canonical path byte by byte, upper and lower case being different (RFC 3986 §6.2.2.1).
	Paths []string

	// Methods are compared as they are (RFC 9110 §9.1); none matches every method. "GET" takes HEAD too.
	Methods []string
}

// Pattern is one path of a Match.
type Pattern struct {
	path    string // canonical, without "/*"
	decoded string // the same without escapes, for readings that have none
	below   bool   // what is below it matches too
}

// parsePattern takes a pattern if every server reads it as we do.
func parsePattern(s string) (Pattern, error) {
	if !strings.HasPrefix(s, "/") {
		return Pattern{}, fmt.Errorf("path pattern %q does not begin with /", s)
	}
	path, below := strings.CutSuffix(s, "/*")
	if strings.IndexByte(path, '*') >= 0 {
		return Pattern{}, fmt.Errorf("path pattern %q: the only * is one behind the last /", s)
	}
	if strings.Contains(s, "//") {
		return Pattern{}, fmt.Errorf("path pattern %q has an empty segment, which is read in different ways", s)
	}
	if strings.ContainsAny(path, "?#") {
		return Pattern{}, fmt.Errorf("path pattern %q has a query or fragment; only paths are compared", s)
	}
	canonical, odd, err := Canonical(path)
	if err != nil {
		return Pattern{}, fmt.Errorf("path pattern %q: %w", s, err)
	}
	decoded, err := url.PathUnescape(canonical)
	if err != nil {
		return Pattern{}, fmt.Errorf("path pattern %q: %w", s, err)
	}
	if odd && (strings.Count(decoded, "/") != strings.Count(canonical, "/") || strings.IndexByte(decoded, ';') >= 0) {
		return Pattern{}, fmt.Errorf("path pattern %q: an escaped slash or a semicolon is read in different ways", s)
	}
	return Pattern{path: canonical, decoded: decoded, below: below}, nil
}

// CheckPattern reports what is wrong with a path pattern of a Match.
func CheckPattern(s string) error {
	_, err := parsePattern(s)
	return err
}

// Rest is what a canonical path that matches has behind the pattern, without the slash between.
func (p *Pattern) Rest(path string) string { return strings.TrimPrefix(path[len(p.path):], "/") }

// Below reports whether the pattern ends with "/*".
func (p *Pattern) Below() bool { return p.below }

// CheckMethod reports what is wrong with a method of a Match.
func CheckMethod(method string) error {
	if !isToken(method) {
		return fmt.Errorf("%q is no method", method)
	}
	return nil
}

// takes reports whether the path matches, in the form that it is in.
func (p *Pattern) takes(r Reading) bool {
	own := p.path
	if r.Decoded {
		own = p.decoded
	}
	if !strings.HasPrefix(r.Path, own) {
		return false
	}
	rest := r.Path[len(own):]
	return rest == "" && (own != "" || !p.below) || p.below && rest != "" && rest[0] == '/'
}

// covers reports whether everything that q takes is taken by p as well.
func (p *Pattern) covers(q *Pattern) bool {
	if !p.below {
		return !q.below && p.path == q.path
	}
	return q.path == p.path && (q.below || p.path != "") || strings.HasPrefix(q.path, p.path+"/")
}

// Matcher is a Match that is ready.
type Matcher struct {
	patterns []Pattern
	methods  []string
}

// NewMatcher checks a Match.
func NewMatcher(m Match) (Matcher, error) {
	var errs []error
	made := Matcher{methods: slices.Clone(m.Methods)}
	for _, s := range m.Paths {
		p, err := parsePattern(s)
		errs = append(errs, err)
		made.patterns = append(made.patterns, p)
	}
	for _, method := range m.Methods {
		errs = append(errs, CheckMethod(method))
	}
	if slices.Contains(made.methods, http.MethodGet) && !slices.Contains(made.methods, http.MethodHead) {
		made.methods = append(made.methods, http.MethodHead)
	}
	return made, errors.Join(errs...)
}

// Takes reports whether the request matches, and by which pattern; nil for a Match without paths.
func (m *Matcher) Takes(r Reading, method string) (*Pattern, bool) {
	if len(m.methods) > 0 && !slices.Contains(m.methods, method) {
		return nil, false
	}
	for i := range m.patterns {
		if m.patterns[i].takes(r) {
			return &m.patterns[i], true
		}
	}
	return nil, len(m.patterns) == 0
}

// Covers reports whether m takes every request that other takes, so that other is never reached behind it. Patterns that are in error cover nothing.
func (m Match) Covers(other Match) bool {
	a, err1 := NewMatcher(m)
	b, err2 := NewMatcher(other)
	if err1 != nil || err2 != nil {
		return false
	}
	for _, method := range b.methods {
		if len(a.methods) > 0 && !slices.Contains(a.methods, method) {
			return false
		}
	}
	if len(b.methods) == 0 && len(a.methods) > 0 || len(b.patterns) == 0 && len(a.patterns) > 0 {
		return false
	}
	for i := range b.patterns {
		if len(a.patterns) > 0 && !slices.ContainsFunc(a.patterns, func(p Pattern) bool { return p.covers(&b.patterns[i]) }) {
			return false
		}
	}
	return true
}
