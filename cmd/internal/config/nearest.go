package config

import (
	"fmt"
	"strings"
)

// oneOf advises what to write instead of the value s: the nearest of the valid ones, and all of them if they are few.
func oneOf(s string, valid []string) string {
	hint := didYouMean(s, valid...)
	if hint != "" && (len(valid) == 1 || len(valid) > few/2) {
		return hint
	}
	return strings.TrimSpace(hint + " " + validHere(valid))
}

// oneKey advises what to write instead of the key s: the nearest of the valid ones, or some of them if none is near.
func oneKey(s string, valid []string) string {
	if hint := didYouMean(s, valid...); hint != "" {
		return hint
	}
	return validHere(valid)
}

// few words are listed, more are not.
const few = 12

func validHere(valid []string) string {
	if len(valid) == 0 {
		return ""
	}
	quoted := make([]string, 0, few)
	for _, v := range valid[:min(few, len(valid))] {
		quoted = append(quoted, fmt.Sprintf("%q", v))
	}
	list := "valid here: " + strings.Join(quoted, ", ")
	if len(valid) > few {
		list += " ..."
	}
	return list
}

// didYouMean is empty when nothing valid is near.
func didYouMean(s string, valid ...string) string {
	if near := nearest(s, valid); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return ""
}

// nearest returns the valid word with the smallest edit distance, if it is small enough to be a slip: a third of the length, at
// least 2, or one word the beginning of the other.
func nearest(s string, valid []string) string {
	const longest = 64
	if s == "" || len(s) > longest {
		return ""
	}
	best, bestDistance := "", max(2, (len(s)+1)/3)+1
	for _, v := range valid {
		d := distance(strings.ToLower(s), strings.ToLower(v))
		if len(s) >= 3 && len(v) >= 3 && (strings.HasPrefix(v, s) || strings.HasPrefix(s, v)) {
			d = min(d, 2)
		}
		if d >= max(len(s), len(v)) { // nothing in common
			continue
		}
		if d < bestDistance {
			best, bestDistance = v, d
		}
	}
	return best
}

// distance counts the insertions, deletions, substitutions and swaps of neighbours that turn a into b (optimal string alignment), in bytes.
func distance(a, b string) int {
	before, previous := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(previous[j]+1, row[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, previous = previous, row
	}
	return previous[len(b)]
}
