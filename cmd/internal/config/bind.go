package config

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"gatelodge/proxy/hostname"
)

// A binder puts the decoder's tree into the structs. The decoder's own binding stops at the first wrong type, so we do it: every fault is noted and the
// rest goes on.
type binder struct {
	file   *file
	faults Faults
}

// A spot is what is being bound: its path in the file, and the same path as a pattern ("site[].hosts[]", "upstream.*.to") for the table of
// what is not there yet.
type spot struct{ path, pattern string }

func (s spot) key(k string) spot {
	return spot{joinKey(s.path, k), strings.TrimPrefix(s.pattern+"."+k, ".")}
}
func (s spot) entry(k string) spot { return spot{joinKey(s.path, k), s.pattern + ".*"} }
func (s spot) elem(i int) spot     { return spot{joinIndex(s.path, i), s.pattern + "[]"} }

func (b *binder) fault(at spot, problem, hint string) {
	b.faults = append(b.faults, (&source{b.file, at.path}).fault(problem, hint))
}

func (b *binder) faultAtKey(at spot, problem, hint string) {
	b.faults = append(b.faults, (&source{b.file, at.path}).faultAtKey(problem, hint))
}

// table binds the keys of a table to the struct v.
func (b *binder) table(at spot, m map[string]any, v reflect.Value) {
	fields := fieldsOf(v.Type())
	rest, takesRest := fields["*"]
	for _, key := range b.file.places.inOrder(at.path, keysOf(m)) {
		here := at.key(key)
		f, ok := fields[key]
		switch {
		case ok && key != "*":
			b.field(here, m[key], v.Field(f.index), f)
		case takesRest:
			own := v.Field(rest.index)
			if own.IsNil() {
				own.Set(reflect.MakeMap(own.Type()))
			}
			own.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(m[key]))
			b.hide(here) // a provider's own keys may well be secrets
		default:
			b.unknownKey(at, key, v.Type())
		}
	}
}

// field binds one key and refuses what this build cannot do.
func (b *binder) field(at spot, raw any, v reflect.Value, f field) {
	row, limited := pendingAt(at.pattern)
	before := len(b.faults)
	b.value(at, raw, v, f)
	if limited && row.absent() {
		b.faultAtKey(at, row.problem(at.path), row.Now)
	} else if limited && len(b.faults) == before && !row.permits(v) {
		b.fault(at, row.problem(at.path), row.Now)
	}
}

// value binds a raw value to v according to the type of v.
func (b *binder) value(at spot, raw any, v reflect.Value, f field) {
	if sc, ok := scalarOf(v.Type()); ok {
		b.scalar(at, raw, v, sc)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if m, ok := raw.(map[string]any); ok {
			b.table(at, m, v)
			return
		}
	case reflect.Map:
		if m, ok := raw.(map[string]any); ok {
			b.entries(at, m, v)
			return
		}
	case reflect.Slice:
		if list, ok := listOf(raw); ok {
			b.list(at, list, v, f)
			return
		}
	case reflect.String:
		if s, ok := raw.(string); ok {
			b.str(at, s, v, f)
			return
		}
	case reflect.Bool:
		if x, ok := raw.(bool); ok {
			v.SetBool(x)
			return
		}
	case reflect.Int:
		if n, ok := raw.(int64); ok {
			b.integer(at, n, v)
			return
		}
	case reflect.Float64:
		if n, ok := raw.(int64); ok {
			raw = float64(n)
		}
		if x, ok := raw.(float64); ok {
			v.SetFloat(x)
			return
		}
	}
	b.wrongType(at, v.Type(), raw)
}

func (b *binder) scalar(at spot, raw any, v reflect.Value, sc scalar) {
	s, ok := raw.(string)
	if !ok {
		b.wrongType(at, v.Type(), raw)
		return
	}
	x, err := sc.parse(s)
	if err != nil {
		if secretType(v.Type()) || hasUserinfo(s) {
			b.hide(at)
			err = badValue(hintOf(err), "%s: %v", at.path, err) // the key may be hidden too, behind another secret
		}
		b.invalid(at, err)
		return
	}
	v.Set(reflect.ValueOf(x))
}

// invalid reports a value that its parser refused.
func (b *binder) invalid(at spot, err error) {
	b.fault(at, err.Error(), hintOf(err))
}

func (b *binder) str(at spot, s string, v reflect.Value, f field) {
	if hasUserinfo(s) {
		b.hide(at)
	}
	switch {
	case f.enum != nil && !slices.Contains(f.enum, s):
		b.fault(at, fmt.Sprintf("unknown value %q", clip(s)), oneOf(s, b.possible(at, f.enum)))
		return
	case f.as == "host" && s != "":
		host, err := canonicalHost(s)
		if err != nil {
			b.invalid(at, err)
			return
		}
		s = host
	case f.as == "file" && s != "" && !filepath.IsAbs(s):
		s = filepath.Join(filepath.Dir(b.file.name), s)
	}
	v.SetString(s)
}

// possible are the values that this build does.
func (b *binder) possible(at spot, enum []string) []string {
	row, limited := pendingAt(at.pattern)
	if !limited {
		return enum
	}
	return slices.DeleteFunc(slices.Clone(enum), func(s string) bool { return !row.permits(reflect.ValueOf(s)) })
}

// canonicalHost is hostname.FromConfig with advice.
func canonicalHost(s string) (string, error) {
	host, err := hostname.FromConfig(s)
	if err == nil {
		return host, nil
	}
	_, rest, hasScheme := strings.Cut(s, "://")
	name, port, hasPort := strings.Cut(s, ":")
	switch {
	case hasScheme:
		return "", badValue("write the host alone: "+fmt.Sprintf("%q", strings.TrimRight(rest, "/")), "%q is a URL, not a host", s)
	case hasPort && strings.Trim(port, "0123456789") == "":
		return "", badValue(fmt.Sprintf("write %q; ports are set by listen.http and listen.https", name), "%q has a port", s)
	case strings.Contains(s, "*"):
		return "", badValue(`a wildcard is "*" alone or stands in front: "*.example.com"`, "%q is not a host name", s)
	}
	return "", badValue("", "%v", err)
}

func (b *binder) integer(at spot, n int64, v reflect.Value) {
	if n < 0 || n > 1<<31-1 {
		b.fault(at, fmt.Sprintf("%d is out of range", n), "write a number from 0 to 2147483647")
		return
	}
	v.SetInt(n)
}

// list replaces the default of a list: nothing is added to it.
func (b *binder) list(at spot, raw []any, v reflect.Value, f field) {
	list := reflect.MakeSlice(v.Type(), len(raw), len(raw))
	row, limited := pendingAt(at.pattern + "[]")
	for i, r := range raw {
		here, elem := at.elem(i), list.Index(i)
		prepare(elem)
		before := len(b.faults)
		b.value(here, r, elem, f)
		if limited && len(b.faults) == before && !row.permits(elem) {
			b.fault(here, row.problem(at.path), row.Now)
		}
	}
	v.Set(list)
}

// entries binds tables by name, such as [upstream.app].
func (b *binder) entries(at spot, m map[string]any, v reflect.Value) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for _, name := range b.file.places.inOrder(at.path, keysOf(m)) {
		here := at.entry(name)
		elem := reflect.New(v.Type().Elem()).Elem()
		prepare(elem)
		b.value(here, m[name], elem, field{})
		v.SetMapIndex(reflect.ValueOf(name), elem)
	}
}

// prepare gives an element of a list or table its defaults.
func prepare(v reflect.Value) {
	if x, ok := v.Addr().Interface().(interface{ setDefaults() }); ok {
		x.setDefaults()
	}
}

func (b *binder) wrongType(at spot, want reflect.Type, raw any) {
	b.file.slip(at.path)
	hint := ""
	if secretType(want) {
		b.hide(at)
	} else {
		hint = rewrite(want, raw)
	}
	b.fault(at, fmt.Sprintf("must be %s, not %s", kindOf(want), kindOfRaw(raw)), hint)
}

func (b *binder) unknownKey(at spot, key string, t reflect.Type) {
	here := at.key(key)
	names := keysOf(fieldsOf(t))
	slices.Sort(names)
	if near := nearest(key, names); near != "" {
		b.file.slip(joinKey(at.path, near))
		if secretType(t.Field(fieldsOf(t)[near].index).Type) {
			b.hide(here)
		}
	}
	if secretWords(key) || t == reflect.TypeFor[EAB]() {
		b.hide(here)
	}
	where := ""
	if at.path != "" {
		where = " in " + headerOf(at)
	}
	hint := oneKey(key, names)
	if _, of := fieldsOf(reflect.TypeFor[Route]())[key]; of && t == reflect.TypeFor[Site]() {
		hint = fmt.Sprintf("`%s` is for a part of a site: write it in a [[site.route]], for all of it with match = { path = [\"/*\"] }", key)
	}
	b.faultAtKey(here, fmt.Sprintf("unknown key %q%s", clip(key), where), hint)
}

// hide keeps the value at the spot out of all faults of this file.
func (b *binder) hide(at spot) {
	if p, ok := b.file.places[at.path]; ok && p.value.len() > 0 {
		b.file.hidden = append(b.file.hidden, p.value)
	}
}

// headerOf is how the table would be opened: "[[site]]", "[listen.limits]".
func headerOf(at spot) string {
	if strings.HasSuffix(at.pattern, "[]") {
		return "[[" + strings.ReplaceAll(strings.TrimSuffix(at.pattern, "[]"), "[]", "") + "]]"
	}
	return "[" + clip(at.path) + "]"
}

// hasUserinfo reports whether the value looks like a URL with a password.
func hasUserinfo(s string) bool {
	_, rest, ok := strings.Cut(s, "://")
	authority, _, _ := strings.Cut(rest, "/")
	return ok && strings.Contains(authority, "@")
}

func keysOf[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

// clip bounds a name that is shown in a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
