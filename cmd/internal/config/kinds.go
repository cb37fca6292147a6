package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"
)

// A field is what a struct field's tags say.
type field struct {
	index int
	enum  []string // the values that exist at all
	as    string   // "host": canonical spelling; "file": relative to the file that names it
}

// fieldsOf returns the fields of a struct by their keys. "*" takes all other keys.
func fieldsOf(t reflect.Type) map[string]field {
	fields := map[string]field{}
	for i := range t.NumField() {
		f := t.Field(i)
		key := f.Tag.Get("toml")
		if key == "" {
			continue
		}
		fields[key] = field{index: i, as: f.Tag.Get("as")}
		if e := f.Tag.Get("enum"); e != "" {
			fields[key] = field{index: i, as: f.Tag.Get("as"), enum: strings.Split(e, "|")}
		}
	}
	return fields
}

// A scalar is a type that is written as a string.
type scalar struct {
	kind  string // for "must be ..."
	parse func(string) (any, error)
}

// scalarOf returns how the type is written, if it is one of ours that is written as a string.
func scalarOf(t reflect.Type) (scalar, bool) {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return scalar{`a duration such as "30s"`, generic(parseDuration)}, true
	case reflect.TypeFor[Size]():
		return scalar{`a size such as "64KiB"`, generic(parseSize)}, true
	case reflect.TypeFor[Rate]():
		return scalar{`a rate such as "5/s"`, generic(parseRate)}, true
	case reflect.TypeFor[Fraction]():
		return scalar{`a fraction such as "2/3"`, generic(parseFraction)}, true
	case reflect.TypeFor[Percent]():
		return scalar{`a percentage such as "30%"`, generic(parsePercent)}, true
	case reflect.TypeFor[Secret]():
		return scalar{`a reference such as "env:NAME"`, generic(parseSecret)}, true
	case reflect.TypeFor[Hook]():
		return scalar{`a URL or a reference such as "env:NAME"`, generic(parseHook)}, true
	case reflect.TypeFor[SealingKey]():
		return scalar{`a reference such as "ID=file:/path"`, generic(parseSealingKey)}, true
	case reflect.TypeFor[User]():
		return scalar{`a user such as "NAME:HASH"`, generic(parseUser)}, true
	case reflect.TypeFor[netip.Prefix]():
		return scalar{`an address range such as "10.0.0.0/8"`, generic(parsePrefix)}, true
	case reflect.TypeFor[Address]():
		return scalar{`an address such as ":443"`, generic(parseAddress)}, true
	case reflect.TypeFor[Target]():
		return scalar{`a URL such as "http://127.0.0.1:3000"`, generic(parseTarget)}, true
	}
	return scalar{}, false
}

func generic[T any](parse func(string) (T, error)) func(string) (any, error) {
	return func(s string) (any, error) { return parse(s) }
}

// secretType reports whether a value that does not fit the type may be a secret.
func secretType(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[Hook](), reflect.TypeFor[Secret](), reflect.TypeFor[SealingKey](), reflect.TypeFor[[]SealingKey](), reflect.TypeFor[User](), reflect.TypeFor[[]User]():
		return true
	}
	return false
}

// listOf takes both kinds of lists that the decoder makes.
func listOf(raw any) ([]any, bool) {
	switch x := raw.(type) {
	case []any:
		return x, true
	case []map[string]any:
		list := make([]any, len(x))
		for i := range x {
			list[i] = x[i]
		}
		return list, true
	}
	return nil, false
}

func kindOf(t reflect.Type) string {
	if sc, ok := scalarOf(t); ok {
		return sc.kind
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "a table"
	case reflect.Slice:
		if k := t.Elem().Kind(); k == reflect.Struct {
			if _, ok := scalarOf(t.Elem()); !ok {
				return "an array of tables"
			}
		}
		return "a list such as [" + exampleOf(t.Elem()) + "]"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	}
	return "a string"
}

func exampleOf(t reflect.Type) string {
	if sc, ok := scalarOf(t); ok {
		_, example, _ := strings.Cut(sc.kind, "such as ")
		return example
	}
	return `"..."`
}

func kindOfRaw(raw any) string {
	switch x := raw.(type) {
	case string:
		return "a string"
	case int64:
		return "the number " + fmt.Sprint(x)
	case float64:
		return "the number " + fmt.Sprint(x)
	case bool:
		return fmt.Sprint(x)
	case map[string]any:
		return "a table"
	case []any, []map[string]any:
		return "a list"
	case time.Time:
		return "a date"
	}
	return fmt.Sprintf("a %T", raw)
}

// rewrite is the value as it was probably meant.
func rewrite(want reflect.Type, raw any) string {
	list, isList := listOf(raw)
	switch x := raw.(type) {
	case string:
		if want.Kind() == reflect.Slice && len(x) < 60 && !hasUserinfo(x) {
			return fmt.Sprintf("write [%q]", x)
		}
	case int64:
		if want == reflect.TypeFor[time.Duration]() && x >= 0 {
			return fmt.Sprintf(`write "%ds" if seconds are meant`, x)
		}
		if want == reflect.TypeFor[Size]() && x >= 0 {
			return fmt.Sprintf("write %q", Size(x))
		}
	}
	if isList && len(list) == 1 && want.Kind() != reflect.Slice {
		return "write the value without [ ]"
	}
	return ""
}
