package permission

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/hostname"
)

// namesEvery is how often the file is looked at while names are asked for.
const namesEvery = 2 * time.Second

// NamesFile reads the allowed names from a file: one on each line, either exact or "*.suffix" for all names below it. Empty
// lines and what follows a "#" are ignored. The file is read again when it changes; one that is missing or broken leaves the names as they were.
type NamesFile struct {
	path  string
	log   *zap.Logger
	names atomic.Pointer[nameList] // replaced, never modified
	next  atomic.Int64             // Unix nanoseconds of the next look

	mu      sync.Mutex // guards what follows, and lets one reader read
	modTime time.Time  // of the file when it was read last
	size    int64
	failing bool // said so already
}

type nameList struct {
	exact, suffix map[string]struct{} // suffix without its "*."
}

// NewNamesFile reads the file. It must be good then. What goes wrong later is logged.
func NewNamesFile(path string, log *zap.Logger) (*NamesFile, error) {
	f := &NamesFile{path: path, log: log.Named("names")}
	if err := f.read(); err != nil {
		return nil, err
	}
	f.next.Store(time.Now().Add(namesEvery).UnixNano())
	return f, nil
}

// Known reports whether the name is allowed. The file knows every name.
func (f *NamesFile) Known(name string) (allowed, known bool) {
	f.refresh()
	return f.names.Load().has(name), true
}

// Allow returns an error that wraps ErrDenied for a name that is not in the file.
func (f *NamesFile) Allow(_ context.Context, name string, _ netip.Addr) error {
	if allowed, _ := f.Known(name); !allowed {
		return fmt.Errorf("%w: %s is not in the names file", ErrDenied, name)
	}
	return nil
}

// refresh reads the file again if it changed. One caller does so; the others go on with the names as they were.
func (f *NamesFile) refresh() {
	now := time.Now()
	next := f.next.Load()
	if now.UnixNano() < next || !f.next.CompareAndSwap(next, now.Add(namesEvery).UnixNano()) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err == nil && info.ModTime().Equal(f.modTime) && info.Size() == f.size {
		return
	}
	if err == nil {
		f.modTime, f.size, f.failing = info.ModTime(), info.Size(), false
		err = f.read()
	}
	switch {
	case err == nil:
		f.log.Info("names file read again", zap.String("file", f.path), zap.Int("names", f.names.Load().size()))
	case !f.failing:
		f.failing = true
		f.log.Warn("names file cannot be read again, the names from before hold", zap.String("file", f.path), zap.Error(err))
	}
}

// read replaces the names. It changes nothing if the file is not good.
func (f *NamesFile) read() error {
	info, err := os.Stat(f.path) // before reading: a change in between shows at the next look
	if err != nil {
		return fmt.Errorf("read names file: %w", err)
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return fmt.Errorf("read names file: %w", err)
	}
	list, err := parseNames(data)
	if err != nil {
		return fmt.Errorf("read names file %s: %w", f.path, err)
	}
	f.modTime, f.size = info.ModTime(), info.Size()
	f.names.Store(list)
	return nil
}

// parseNames reads a list of names. All faults come in one error, up to ten of them.
func parseNames(data []byte) (*nameList, error) {
	list := &nameList{exact: map[string]struct{}{}, suffix: map[string]struct{}{}}
	var faults []error
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 64<<10)
	for n := 1; lines.Scan() && len(faults) < 10; n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if err := list.add(text); err != nil {
			faults = append(faults, fmt.Errorf("line %d: %w", n, err))
		}
	}
	if err := lines.Err(); err != nil {
		faults = append(faults, err)
	}
	return list, errors.Join(faults...)
}

func (l *nameList) add(text string) error {
	name, err := hostname.FromConfig(text)
	if err != nil {
		return err
	}
	if name == "*" {
		return errors.New("a bare * would let strangers order certificates for any name")
	}
	if suffix, ok := strings.CutPrefix(name, "*."); ok {
		l.suffix[suffix] = struct{}{}
	} else {
		l.exact[name] = struct{}{}
	}
	return nil
}

func (l *nameList) has(name string) bool {
	if _, ok := l.exact[name]; ok {
		return true
	}
	for rest, more := name, true; more && len(l.suffix) > 0; {
		if _, rest, more = strings.Cut(rest, "."); more {
			if _, ok := l.suffix[rest]; ok {
				return true
			}
		}
	}
	return false
}

func (l *nameList) size() int { return len(l.exact) + len(l.suffix) }
