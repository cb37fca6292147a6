package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"go.uber.org/zap"
)

// diskFormat is the content of the file "format". Another layout would have another line, and this program would refuse it.
const diskFormat = "gatelodge storage 1\n"

// prepare makes the root and its folders what they must be.
func (d *Disk) prepare() error {
	if err := d.prepareRoot(); err != nil {
		return err
	}
	err := d.checkFormat()
	if errors.Is(err, fs.ErrNotExist) { // absent, or empty after a crash
		err = writeSmallFile(filepath.Join(d.root, "format"), diskFormat)
	}
	if err != nil {
		return err
	}
	for _, dir := range []string{"objects", "locks", "locks/objects", "locks/leases", "tmp"} {
		if err := d.prepareFolder(dir); err != nil {
			return err
		}
	}
	if err := d.prepareFence(); err != nil {
		return err
	}
	if err := d.claimTemp(); err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	d.sweep()
	return nil
}

// prepareRoot makes the root if it is not there. A folder that is empty or already ours is closed to others; any other is refused: it
// may be /tmp, or a home, which others have a right to.
func (d *Disk) prepareRoot() error {
	if err := os.MkdirAll(d.root, 0o700); err != nil {
		return err
	}
	return d.closeRoot()
}

// closeRoot closes the root to others, unless it may have what is theirs.
func (d *Disk) closeRoot() error {
	info, err := os.Stat(d.root)
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		d.log.Warn("storage folder belongs to another user", zap.String("dir", d.root), zap.Uint32("uid", stat.Uid), zap.Int("our_uid", os.Geteuid()))
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	ours, err := d.rootIsOurs()
	if err != nil {
		return err
	}
	if !ours {
		return fmt.Errorf("others can enter it (%v) and there are files in it that are not ours: use a folder of its own, such as %s",
			info.Mode().Perm(), filepath.Join(d.root, "gatelodge"))
	}
	if err := os.Chmod(d.root, 0o700); err != nil {
		return fmt.Errorf("others can enter it (%v): run `chmod 700 %s` as its owner, or use a folder of its own, such as %s: %w",
			info.Mode().Perm(), d.root, filepath.Join(d.root, "gatelodge"), err)
	}
	d.log.Warn("storage folder was open to others, closed it", zap.String("dir", d.root), zap.Stringer("was", info.Mode().Perm()))
	return nil
}

// rootIsOurs reports whether the root is a store or empty, apart from what a fresh file system has. The format is looked for last: another process that makes the
// store in this moment makes it first.
func (d *Disk) rootIsOurs() (bool, error) {
	entries, err := os.ReadDir(d.root)
	if err != nil {
		return false, err
	}
	if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != "lost+found" }) {
		return true, nil
	}
	_, err = os.Lstat(filepath.Join(d.root, "format"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (d *Disk) prepareFolder(name string) error {
	path := filepath.Join(d.root, name)
	err := os.Mkdir(path, 0o700)
	if err == nil {
		return syncFolder(filepath.Dir(path))
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder: move it away", path)
	}
	return nil // the root keeps others out, whatever its mode
}

// checkFormat refuses a format that it does not know. The error wraps fs.ErrNotExist if there is none.
func (d *Disk) checkFormat() error {
	data, err := os.ReadFile(filepath.Join(d.root, "format"))
	switch {
	case err == nil && len(data) == 0:
		return fmt.Errorf("its format is empty: %w", fs.ErrNotExist)
	case err == nil && string(data) != diskFormat:
		return fmt.Errorf("its format is %q and this program knows only %q: use the program that wrote it",
			strings.TrimSpace(string(data[:min(len(data), 64)])), strings.TrimSpace(diskFormat))
	}
	return err
}

// writeSmallFile writes a file that is made once. Two processes that do it at the same time write the same.
func writeSmallFile(path, content string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes names in the folder durable: those that were added and those that were taken away.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
