package config

import (
	"sort"
	"strconv"
	"strings"
)

// A span is a part of a text in bytes, from start to before end.
type span struct{ start, end int }

func (s span) len() int { return s.end - s.start }

// A place is where a key and its value stand. Tables with a header have no value.
type place struct{ key, value span }

// places are by path: `listen.limits.header_bytes`, `site[0].hosts[1]`, `upstream."a b".to`.
type places map[string]place

// nearest returns the place of the path or of the innermost thing that holds it.
func (ps places) nearest(path string) place {
	for path != "" {
		if p, ok := ps[path]; ok {
			return p
		}
		path = parentPath(path)
	}
	return place{}
}

// parentPath cuts the last key or index off. It reads from the front, since a quoted key may hold anything.
func parentPath(path string) string {
	cut := 0
	for i := 0; i < len(path); {
		cut = i
		if path[i] == '.' {
			i++
		}
		i += segment(path[i:])
	}
	return path[:cut]
}

// segment is the length of the key or index that the path begins with; 1 at least.
func segment(path string) int {
	if path == "" {
		return 1
	}
	if quoted, err := strconv.QuotedPrefix(path); err == nil {
		return len(quoted)
	}
	if end := strings.IndexAny(path[1:], ".["); end >= 0 {
		return 1 + end
	}
	return len(path)
}

func joinKey(path, key string) string {
	if !bareKey(key) {
		key = strconv.Quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func joinIndex(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func bareKey(key string) bool {
	for i := range len(key) {
		if !isBare(key[i]) {
			return false
		}
	}
	return key != ""
}

func isBare(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// inOrder sorts keys of a table by where they stand.
func (ps places) inOrder(path string, keys []string) []string {
	sort.Slice(keys, func(i, j int) bool {
		a, b := ps.nearest(joinKey(path, keys[i])), ps.nearest(joinKey(path, keys[j]))
		if a.key.start != b.key.start {
			return a.key.start < b.key.start
		}
		return keys[i] < keys[j]
	})
	return keys
}
