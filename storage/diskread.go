package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"go.uber.org/zap"
)

// Get implements Store. It takes no lock: a rename shows the old object or the new one.
func (d *Disk) Get(ctx context.Context, name string) ([]byte, Version, error) {
	o, err := d.read(ctx, name)
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", name, err)
	}
	if o.damage != nil {
		return nil, "", NewCorruptError(name, o.file, o.damage)
	}
	return o.data, o.version, nil
}

// Salvage implements Salvager: of a damaged object it returns the whole file, header included, up to the size of an object.
func (d *Disk) Salvage(ctx context.Context, name string) ([]byte, Version, error) {
	o, err := d.read(ctx, name)
	if err != nil {
		return nil, "", fmt.Errorf("salvage %s: %w", name, err)
	}
	if o.damage != nil {
		return o.file, o.version, nil
	}
	return o.data, o.version, nil
}

func (d *Disk) read(ctx context.Context, name string) (*foundObject, error) {
	if err := checkCall(ctx, name); err != nil {
		return nil, err
	}
	if d.life.Err() != nil {
		return nil, errDiskClosed
	}
	return d.readFile(name)
}

func (d *Disk) readFile(name string) (*foundObject, error) {
	file, err := d.slurp(name)
	if err != nil {
		return nil, d.absent(err)
	}
	return judge(name, file), nil
}

// slurp reads an object's file, at most a byte more than it may have.
func (d *Disk) slurp(name string) ([]byte, error) {
	f, err := os.Open(d.objectPath(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, &CorruptError{Name: name, Err: errors.New("there is a folder in place of its file: move it away")}
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		d.tighten(f, name, perm)
	}
	limit := int64(maxStored + maxHeader + 1)
	data := make([]byte, min(info.Size(), limit))
	n, err := io.ReadFull(f, data)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil // cut while we read: the checksum will tell
	}
	return data[:n], err
}

// tighten closes a file that others could read if they could enter the root; a person put it there or changed it.
func (d *Disk) tighten(f *os.File, name string, was fs.FileMode) {
	if err := f.Chmod(0o600); err != nil {
		d.log.Error("object is open to others and could not be closed", zap.String("object", name), zap.Stringer("mode", was), zap.Error(err))
		return
	}
	d.log.Warn("object was open to others, closed it", zap.String("object", name), zap.Stringer("was", was))
}
