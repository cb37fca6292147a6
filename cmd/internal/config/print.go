package config

import (
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"time"
)

// MarshalJSON shows the effective configuration, with the keys and spellings of the file. Keys with only one possible value in this build are left out. Secrets are
// references in the first place; queries of URLs, which often hold a token, are left out.
func (c *Config) MarshalJSON() ([]byte, error) {
	return json.Marshal(effective(reflect.ValueOf(c).Elem(), ""))
}

// String is the JSON of the configuration, so that a Config in a log shows no more than that.
func (c *Config) String() string {
	data, err := c.MarshalJSON()
	if err != nil {
		return "configuration: " + err.Error()
	}
	return string(data)
}

// GoString is String: "%#v" would print the fields themselves.
func (c *Config) GoString() string { return c.String() }

// effective turns a bound value back into what could stand in a file.
func effective(v reflect.Value, pattern string) any {
	if _, ok := scalarOf(v.Type()); ok {
		return printed(v)
	}
	switch v.Kind() {
	case reflect.Struct:
		table := map[string]any{}
		for key, f := range fieldsOf(v.Type()) {
			at := strings.TrimPrefix(pattern+"."+key, ".")
			if row, ok := pendingAt(at); ok && row.fixed() {
				continue
			}
			if x := effective(v.Field(f.index), at); !emptyTable(x) {
				table[key] = x
			}
		}
		return table
	case reflect.Map:
		table := map[string]any{}
		for _, key := range v.MapKeys() {
			table[key.String()] = effective(v.MapIndex(key), pattern+".*")
		}
		return table
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = effective(v.Index(i), pattern+"[]")
		}
		return list
	}
	if v.Kind() == reflect.String {
		return printed(v)
	}
	return v.Interface() // numbers and booleans, as JSON has them
}

func emptyTable(x any) bool {
	m, ok := x.(map[string]any)
	return ok && len(m) == 0
}

// printed is a single value as it is written in a file, without quotes.
func printed(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return formatDuration(x)
	case fmt.Stringer:
		return x.String()
	}
	return withoutQuery(fmt.Sprint(v.Interface()))
}

// withoutQuery hides the query and password of a URL.
func withoutQuery(s string) string {
	if !strings.Contains(s, "://") {
		return s
	}
	u, err := url.Parse(s)
	if err != nil {
		return "…"
	}
	if u.RawQuery != "" {
		u.RawQuery = "…"
	}
	return u.Redacted()
}
