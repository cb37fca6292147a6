package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// copied is the copy of an object: in the local store a line of JSON, and then the object's bytes.
type copied struct {
	version Version
	seen    time.Time // when the store last said so
	data    []byte
}

type copiedLine struct {
	Of      string    `json:"of,omitempty"`
	Version Version   `json:"version"`
	Seen    time.Time `json:"seen"`
}

// maxCopiedLine bounds the line. What would not fit into an object together with it is not copied.
const maxCopiedLine = 4 << 10

// copyName is a name with calls under way.
type copyName struct {
	users int // guarded by LocalCopy.mu

	// io holds one element while somebody reads and writes the name's copy, for which only callers of the same name wait. It guards queued.
	io     chan struct{}
	queued Version // of the copy that waits to be written; empty if none does

	mu      sync.Mutex // guards changes
	changes int        // grows when the copy changes: what a call learned before may be old then
}

func (l *LocalCopy) enter(name string) *copyName {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.names[name]
	if n == nil {
		n = &copyName{io: make(chan struct{}, 1)}
		l.names[name] = n
	}
	n.users++
	return n
}

func (l *LocalCopy) leave(name string, n *copyName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.users--; n.users == 0 {
		delete(l.names, name)
	}
}

func (n *copyName) lock()   { n.io <- struct{}{} }
func (n *copyName) unlock() { <-n.io }

func (n *copyName) now() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changes
}

// change returns the new count.
func (n *copyName) change() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changes++
	return n.changes
}

// keep makes c the copy, if nothing has changed since the call began, when n.now() was seen. A first copy is written in the background: a handshake waits for
// the caller. One that replaces another is written now, so that the other is gone when the caller goes on.
func (l *LocalCopy) keep(ctx context.Context, n *copyName, name string, seen int, c *copied) {
	n.lock()
	defer n.unlock()
	if n.queued == c.version {
		return
	}
	have := l.copyOf(ctx, name)
	switch {
	case have != nil && have.version == c.version:
		if c.seen.Sub(have.seen) >= copyConfirm && n.now() == seen {
			l.later(name, n, c)
		}
	case n.now() != seen:
		l.mustDelete(ctx, n, name)
	case have == nil:
		l.later(name, n, c)
	default:
		l.replace(ctx, n, name, c)
	}
}

// settle makes c the copy after a write; nil if it is only known that the copy is old. seen is n.now() when the write
// began.
func (l *LocalCopy) settle(ctx context.Context, n *copyName, name string, seen int, c *copied) {
	n.lock()
	defer n.unlock()
	if c == nil || n.now() != seen {
		l.mustDelete(ctx, n, name)
		return
	}
	l.replace(ctx, n, name, c)
}

// replace writes a copy. If that fails there is none: the old one must not be served.
func (l *LocalCopy) replace(ctx context.Context, n *copyName, name string, c *copied) {
	n.change()
	fresh := l.copyOf(ctx, name) == nil
	if err := l.writeCopy(ctx, name, c); err != nil {
		l.trouble("local copy could not be written", name, err)
		l.mustDelete(ctx, n, name)
	} else if fresh {
		l.counted(1)
	}
}

// drop removes the copy.
func (l *LocalCopy) drop(ctx context.Context, n *copyName, name string) error {
	n.lock()
	defer n.unlock()
	n.change()
	return l.deleteCopy(ctx, name)
}

func (l *LocalCopy) mustDelete(ctx context.Context, n *copyName, name string) {
	n.change()
	if err := l.deleteCopy(ctx, name); err != nil {
		l.trouble("local copy of an object that was replaced could not be removed", name, err)
	}
}

// copyOf returns the copy; nil if there is none that can be served.
func (l *LocalCopy) copyOf(ctx context.Context, name string) *copied {
	c, err := l.readCopy(ctx, name)
	if err != nil {
		l.trouble("local copy cannot be read", name, err)
	}
	return c
}

// readCopy returns nil without an error if there is no copy, or none of use: too old, damaged, or not of this store.
func (l *LocalCopy) readCopy(ctx context.Context, name string) (*copied, error) {
	l.mu.Lock()
	_, dead := l.dead[name]
	l.mu.Unlock()
	if dead {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), copyLimit)
	defer cancel()
	data, _, err := l.local.Get(ctx, name)
	if _, damaged := errors.AsType[*CorruptError](err); damaged || errors.Is(err, ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c := decodeCopy(data, l.cfg.Of)
	if c == nil || time.Since(c.seen) > l.cfg.MaxAge {
		return nil, nil
	}
	return c, nil
}

func (l *LocalCopy) writeCopy(ctx context.Context, name string, c *copied) error {
	data, err := c.encode(l.cfg.Of)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), copyLimit)
	defer cancel()
	if _, err := l.local.Put(ctx, name, data); err != nil {
		return err
	}
	l.mu.Lock()
	delete(l.dead, name)
	l.mu.Unlock()
	return nil
}

// deleteCopy looks before it deletes: strangers ask for names that nobody has, and a look costs a hundredth of a durable delete. A copy that could not be deleted
// is dead: this process does not serve it.
func (l *LocalCopy) deleteCopy(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), copyLimit)
	defer cancel()
	_, _, err := l.local.Get(ctx, name)
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	err = l.local.Delete(ctx, name)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.dead[name] = struct{}{}
		return err
	}
	delete(l.dead, name)
	l.count--
	return nil
}

func (l *LocalCopy) counted(more int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count += more
	l.sweepLaterLocked()
}

func (c *copied) encode(of string) ([]byte, error) {
	line, err := json.Marshal(copiedLine{Of: of, Version: c.version, Seen: c.seen.UTC()})
	if err != nil {
		return nil, fmt.Errorf("encode copy: %w", err)
	}
	if len(line) > maxCopiedLine || len(c.data) > MaxObject-maxCopiedLine {
		return nil, errors.New("it is too large to be copied")
	}
	return append(append(line, '\n'), c.data...), nil
}

// decodeCopy returns nil for what is not a copy of an object of this store.
func decodeCopy(data []byte, of string) *copied {
	line, rest, ok := bytes.Cut(data, []byte("\n"))
	var about copiedLine
	if err := json.Unmarshal(line, &about); !ok || err != nil || about.Version == "" || about.Of != of {
		return nil
	}
	return &copied{version: about.Version, seen: about.Seen, data: rest}
}
