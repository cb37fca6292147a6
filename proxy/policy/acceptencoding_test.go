package policy

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var weightedItem = regexp.MustCompile(`^[ \t]*([^ \t;]+|[^ \t;][^;]*[^ \t;])[ \t]*(?:;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.[0-9]{0,3})?)[ \t]*)?$`)

// slowWeight reads the whole field for one coding, in the words of RFC 9110 §12.5.3.
func slowWeight(field string, names ...string) (q float64, said bool) {
	for item := range strings.SplitSeq(field, ",") {
		m := weightedItem.FindStringSubmatch(item)
		if m == nil || !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, m[1]) }) {
			continue
		}
		if m[2] == "" {
			return 1, true
		}
		if w, _ := strconv.ParseFloat(m[2], 64); w <= 1 {
			return w, true
		}
	}
	return 0, false
}

func slowNegotiate(field string, offered []string) (best string) {
	most := 0.0
	for _, coding := range offered {
		names := []string{coding}
		if coding == "gzip" {
			names = append(names, "x-gzip")
		}
		q, said := slowWeight(field, names...)
		if !said {
			q, _ = slowWeight(field, "*")
		}
		if q > most {
			best, most = coding, q
		}
	}
	if q, _ := slowWeight(field, "identity"); q > most {
		return ""
	}
	return best
}

func FuzzNegotiate(f *testing.F) {
	for _, s := range []string{
		"", "gzip", "gzip, deflate, br, zstd", "*;q=0.5, gzip;q=0", "identity;q=0.5, *;q=0.1", "br;q=1.000,gzip;q=0.999", "gzip;q=1.5", "gzip;q=", ";q=1", "x-gzip;Q=0.3", "zstd ;q=0.25\t",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		offered := []string{"zstd", "br", "gzip"}
		if got, want := negotiate([]string{field}, offered), slowNegotiate(field, offered); got != want {
			t.Errorf("%q: %q, want %q", field, got, want)
		}
	})
}
