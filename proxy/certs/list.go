package certs

import (
	"iter"
	"slices"
)

// List yields the status of every name that Names knows, in order, as far as memory knows; or of those alone that want somebody's attention. A name takes memory only
// while it is looked at, so that a million of them can be listed.
func (m *Manager) List(failing bool) iter.Seq[Status] {
	return func(yield func(Status) bool) {
		standings := m.queue.standings()
		for _, name := range m.Names() {
			s := m.remembered(name)
			if w, ok := standings[s.Name]; ok {
				s.Position, s.Expected = w.position, w.expected
			}
			if failing && !s.Failing() {
				continue
			}
			if !yield(s) {
				return
			}
		}
	}
}

// Failing reports whether the name has no certificate that serves though it should, or something keeps it from being renewed.
func (s *Status) Failing() bool {
	switch s.State {
	case StateBackingOff, StateWaiting, StateWithheld, StateExpired:
		return true
	case StateNotOurs, StateOwnFile:
		return false
	}
	return s.LastFailure != nil || s.Budget != "" || s.Second != nil && s.Second.Failing()
}

// subjects appends the subjects of what the planner knows.
func (p *planner) subjects(to []string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	to = slices.Grow(to, p.items.count)
	p.items.each(func(_ itemID, it *packedItem) { to = append(to, subject(it.name())) })
	return to
}
