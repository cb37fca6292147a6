package hostname

import "fmt"

// Table finds what belongs to a host: the entry that names it exactly, else the wildcard one label above it, else the
// catch-all "*". The zero value is empty. A Table is built once and then only read, by any number of goroutines.
type Table[T any] struct {
	exact map[string]T
	wild  map[string]T // "*.example.com"
	all   *T
}

// Add enters a canonical pattern (see FromConfig). A pattern that is there already is an error.
func (t *Table[T]) Add(pattern string, v T) error {
	if pattern == "*" {
		if t.all != nil {
			return fmt.Errorf("host %q is listed twice", pattern)
		}
		t.all = &v
		return nil
	}
	m := &t.exact
	if pattern[0] == '*' {
		m = &t.wild
	}
	if *m == nil {
		*m = map[string]T{}
	}
	if _, ok := (*m)[pattern]; ok {
		return fmt.Errorf("host %q is listed twice", pattern)
	}
	(*m)[pattern] = v
	return nil
}

// Lookup returns what belongs to the canonical host. It allocates nothing but for hosts that only a wildcard could cover.
func (t *Table[T]) Lookup(host string) (T, bool) {
	if v, ok := t.exact[host]; ok {
		return v, true
	}
	if len(t.wild) > 0 {
		if w, ok := Wildcard(host); ok {
			if v, ok := t.wild[w]; ok {
				return v, true
			}
		}
	}
	if t.all != nil {
		return *t.all, true
	}
	var none T
	return none, false
}
