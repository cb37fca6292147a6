package config

import (
	"fmt"
	"strings"
	"testing"
)

// A hosting platform that lists its sites in files still starts and reloads quickly.
func BenchmarkParse_10000Sites(b *testing.B) {
	var text strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&text, site, fmt.Sprintf("site-%d.example.com", i), fmt.Sprintf("http://127.0.0.1:%d", 1000+i))
	}
	data := []byte(text.String())
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("gatelodge.toml", data); err != nil {
			b.Fatal(err)
		}
	}
}
