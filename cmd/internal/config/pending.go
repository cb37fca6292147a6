package config

import (
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
)

// A pendingRow is a key of the contract that this build cannot fully do. The feature's issue deletes the row.
type pendingRow struct {
	// Key is the path with "[]" for elements and "*" for names.
	Key string

	// Feature is what is missing, as it follows "not there yet:".
	Feature string

	// Now is what is possible in this build: the hint of the fault.
	Now string

	// Only are the values that this build does, in TOML. None (and no other rule): the key cannot be used at all.
	Only []string

	// Begin, if there is one, is how values that are not empty must begin.
	Begin string
}

// pending is the one list of what is known but not there yet.
var pending = []pendingRow{
	{Key: "issue.challenges[]", Feature: "dns-persist-01", Now: `use "tls-alpn-01", "http-01" and "dns-01"`, Only: []string{`"tls-alpn-01"`, `"http-01"`, `"dns-01"`}},

	{Key: "admin.listen", Feature: "an admin API on TCP", Now: `write "unix:///run/gatelodge/admin.sock", or "" to turn it off`, Begin: "unix:"},
	{Key: "admin.token", Feature: "an admin API on TCP", Now: "leave it out: the unix socket is for its owner and root", Only: []string{`""`}},
	{Key: "admin.dashboard", Feature: "the dashboard", Now: "leave it out or write false", Only: []string{"false"}},
}

// pendingAt returns the row of a path pattern.
func pendingAt(pattern string) (*pendingRow, bool) {
	for i := range pending {
		if pending[i].Key == pattern {
			return &pending[i], true
		}
	}
	return nil, false
}

// absent reports whether the key cannot be used at all.
func (r *pendingRow) absent() bool {
	return r.Only == nil && r.Begin == ""
}

// fixed reports whether only one value is possible, so that it says nothing to write it.
func (r *pendingRow) fixed() bool {
	return r.absent() || len(r.Only) == 1 && !strings.HasSuffix(r.Key, "[]")
}

func (r *pendingRow) problem(path string) string {
	return path + ": not there yet in this build: " + r.Feature
}

// permits reports whether this build does what the bound value asks for.
func (r *pendingRow) permits(v reflect.Value) bool {
	if r.Begin != "" && printed(v) != "" && !strings.HasPrefix(printed(v), r.Begin) {
		return false
	}
	if r.Only == nil {
		return true
	}
	for _, only := range r.Only {
		if equalToLiteral(v, only) {
			return true
		}
	}
	return false
}

// equalToLiteral compares a bound value with one that is written in TOML.
func equalToLiteral(v reflect.Value, literal string) bool {
	var doc map[string]any
	if _, err := toml.Decode("v = "+literal, &doc); err != nil {
		panic("config: pending: " + literal + ": " + err.Error()) // a test goes through all rows
	}
	want := reflect.New(v.Type()).Elem()
	(&binder{file: &file{}}).value(spot{}, doc["v"], want, field{})
	if v.Kind() == reflect.Slice && v.Len() == 0 && want.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(v.Interface(), want.Interface())
}
