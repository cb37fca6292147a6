package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.uber.org/zap"
)

// This file is about a root that goes away while we run: a volume that is not mounted any more, a folder that somebody moved or removed. Nothing is made in its place, and
// nothing below it counts as absent, since who takes that for granted orders everything anew. When it is back, with what makes it a store, it is used as before.

// goneError says so. It is not an ErrNotExist.
type goneError struct {
	root string
	err  error
}

func (e *goneError) Error() string {
	return fmt.Sprintf("the storage folder %s is not there as it was (%v): mount it or put it back, whole; it is used again by itself", e.root, e.err)
}

// look returns an error unless the root is there. It tells the log when that changes.
func (d *Disk) look() error {
	err := d.lookAt("format")
	if err == nil {
		err = d.lookAt("objects")
	}
	switch {
	case err != nil && !d.gone.Swap(true):
		d.log.Error("storage folder is gone, nothing is stored or ordered until it is back", zap.String("dir", d.root), zap.Error(err))
	case err == nil && d.gone.Swap(false):
		d.log.Info("storage folder is back", zap.String("dir", d.root))
	}
	if err != nil {
		return &goneError{d.root, err}
	}
	return nil
}

// lookAt is without the path of what is missing, which would be another one each time.
func (d *Disk) lookAt(name string) error {
	_, err := os.Lstat(filepath.Join(d.root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("it has no %q", name)
	}
	return err
}

// absent is the error for an object that was not found: absence is only what a root that is there does not have.
func (d *Disk) absent(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if gone := d.look(); gone != nil {
		return gone
	}
	return err
}

// within does what writes below the root. Where something of ours is missing there, it is done once more if the root has come back.
func (d *Disk) within(do func() error) error {
	err := do()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.restore(); err != nil {
		return err
	}
	return d.absent(do())
}

// restore makes what a process has below the root, but not the root, as OpenDisk did: a copy that was put back may lack it, or be open to others.
func (d *Disk) restore() error {
	if err := d.look(); err != nil {
		return err
	}
	d.restoring.Lock()
	defer d.restoring.Unlock()
	if err := d.closeRoot(); err != nil {
		return err
	}
	if err := d.checkFormat(); err != nil {
		return err
	}
	for _, dir := range []string{"locks", "locks/objects", "locks/leases", "tmp"} {
		if err := d.prepareFolder(dir); err != nil {
			return err
		}
	}
	if err := d.prepareFence(); err != nil {
		return err
	}
	d.mu.Lock()
	own, temp := d.own, d.tmp
	clear(d.synced)
	d.mu.Unlock()
	if there, err := isStill(own, temp); there || err != nil {
		return err
	}
	if err := d.claimTemp(); err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	return own.Close()
}

// temp is where this process writes.
func (d *Disk) temp() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tmp
}
