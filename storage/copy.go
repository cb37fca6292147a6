package storage

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// CopyOptions are for Copy. The zero value copies everything that makes sense elsewhere, and replaces nothing but older certificates.
type CopyOptions struct {
	// Prefix limits what is copied to the objects whose names begin so.
	Prefix string

	// Replace takes the source's object wherever the two differ.
	Replace bool

	// DryRun only says what would be done.
	DryRun bool

	// Leave, if not nil, reports which objects stay where they are: those that each store has for itself.
	Leave func(name string) bool

	// Stored, if not nil, is told of each object that is at the destination now, with its bytes there, be it that it was there before: to enter certificates into
	// the index of what is to be renewed. It is not called concurrently, nor in a dry run. An error ends the copying.
	Stored func(ctx context.Context, name string, data []byte) error

	// Parallel is how many objects are copied together. Zero means 8.
	Parallel int

	// Progress, if not nil, is told now and then how many objects were seen. It is not called concurrently.
	Progress func(seen int)
}

// CopyReport says what Copy did, in objects.
type CopyReport struct {
	DryRun   bool
	Created  int // were not at the destination
	Replaced int // were older there, or differed and were to be replaced
	Same     int // were there already
	Newer    int // certificates that are newer at the destination, left as they are

	// Differ are objects that differ at the destination and were left as they are; Damaged are those that the source cannot read. The first hundred of each.
	Differ, Damaged []string

	differ, damaged int
}

// String is the report for a person, several lines.
func (r *CopyReport) String() string {
	var b strings.Builder
	would := ""
	if r.DryRun {
		would = "would be "
	}
	fmt.Fprintf(&b, "%8d objects %screated\n%8d objects %sreplaced\n%8d objects there already\n", r.Created, would, r.Replaced, would, r.Same)
	if r.Newer > 0 {
		fmt.Fprintf(&b, "%8d certificates are newer at the destination\n", r.Newer)
	}
	listNames(&b, "differs, left as it is", r.Differ, r.differ)
	listNames(&b, "damaged, not copied", r.Damaged, r.damaged)
	return b.String()
}

// Copy brings the objects of src to dst by compare-and-swap, so that it can run while dst is in use, and again at any time: what is there already is left alone.
// A certificate replaces one that ends earlier. Any other object that differs at dst is left, and named in the report, unless Replace is set.
//
// Sealed stores are opened and sealed on the way: objects lie at dst as dst seals them. Leases, challenges of CAs and what belongs to the sealing of one store are not
// copied. Whatever dst has besides stays.
func Copy(ctx context.Context, src, dst Store, o CopyOptions) (*CopyReport, error) {
	c := &copying{src: src, dst: dst, o: o, report: &CopyReport{DryRun: o.DryRun}}
	err := ForAll(ctx, src, o.Prefix, cmp.Or(o.Parallel, 8), c.object)
	slices.Sort(c.report.Differ)
	slices.Sort(c.report.Damaged)
	if err != nil {
		return c.report, fmt.Errorf("copy: %w", err)
	}
	return c.report, nil
}

// copying is one run of Copy.
type copying struct {
	src, dst Store
	o        CopyOptions

	mu     sync.Mutex // guards report and seen; never held during I/O, but for calls of Stored
	report *CopyReport
	seen   int
}

// object copies one.
func (c *copying) object(ctx context.Context, name string) error {
	defer c.progress()
	if inClear(name) || c.o.Leave != nil && c.o.Leave(name) {
		return nil // challenges, the canary of another store's keys, and what else belongs to one store
	}
	data, version, err := c.src.Get(ctx, name)
	if errors.Is(err, ErrNotExist) {
		return nil // gone meanwhile
	}
	if _, damaged := errors.AsType[*CorruptError](err); damaged {
		c.count(func(r *CopyReport) { r.Damaged = noteName(r.Damaged, &r.damaged, name) })
		return nil
	}
	if err == nil && version.Stale() {
		err = fmt.Errorf("read %s: %w", name, ErrStale)
	}
	if err != nil {
		return err
	}
	for range 10 {
		is, err := c.bring(ctx, name, data)
		if err == nil {
			return c.stored(ctx, name, is)
		}
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("write %s: %w", name, ErrConflict)
}

func (c *copying) stored(ctx context.Context, name string, is []byte) error {
	if c.o.Stored == nil || c.o.DryRun || is == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.o.Stored(ctx, name, is)
}

// bring compares with what the destination has, and writes if need be. It returns what is there then; nil if that is damaged.
func (c *copying) bring(ctx context.Context, name string, data []byte) ([]byte, error) {
	there, version, err := c.dst.Get(ctx, name)
	_, damaged := errors.AsType[*CorruptError](err)
	switch {
	case errors.Is(err, ErrNotExist):
		return c.put(ctx, name, data, "", func(r *CopyReport) { r.Created++ })
	case damaged: // for LoadBundle and Quarantine to deal with
		c.count(func(r *CopyReport) { r.Differ = noteName(r.Differ, &r.differ, name) })
		return nil, nil
	case err != nil:
		return nil, err
	case version.Stale():
		return nil, fmt.Errorf("read %s: %w", name, ErrStale)
	case bytes.Equal(there, data):
		c.count(func(r *CopyReport) { r.Same++ })
		return there, nil
	case c.o.Replace:
		return c.put(ctx, name, data, version, func(r *CopyReport) { r.Replaced++ })
	}
	ours, err1 := DecodeBundle(name, data)
	theirs, err2 := DecodeBundle(name, there)
	switch {
	case err1 != nil || err2 != nil || !strings.HasPrefix(name, "certs/"):
		c.count(func(r *CopyReport) { r.Differ = noteName(r.Differ, &r.differ, name) })
		return there, nil
	case ours.NotAfter.After(theirs.NotAfter):
		return c.put(ctx, name, data, version, func(r *CopyReport) { r.Replaced++ })
	}
	c.count(func(r *CopyReport) { r.Newer++ })
	return there, nil
}

func (c *copying) put(ctx context.Context, name string, data []byte, v Version, count func(r *CopyReport)) ([]byte, error) {
	if !c.o.DryRun {
		if _, err := c.dst.PutIf(ctx, name, data, v); err != nil {
			return nil, err
		}
	}
	c.count(count)
	return data, nil
}

func (c *copying) count(f func(r *CopyReport)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c.report)
}

func (c *copying) progress() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen++; c.o.Progress != nil && c.seen%1000 == 0 {
		c.o.Progress(c.seen)
	}
}
