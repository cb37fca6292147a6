package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// RekeyOptions are for Sealed.Rekey. The zero value seals everything anew, eight objects at a time.
type RekeyOptions struct {
	// Check only counts, and opens what it can.
	Check bool

	// Parallel is how many objects are worked on together. Zero means 8.
	Parallel int

	// Progress, if not nil, is told now and then how many objects were seen. It is not called concurrently.
	Progress func(seen int)
}

// RekeyReport says what Rekey found and did.
type RekeyReport struct {
	First     string         // the key that seals
	Keys      map[string]int // objects by the key that seals them now, by ID
	Plaintext int            // objects that lie in clear now though they should be sealed
	Clear     int            // objects that are not sealed by design (challenges of CAs)
	Rewritten int            // objects that were sealed anew by this run

	// Unknown are objects sealed with keys that are not in the ring, Damaged those that their key does not open; the first hundred of each.
	Unknown, Damaged []string

	unknown, damaged int
}

// Done reports whether the first key seals everything, so that the others can be taken out of the ring.
func (r *RekeyReport) Done() bool {
	return r.Plaintext == 0 && r.unknown == 0 && r.damaged == 0 && len(r.Keys) <= 1 && (len(r.Keys) == 0 || r.Keys[r.First] > 0)
}

// String is the report for a person, several lines.
func (r *RekeyReport) String() string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(r.Keys)) {
		role := ""
		if id == r.First {
			role = " (seals)"
		}
		fmt.Fprintf(&b, "%8d objects sealed with %s%s\n", r.Keys[id], id, role)
	}
	fmt.Fprintf(&b, "%8d objects in clear\n%8d objects sealed anew\n", r.Plaintext, r.Rewritten)
	listNames(&b, "key not in the ring", r.Unknown, r.unknown)
	listNames(&b, "damaged", r.Damaged, r.damaged)
	return b.String()
}

// Rekey walks through the whole store and seals with the first key what another key seals or what lies in clear, by compare-and-swap, while
// everybody goes on reading and writing. Objects that cannot be opened are reported and left as they are. It can be interrupted and begun again at any time.
//
// To rotate: give every node the new key as the second of the ring; make it the first; Rekey; take the old key out once Check says Done.
func (s *Sealed) Rekey(ctx context.Context, o RekeyOptions) (*RekeyReport, error) {
	if s.first == nil {
		return nil, errors.New("there is no key to seal with: set storage.encryption.keys")
	}
	w := &rekeying{s: s, o: o, report: &RekeyReport{First: s.first.ID, Keys: map[string]int{}}}
	if err := ForAll(ctx, s.inner, "", cmp.Or(o.Parallel, 8), w.object); err != nil {
		return w.report, fmt.Errorf("rekey: %w", err)
	}
	slices.Sort(w.report.Unknown)
	slices.Sort(w.report.Damaged)
	if !o.Check {
		if err := s.forgetKeys(ctx, w.report.Keys); err != nil {
			return w.report, fmt.Errorf("rekey: %w", err)
		}
	}
	return w.report, nil
}

// rekeying is one run of Rekey.
type rekeying struct {
	s *Sealed
	o RekeyOptions

	mu     sync.Mutex // guards report and seen; never held during I/O
	report *RekeyReport
	seen   int
}

// object brings one object up to date and counts it.
func (w *rekeying) object(ctx context.Context, name string) error {
	defer w.progress()
	if inClear(name) {
		w.count(func(r *RekeyReport) { r.Clear++ })
		return nil
	}
	for range 10 {
		again, err := w.attempt(ctx, name)
		if err != nil || !again {
			return err
		}
	}
	return fmt.Errorf("seal %s anew: %w", name, ErrConflict)
}

// attempt reports whether somebody else wrote the object in the meantime.
func (w *rekeying) attempt(ctx context.Context, name string) (again bool, err error) {
	stored, version, err := w.s.inner.Get(ctx, name)
	if errors.Is(err, ErrNotExist) {
		return false, nil
	}
	if _, damaged := errors.AsType[*CorruptError](err); damaged {
		w.count(func(r *RekeyReport) { r.Damaged = noteName(r.Damaged, &r.damaged, name) })
		return false, nil
	}
	if err == nil && version.Stale() {
		err = fmt.Errorf("read %s: %w", name, ErrStale)
	}
	if err != nil {
		return false, err
	}
	id, data := "", stored
	if isSealed(stored) {
		if data, err = w.s.unseal(name, stored); err != nil {
			return false, w.cannotOpen(name, err)
		}
		e, _ := parseEnvelope(stored)
		id = e.id
	}
	if w.o.Check || id == w.s.first.ID {
		w.count(func(r *RekeyReport) { r.found(id) })
		return false, nil
	}
	sealed, err := w.s.first.seal(name, data)
	if err != nil {
		return false, err
	}
	if _, err := w.s.inner.PutIf(ctx, name, sealed, version); err != nil {
		if errors.Is(err, ErrConflict) {
			return true, nil
		}
		return false, err
	}
	w.count(func(r *RekeyReport) { r.found(w.s.first.ID); r.Rewritten++ })
	return false, nil
}

func (w *rekeying) cannotOpen(name string, err error) error {
	missing, isKey := errors.AsType[*KeyError](err)
	switch {
	case isKey:
		w.count(func(r *RekeyReport) { r.Keys[missing.ID]++; r.Unknown = noteName(r.Unknown, &r.unknown, name) })
		return nil
	case isDamage(err):
		w.count(func(r *RekeyReport) { r.Damaged = noteName(r.Damaged, &r.damaged, name) })
		return nil
	}
	return err
}

func (w *rekeying) count(f func(r *RekeyReport)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w.report)
}

func (w *rekeying) progress() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen++; w.o.Progress != nil && w.seen%1000 == 0 {
		w.o.Progress(w.seen)
	}
}

// found counts an object by the key that seals it.
func (r *RekeyReport) found(id string) {
	if id == "" {
		r.Plaintext++
		return
	}
	r.Keys[id]++
}
