package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the .golden files anew; look at the difference")

func TestParse_ReportsAllFaultsAtTheirPlaces(t *testing.T) {
	golden(t, "testdata/faults/*.toml", func(t *testing.T, name string, data []byte) string {
		_, err := Parse(name, data)
		var faults Faults
		if !errors.As(err, &faults) {
			t.Fatalf("no faults, but %v", err)
		}
		return faults.Error() + "\n"
	})
}

func TestExplain_SaysWhatAConfigurationMeans(t *testing.T) {
	golden(t, "testdata/valid/*.toml", func(t *testing.T, name string, data []byte) string {
		c, err := Parse(name, data)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := c.Explain(&b); err != nil {
			t.Fatal(err)
		}
		for _, w := range c.Warnings() {
			b.WriteString("\nwarning: " + w.Error() + "\n")
		}
		d := Default()
		return strings.NewReplacer(d.Storage.Path, "DATA", d.Admin.Listen, "ADMIN").Replace(b.String())
	})
}

// golden compares what of makes of each file with the .golden file beside it.
func golden(t *testing.T, pattern string, of func(t *testing.T, name string, data []byte) string) {
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	for _, path := range paths {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := of(t, name, data)
			if strings.Contains(got, "hunter2") {
				t.Errorf("a secret is shown:\n%s", got)
			}
			expected := strings.TrimSuffix(path, ".toml") + ".golden"
			if *update {
				if err := os.WriteFile(expected, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(expected)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
