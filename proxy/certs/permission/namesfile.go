package permission

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// namesEvery is how often the file is looked at.
const namesEvery = 2 * time.Second

// NamesFile reads the allowed names from a file: one on each line, either exact or "*.suffix" for all names below it. Empty
// lines and what follows a "#" are ignored. The file is read again when it changes; one that is missing or broken leaves the names as they were.
type NamesFile struct {
	path  string
	log   *zap.Logger
	names atomic.Pointer[nameList] // replaced, never modified

	stop chan struct{}
	once sync.Once // closes it
	own  sync.WaitGroup

	// Of the reader.
	modTime time.Time // of the file when it was read last
	size    int64
	failing bool // said so already
}

// NewNamesFile reads the file, which must be good then, and watches it until Close. What goes wrong later is logged.
func NewNamesFile(path string, log *zap.Logger) (*NamesFile, error) {
	f := &NamesFile{path: path, log: log.Named("names"), stop: make(chan struct{})}
	if err := f.read(); err != nil {
		return nil, err
	}
	f.own.Go(f.watch)
	return f, nil
}

// Close ends the watching. The names hold.
func (f *NamesFile) Close() {
	f.once.Do(func() { close(f.stop) })
	f.own.Wait()
}

// Known reports whether the name is allowed. The file knows every name.
func (f *NamesFile) Known(name string) (allowed, known bool) {
	return f.names.Load().has(name), true
}

// Allow returns an error that wraps ErrDenied for a name that is not in the file.
func (f *NamesFile) Allow(_ context.Context, name string, _ netip.Addr) error {
	if allowed, _ := f.Known(name); !allowed {
		return fmt.Errorf("%w: %s is not in the names file", ErrDenied, name)
	}
	return nil
}

// watch reads the file again whenever it has changed: in the background, since millions of lines take a second.
func (f *NamesFile) watch() {
	look := time.NewTicker(namesEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			f.refresh()
		case <-f.stop:
			return
		}
	}
}

// refresh reads the file again if it changed.
func (f *NamesFile) refresh() {
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
	list, err := parseNames(f.path, data)
	if err != nil {
		return fmt.Errorf("read names file:\n%w", err)
	}
	f.modTime, f.size = info.ModTime(), info.Size()
	f.names.Store(list)
	return nil
}
