package config

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const examplePath = "../../../config.example.toml"

func parseExample(t *testing.T) (*Config, *file) {
	t.Helper()
	data, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse("config.example.toml", data)
	if err != nil {
		t.Fatalf("config.example.toml is no valid configuration:\n%v", err)
	}
	return c, c.src.file
}

func TestExample_ShowsTheDefaultsOfTheCode(t *testing.T) {
	c, f := parseExample(t)
	defaults := defaultsAt(systemPaths())
	compared := 0
	for path, p := range f.places {
		if p.value.len() == 0 || strings.HasSuffix(path, "]") || isExample(f, p) {
			continue
		}
		got, ok := at(reflect.ValueOf(c).Elem(), path)
		if !ok {
			t.Fatalf("%s is not in the structs", path)
		}
		if got.Kind() == reflect.Struct && got.Type() == reflect.TypeFor[UpstreamTimeouts]() {
			continue // its keys are compared
		}
		want, ok := defaultAt(defaults, path)
		if !ok {
			t.Errorf("%s has no default in the code", path)
			continue
		}
		compared++
		if !sameValue(got, want) {
			t.Errorf("%s: the example shows %v, the default is %v; if it is meant so, mark it EXAMPLE", path, got, want)
		}
	}
	if compared < 40 {
		t.Errorf("only %d keys were compared", compared)
	}
}

func TestExample_MentionsEveryKeyThatWorks(t *testing.T) {
	_, f := parseExample(t)
	mentioned := map[string]bool{}
	for path := range f.places {
		pattern := regexp.MustCompile(`\[\d+\]`).ReplaceAllString(path, "[]")
		pattern = regexp.MustCompile(`^(upstream|dns|client_auth)\.[^.]+`).ReplaceAllString(pattern, "$1.*")
		mentioned[regexp.MustCompile(`(headers\.(?:response\.)?set)\.[^.]+$`).ReplaceAllString(pattern, "$1.*")] = true
	}
	for _, key := range leaves(reflect.TypeFor[Config](), "") {
		works := !slices.ContainsFunc(pending, func(r pendingRow) bool {
			return r.fixed() && (r.Key == key || strings.HasPrefix(key, r.Key+".") || strings.HasPrefix(key, r.Key+"["))
		})
		if works && !mentioned[key] {
			t.Errorf("%s works, but the example does not mention it", key)
		}
		if !works && mentioned[key] {
			t.Errorf("%s has only one possible value in this build: leave it out of the example", key)
		}
	}
}

func TestPending_RowsNameKeysOfTheSchema(t *testing.T) {
	keys := leaves(reflect.TypeFor[Config](), "")
	for _, row := range pending {
		key := strings.TrimSuffix(row.Key, "[]")
		if !slices.ContainsFunc(keys, func(k string) bool { return k == key || strings.HasPrefix(k, key+".") || strings.HasPrefix(k, key+"[") }) {
			t.Errorf("there is no key %s", row.Key)
		}
		if row.Feature == "" || row.Now == "" {
			t.Errorf("%s: a row says what is missing and what is possible", row.Key)
		}
	}
}

// The default of each key must be one that this build can do: leaving a key out is no request.
func TestPending_PermitsEachDefault(t *testing.T) {
	c := Default()
	c.Sites = make([]Site, 1)
	c.Sites[0].setDefaults()
	c.Upstreams = map[string]Upstream{"x": DefaultUpstream()}
	for _, row := range pending {
		if row.absent() || strings.HasSuffix(row.Key, "[]") {
			continue
		}
		path := strings.NewReplacer("[]", "[0]", "*", "x").Replace(row.Key)
		v, ok := at(reflect.ValueOf(c).Elem(), path)
		if !ok {
			t.Errorf("there is no key %s", row.Key)
		} else if !row.permits(v) {
			t.Errorf("%s: the default %v is not permitted", row.Key, v)
		}
	}
}

// isExample reports whether the line of the place is marked "# EXAMPLE". A mark with a value ("# EXAMPLE [...]") shows what else could stand
// there: the value on the line is the default then.
func isExample(f *file, p place) bool {
	line, _, _ := strings.Cut(f.text[p.key.start:], "\n")
	_, mark, ok := strings.Cut(line, "# EXAMPLE")
	mark = strings.TrimSpace(mark)
	return ok && !strings.HasPrefix(mark, `"`) && !strings.HasPrefix(mark, "[")
}

// defaultAt takes elements of lists and tables for new ones.
func defaultAt(defaults *Config, path string) (reflect.Value, bool) {
	for _, e := range []struct {
		prefix string
		value  any
	}{{`^ca\[0\]\.`, &defaults.CAs[0]}, {`^ca\[\d+\]\.`, &CA{}}, {`^site\[\d+\]\.`, &Site{}}, {`^upstream\.\w+\.`, &Upstream{}}, {`^dns\.\w+\.`, &DNS{}}, {`^client_auth\.\w+\.`, &ClientAuth{}}} {
		if prefix := regexp.MustCompile(e.prefix).FindString(path); prefix != "" {
			v := reflect.ValueOf(e.value).Elem()
			prepare(v)
			return at(v, path[len(prefix):])
		}
	}
	return at(reflect.ValueOf(defaults).Elem(), path)
}

// at follows a path of simple keys into a struct.
func at(v reflect.Value, path string) (reflect.Value, bool) {
	for segment := range strings.SplitSeq(path, ".") {
		key, index, indexed := strings.Cut(strings.TrimSuffix(segment, "]"), "[")
		switch v.Kind() {
		case reflect.Struct:
			f, ok := fieldsOf(v.Type())[key]
			if !ok {
				return v, false
			}
			v = v.Field(f.index)
		case reflect.Map:
			elem := reflect.New(v.Type().Elem()).Elem()
			elem.Set(v.MapIndex(reflect.ValueOf(key)))
			v = elem
		}
		if indexed {
			v = v.Index(int(index[0] - '0'))
		}
	}
	return v, true
}

// leaves are the patterns of all keys that hold no table.
func leaves(t reflect.Type, pattern string) []string {
	if _, ok := scalarOf(t); ok {
		return []string{pattern}
	}
	switch t.Kind() {
	case reflect.Struct:
		var keys []string
		for key, f := range fieldsOf(t) {
			if key == "*" {
				continue
			}
			keys = append(keys, leaves(t.Field(f.index).Type, strings.TrimPrefix(pattern+"."+key, "."))...)
		}
		slices.Sort(keys)
		return keys
	case reflect.Map:
		return leaves(t.Elem(), pattern+".*")
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			if _, ok := scalarOf(t.Elem()); !ok && t.Elem() != reflect.TypeFor[Target]() {
				return leaves(t.Elem(), pattern+"[]")
			}
		}
	}
	return []string{pattern}
}

// TestReadme_ShowsValidConfigurations holds what people copy first to what the program takes. A block may lack the site that another one has.
func TestReadme_ShowsValidConfigurations(t *testing.T) {
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) < 4 {
		t.Fatalf("only %d blocks found", len(blocks))
	}
	for _, block := range blocks {
		text := block[1]
		if !strings.Contains(text, "[[site]]") {
			text += "\n[[site]]\nhosts = [\"example.com\"]\nto = \"http://127.0.0.1:3000\"\n"
		}
		if _, err := Parse("README.md", []byte(text)); err != nil {
			t.Errorf("%v\nin\n%s", err, text)
		}
	}
}
