package config

import (
	"reflect"
	"strings"
)

// RestartOnly returns the keys whose values differ in next and that a running process cannot take over: sockets, storage and logs are opened once. They have
// restart:"yes" in the structs.
func (c *Config) RestartOnly(next *Config) []string {
	return restartOnly(reflect.ValueOf(c).Elem(), reflect.ValueOf(next).Elem(), "")
}

func restartOnly(a, b reflect.Value, path string) []string {
	var keys []string
	for i := range a.NumField() {
		f := a.Type().Field(i)
		key := f.Tag.Get("toml")
		if key == "" {
			continue
		}
		at := strings.TrimPrefix(path+"."+key, ".")
		switch {
		case f.Tag.Get("restart") == "yes":
			if !sameValue(a.Field(i), b.Field(i)) {
				keys = append(keys, at)
			}
		case f.Type.Kind() == reflect.Struct:
			keys = append(keys, restartOnly(a.Field(i), b.Field(i), at)...)
		}
	}
	return keys
}

// sameValue takes an empty list for none.
func sameValue(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
