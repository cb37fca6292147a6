package rule

import (
	"errors"
	"net/url"
	"strings"
	"unicode/utf8"
)

// Canonical returns the one form of a path by which the routes of a site decide, and which goes on to the upstream: what RFC 3986 calls equivalent is the same
// (§6.2.2.1, §6.2.2.2: escapes of unreserved characters are undone, others have capital digits), and what may not stand in a path unescaped is escaped. odd
// reports whether other servers may read it as another path (see Readings). What no two servers agree on is refused: dot segments however they are
// written, backslashes, control characters, and escapes that are not UTF-8.
func Canonical(path string) (canonical string, odd bool, err error) {
	if isPlainPath(path) {
		return path, false, nil
	}
	var b strings.Builder
	b.Grow(len(path) + 16)
	for i := 0; i < len(path); i++ {
		c, escaped := path[i], false
		if c == '%' {
			if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
				return "", false, errors.New("escape without two hexadecimal digits")
			}
			c, escaped = unhex(path[i+1])<<4|unhex(path[i+2]), true
			i += 2
		}
		switch {
		case c < ' ' || c == 0x7f:
			return "", false, errors.New("control character")
		case c == '\\':
			return "", false, errors.New("backslash")
		case isUnreserved(c), !escaped && isPathByte(c):
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
	canonical = b.String()
	decoded, err := url.PathUnescape(canonical)
	if err != nil || !utf8.ValidString(decoded) {
		return "", false, errors.New("bytes that are not UTF-8")
	}
	for segment := range strings.SplitSeq(decoded, "/") {
		if name, _, _ := strings.Cut(segment, ";"); name == "." || name == ".." {
			return "", false, errors.New("dot segment")
		}
	}
	odd = decoded != canonical || strings.IndexByte(canonical, ';') >= 0 || strings.Contains(canonical, "//")
	return canonical, odd, nil
}

// isPlainPath reports whether nothing about the path can be read in two ways.
func isPlainPath(path string) bool {
	slash := false
	for i := range len(path) {
		c := path[i]
		switch {
		case slash && (c == '.' || c == '/'):
			return false // perhaps a dot segment; an empty one
		case c == ';' || !isPathByte(c): // the percent sign is none
			return false
		}
		slash = c == '/'
	}
	return true
}

// A Reading is a path as another server may take it. Escapes are undone in it or not.
type Reading struct {
	Path    string
	Decoded bool
}

// Readings are the ways in which servers read a canonical path: parameters (RFC 3986 §3.3) cut off or not, escapes undone before or after that or not at all,
// and empty segments left out or not.
func Readings(canonical string) []Reading {
	cut := withoutParameters(canonical)
	decoded, err1 := url.PathUnescape(canonical)
	cutDecoded, err2 := url.PathUnescape(cut)
	if err1 != nil || err2 != nil {
		panic("rule: a canonical path has broken escapes: " + canonical) // Canonical wrote them
	}
	all := make([]Reading, 0, 10)
	for _, r := range [...]Reading{{canonical, false}, {cut, false}, {decoded, true}, {cutDecoded, true}, {withoutParameters(decoded), true}} {
		all = append(all, r, Reading{withoutEmptySegments(r.Path), r.Decoded})
	}
	return all
}

// withoutParameters cuts each segment at its first semicolon.
func withoutParameters(path string) string {
	if strings.IndexByte(path, ';') < 0 {
		return path
	}
	segments := strings.Split(path, "/")
	for i := range segments {
		segments[i], _, _ = strings.Cut(segments[i], ";")
	}
	return strings.Join(segments, "/")
}

// withoutEmptySegments makes one slash of several.
func withoutEmptySegments(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

const upperHex = "0123456789ABCDEF"

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&0x0f + 9
}

// isUnreserved reports whether c and its escape mean the same (RFC 3986 §2.3).
func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// isPathByte reports whether c may stand in a path as it is (RFC 3986 §3.3), the slash included.
func isPathByte(c byte) bool { return isUnreserved(c) || strings.IndexByte("/!$&'()*+,;=:@", c) >= 0 }
