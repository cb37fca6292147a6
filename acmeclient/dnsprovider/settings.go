package dnsprovider

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// settings reads a provider's own keys and gathers what is wrong with them. No fault shows a value: it may be a secret in the wrong place.
type settings struct {
	own     map[string]any
	resolve func(string) (string, error)
	known   []string
	errs    []error
}

func newSettings(own map[string]any, resolve func(string) (string, error)) *settings {
	return &settings{own: own, resolve: resolve}
}

func (s *settings) fault(format string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf(format, args...))
}

// has reports whether the key is there.
func (s *settings) has(key string) bool {
	s.know(key)
	return s.own[key] != nil
}

func (s *settings) know(key string) {
	if !slices.Contains(s.known, key) {
		s.known = append(s.known, key)
	}
}

// text returns a string; empty with a fault if it is missing or no string.
func (s *settings) text(key string) string {
	if !s.has(key) {
		s.fault("%s is required", key)
		return ""
	}
	return s.textOr(key, "")
}

// textOr returns a string or, without the key, what it stands for.
func (s *settings) textOr(key, absent string) string {
	if !s.has(key) {
		return absent
	}
	v, ok := s.own[key].(string)
	switch {
	case !ok:
		s.fault("%s is not a string", key)
	case v == "":
		s.fault("%s is empty", key)
	case strings.ContainsFunc(v, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		s.fault("%s has control characters", key)
		return ""
	}
	return v
}

// secret returns what the reference leads to.
func (s *settings) secret(key string) string {
	ref := s.text(key)
	if ref == "" {
		return ""
	}
	v, err := s.resolve(ref)
	switch {
	case err != nil:
		s.fault("%s: %w", key, err)
	case v == "":
		s.fault("%s: the secret is empty", key)
	}
	return v
}

// texts returns a string or a list of strings as a list.
func (s *settings) texts(key string) []string {
	list, ok := s.own[key].([]any)
	if !ok {
		return []string{s.text(key)}
	}
	s.know(key)
	var all []string
	for _, v := range list {
		text, ok := v.(string)
		if !ok {
			s.fault("%s is not a list of strings", key)
			return nil
		}
		all = append(all, text)
	}
	if len(all) == 0 {
		s.fault("%s is empty", key)
	}
	return all
}

// duration returns a positive duration.
func (s *settings) duration(key string, absent, most time.Duration) time.Duration {
	if !s.has(key) {
		return absent
	}
	d, err := time.ParseDuration(s.textOr(key, ""))
	if err != nil || d <= 0 || d > most {
		s.fault("%s: write a duration such as \"30s\", at most %v", key, most)
		return absent
	}
	return d
}

// faults returns everything that is wrong, keys that nobody asked for included.
func (s *settings) faults(kind string) error {
	for _, key := range slices.Sorted(maps.Keys(s.own)) {
		if !slices.Contains(s.known, key) {
			s.fault("unknown key %q: %s has %s", key, kind, strings.Join(s.known, ", "))
		}
	}
	return errors.Join(s.errs...)
}
