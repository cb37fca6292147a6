package storage

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.uber.org/zap"
)

// claimTemp makes the folder for this process's temporary files. It is locked while the process lives: that is how a sweep tells it from a dead one's.
func (d *Disk) claimTemp() error {
	for {
		path := filepath.Join(d.root, "tmp", strings.ToLower(rand.Text()))
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // swept before we had it locked
		}
		if err != nil {
			return err
		}
		got, err := tryLock(f)
		if got {
			got, err = isStill(f, path)
		}
		if got && err == nil {
			d.mu.Lock()
			d.tmp, d.own = path, f
			d.mu.Unlock()
			return nil
		}
		f.Close()
		if err != nil {
			return err
		}
	}
}

// sweep removes what dead processes left: temporary folders, and files of leases that nobody holds. It never walks the objects. What it
// cannot remove costs a little space, so it is no reason not to start.
func (d *Disk) sweep() {
	temps := d.sweepFolder("tmp", os.RemoveAll)
	leases := d.sweepFolder("locks/leases", os.Remove)
	if temps+leases > 0 {
		d.log.Info("swept what dead processes left", zap.Int("temporary_folders", temps), zap.Int("leases", leases))
	}
}

// sweepFolder removes the entries of a folder that nobody has locked, and returns how many those were.
func (d *Disk) sweepFolder(folder string, remove func(string) error) (swept int) {
	entries, err := os.ReadDir(filepath.Join(d.root, folder))
	if err != nil {
		d.log.Warn("leftovers could not be swept", zap.Error(err))
	}
	for _, e := range entries {
		ok, err := sweepOne(filepath.Join(d.root, folder, e.Name()), remove)
		if ok {
			swept++
		}
		if err != nil {
			d.log.Warn("leftover could not be swept", zap.Error(err))
		}
	}
	return swept
}

// sweepOne removes a file or folder while it has the lock, so that nobody can have come to use it.
func sweepOne(path string, remove func(string) error) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // somebody else was quicker
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	free, err := tryLock(f)
	if free && err == nil {
		free, err = isStill(f, path)
	}
	if !free || err != nil {
		return false, err
	}
	return true, remove(path)
}
