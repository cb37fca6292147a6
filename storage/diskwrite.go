package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Put implements Store.
func (d *Disk) Put(ctx context.Context, name string, data []byte) (Version, error) {
	return d.write(ctx, name, data, nil)
}

// PutIf implements Store. It compares and swaps as one step for all processes of the host.
func (d *Disk) PutIf(ctx context.Context, name string, data []byte, v Version) (Version, error) {
	return d.write(ctx, name, data, &v)
}

// write does the slow part, file and sync, before it takes the lock (see replace). want is the version to replace; nil for any.
func (d *Disk) write(ctx context.Context, name string, data []byte, want *Version) (_ Version, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", name, err)
		}
	}()
	if err := checkWrite(ctx, name, data); err != nil {
		return "", err
	}
	ctx, end, err := d.begin(ctx)
	if err != nil {
		return "", err
	}
	defer end()

	h := newHeader(name, data)
	if err := d.within(func() error { return d.replace(ctx, name, h, data, want) }); err != nil {
		return "", err
	}
	return h.version, nil
}

func (d *Disk) replace(ctx context.Context, name string, h objectHeader, data []byte, want *Version) error {
	temp := filepath.Join(d.temp(), string(h.version))
	defer os.Remove(temp) // gone already if all went well
	if err := d.writeTemp(temp, h, data); err != nil {
		return err
	}
	unlock, err := d.lockObject(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if want != nil {
		if err := d.checkVersion(name, *want); err != nil {
			return err
		}
	}
	return d.putInPlace(temp, d.objectPath(name))
}

// writeTemp writes a whole file, durable but for its name.
func (d *Disk) writeTemp(path string, h objectHeader, data []byte) error {
	var f *os.File
	err := d.step("create", path, func() (err error) {
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err == nil {
		err = d.step("write", path, func() error {
			_, err := f.Write(append([]byte(h.String()), data...))
			return err
		})
	}
	if err == nil {
		err = d.step("sync", path, f.Sync)
	}
	if f == nil {
		return err
	}
	return errors.Join(err, f.Close())
}

// putInPlace gives the file its name, and makes that durable.
func (d *Disk) putInPlace(temp, path string) error {
	folder := filepath.Dir(path)
	if err := d.makeFolder(folder); err != nil {
		return err
	}
	rename := func() error { return os.Rename(temp, path) }
	err := d.step("rename", path, rename)
	if errors.Is(err, fs.ErrNotExist) { // somebody removed the folder while we ran
		d.forgetFolder(folder)
		if err := d.makeFolder(folder); err != nil {
			return err
		}
		err = d.step("rename", path, rename)
	}
	if err != nil {
		return err
	}
	return d.step("sync folder", folder, func() error { return syncFolder(folder) })
}

// makeFolder makes the folder of an object and those above it, up to "objects", and makes them durable. A folder that exists may be one that
// another process has made and not synced yet, so each process syncs each once.
func (d *Disk) makeFolder(folder string) error {
	d.mu.Lock()
	_, done := d.synced[folder]
	d.mu.Unlock()
	if done {
		return nil
	}
	if err := d.step("make folder", folder, func() error { return makeBelow(filepath.Join(d.root, "objects"), folder) }); err != nil {
		return err
	}
	for up := folder; up != filepath.Join(d.root, "objects"); {
		up = filepath.Dir(up)
		if err := d.step("sync folder", up, func() error { return syncFolder(up) }); err != nil {
			return err
		}
	}
	d.mu.Lock()
	d.synced[folder] = struct{}{}
	d.mu.Unlock()
	return nil
}

// makeBelow makes the folder and those above it up to base, which is there: if it is not, neither is the root, and nothing must be made in its place.
func makeBelow(base, folder string) error {
	if folder == base {
		return nil
	}
	if err := makeBelow(base, filepath.Dir(folder)); err != nil {
		return err
	}
	if err := os.Mkdir(folder, 0o700); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (d *Disk) forgetFolder(folder string) {
	d.mu.Lock()
	delete(d.synced, folder)
	d.mu.Unlock()
}

// Delete implements Store.
func (d *Disk) Delete(ctx context.Context, name string) error {
	if err := d.remove(ctx, name, nil); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// DeleteIf implements Salvager.
func (d *Disk) DeleteIf(ctx context.Context, name string, v Version) error {
	if err := d.remove(ctx, name, &v); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

func (d *Disk) remove(ctx context.Context, name string, want *Version) error {
	if err := checkCall(ctx, name); err != nil {
		return err
	}
	ctx, end, err := d.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return d.within(func() error { return d.takeAway(ctx, name, want) })
}

func (d *Disk) takeAway(ctx context.Context, name string, want *Version) error {
	unlock, err := d.lockObject(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if want != nil {
		if *want == "" {
			return ErrConflict
		}
		if err := d.checkVersion(name, *want); err != nil {
			return err
		}
	}
	path := d.objectPath(name)
	err = d.step("remove", path, func() error { return os.Remove(path) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Synced even if it was absent: who removed it may not have come so far.
	folder := filepath.Dir(path)
	err = d.step("sync folder", folder, func() error { return syncFolder(folder) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// checkVersion returns ErrConflict unless the object is at that version. The caller has the object's lock.
func (d *Disk) checkVersion(name string, want Version) error {
	var is Version
	o, err := d.readFile(name)
	switch {
	case err == nil:
		is = o.version
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if is != want {
		return ErrConflict
	}
	return nil
}
