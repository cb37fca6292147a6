package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

func TestScan_FindsKeysInEverySpelling(t *testing.T) {
	const text = "\ufeff# comment = 1\r\n" +
		"a = 1\r\n" +
		"b.c . \"d e\" = 'x = 2' # y = 3\n" +
		"\"q\\u0041\\\"\" = \"\"\"\nnot.a.key = 1\\\"\"\"\"\"\n" +
		"'lit\\' = '''\n[no] = 1''''\n" +
		"list = [1, # one\n [2, 3],\n  {in = 'l', deep.er = [4]}, ]\n" +
		"when = 1979-05-27 07:32:00\n" +
		"[t . u]\nk=true\n" +
		"[[arr]]\nk = 1\n[arr.sub]\nk = 2\n[[arr.more]]\nk = 3\n[[arr.more]]\nk = 4\n[[arr]]\nk = 5\n" +
		"empty = {}\nmany = { a = {\n b = 1 }, # TOML 1.1\n c = 2, }\n"
	if _, err := toml.Decode(text, new(map[string]any)); err != nil {
		t.Fatal(err)
	}
	ps := scan(text)
	for path, want := range map[string]string{
		"a":                "1",
		`b.c."d e"`:        "'x = 2'",
		`"qA\""`:           "\"\"\"\nnot.a.key = 1\\\"\"\"\"\"",
		`"lit\\"`:          "'''\n[no] = 1''''",
		"list[0]":          "1",
		"list[1]":          "[2, 3]",
		"list[1][1]":       "3",
		"list[2].in":       "'l'",
		"list[2].deep.er":  "[4]",
		"when":             "1979-05-27 07:32:00",
		"t.u.k":            "true",
		"arr[0].k":         "1",
		"arr[0].sub.k":     "2",
		"arr[0].more[0].k": "3",
		"arr[0].more[1].k": "4",
		"arr[1].k":         "5",
		"arr[1].empty":     "{}",
		"arr[1].many.a.b":  "1",
		"arr[1].many.c":    "2",
	} {
		p, ok := ps[path]
		if got := text[p.value.start:p.value.end]; !ok || got != want {
			t.Errorf("%s is at %q, want %q", path, got, want)
		}
	}
	for path, want := range map[string]string{"t": "t", "t.u": "u", "arr": "arr", "arr[1]": "arr", "arr[0].sub": "sub", "b.c": "c"} {
		p := ps[path]
		if got := text[p.key.start:p.key.end]; got != want {
			t.Errorf("the key of %s is at %q, want %q", path, got, want)
		}
	}
}

func TestPlaces_PointToWhatHoldsAnUnknownPath(t *testing.T) {
	text := "[a]\nb = { c = 1 }\n\"x.y[0]\" = 2\n"
	ps := scan(text)
	for path, want := range map[string]string{
		"a.b.c":           "c",
		"a.b.d":           "b",
		"a.b.c[3].d":      "c",
		`a."x.y[0]".z`:    `"x.y[0]"`,
		`a."no\"such".z`:  "a",
		"a.nothing.there": "a",
	} {
		p := ps.nearest(path)
		if got := text[p.key.start:p.key.end]; got != want {
			t.Errorf("%s points to %q, want %q", path, got, want)
		}
	}
	if p := ps.nearest("elsewhere"); p != (place{}) {
		t.Errorf("an unknown key points to %v, want the beginning", p)
	}
}

func TestParentPath_UndoesJoin(t *testing.T) {
	for _, path := range []string{"", "a", "a.b", "a[0]", `"a.b"`, `x."a\"]."`} {
		for _, key := range []string{"k", "k.l", `"`, `\`, "]", "k[0]", "", "ü"} {
			if got := parentPath(joinKey(path, key)); got != path {
				t.Errorf("the parent of %s is %s, want %s", joinKey(path, key), got, path)
			}
		}
		if got := parentPath(joinIndex(path, 12)); got != path {
			t.Errorf("the parent of %s is %s, want %s", joinIndex(path, 12), got, path)
		}
	}
}

// FuzzScan compares the scanner with the decoder: what the decoder has, the scanner finds, at a place within the text.
func FuzzScan(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*/*.toml")
	for _, path := range append(paths, "testdata/contract.toml") {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Add("a = [[1], [{b = 2}]]\n[[c]]\n[[c.d]]\n'e f'.\"g\\th\" = 3")
	f.Fuzz(func(t *testing.T, text string) {
		ps := scan(text) // never panics, whatever the text is
		for path, p := range ps {
			if p.key.start < 0 || p.key.start > p.key.end || p.key.end > len(text) || p.value.start < 0 || p.value.start > p.value.end || p.value.end > len(text) {
				t.Fatalf("%s is at %v, outside of %d bytes", path, p, len(text))
			}
		}
		tree := map[string]any{}
		if _, err := toml.Decode(text, &tree); err != nil || strings.Count(text, "[")+strings.Count(text, "{") > maxDepth {
			return
		}
		find(t, ps, text, "", tree)
	})
}

func find(t *testing.T, ps places, text, path string, v any) {
	if path != "" {
		p, ok := ps[path]
		if !ok {
			t.Fatalf("%s is nowhere in %q", path, text)
		}
		checkValue(t, path, text[p.value.start:p.value.end], v)
	}
	if m, ok := v.(map[string]any); ok {
		for k, e := range m {
			find(t, ps, text, joinKey(path, k), e)
		}
	}
	if list, ok := listOf(v); ok {
		for i, e := range list {
			find(t, ps, text, joinIndex(path, i), e)
		}
	}
}

// checkValue decodes what stands at a place alone: it must be the same value.
func checkValue(t *testing.T, path, at string, v any) {
	switch v.(type) {
	case string, int64, bool:
	default:
		return
	}
	var alone struct{ V any }
	if _, err := toml.Decode("V = "+at, &alone); err != nil {
		t.Fatalf("at %s stands %q: %v", path, at, err)
	}
	if !reflect.DeepEqual(alone.V, v) {
		t.Fatalf("at %s stands %q, which is %v, not %v", path, at, alone.V, v)
	}
}
