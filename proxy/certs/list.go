package certs

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
)

// maxStoredFailures is how many names with stored failures ListFailing tells of at most: an operator who has more has one reason for them, not so many.
const maxStoredFailures = 10_000

// errMoreFailures says that ListFailing left names out.
var errMoreFailures = fmt.Errorf("more than %d names have stored failures", maxStoredFailures)

// List yields the status of every name that Names knows, in order, as far as memory knows. A name takes memory only while it is looked at, so that a million of them can
// be listed.
func (m *Manager) List() iter.Seq[Status] {
	return m.list(m.Names(), nil)
}

// ListFailing is List of those alone that want somebody's attention, and knows the failures that storage has as well: on-demand names that failed before a restart, or in
// another process of the fleet. It lists storage, so it is for operators only. If storage fails, or ctx ends, the error says so, and the list has what was known until then.
func (m *Manager) ListFailing(ctx context.Context) (iter.Seq[Status], error) {
	stored, err := m.storedFailures(ctx)
	if err != nil {
		err = fmt.Errorf("failures may be missing that are in storage only: %w", err)
	}
	names := slices.AppendSeq(m.Names(), maps.Keys(stored))
	slices.Sort(names)
	all := m.list(slices.Compact(names), stored)
	return func(yield func(Status) bool) {
		for s := range all {
			if s.Failing() && !yield(s) {
				return
			}
		}
	}, err
}

// storedFailures returns the statuses of the names whose failures are in storage. It ends with the first error.
func (m *Manager) storedFailures(ctx context.Context) (map[string]Status, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var mu sync.Mutex // guards found
	found := map[string]Status{}
	err := m.eachFailure(ctx, func(_ *rules, t target) error {
		s, err := m.Status(ctx, subject(t.name))
		mu.Lock()
		defer mu.Unlock()
		if err == nil && len(found) == maxStoredFailures {
			err = errMoreFailures
		}
		if err != nil {
			stop(err)
			return err
		}
		found[s.Name] = s
		return nil
	})
	if first := context.Cause(ctx); first != nil {
		err = first // and not what became of the others then
	}
	return found, err
}

// list yields the statuses of the names: those that are known, and of the others what memory knows.
func (m *Manager) list(names []string, known map[string]Status) iter.Seq[Status] {
	return func(yield func(Status) bool) {
		standings := m.queue.standings()
		for _, name := range names {
			s, ok := known[name]
			if !ok {
				s = m.remembered(name)
			}
			if w, ok := standings[s.Name]; ok {
				s.Position, s.Expected = w.position, w.expected
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
