package storage

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockObject waits until no other call, in any process, writes an object of the same shard.
func (d *Disk) lockObject(ctx context.Context, name string) (unlock func(), _ error) {
	shard := shardOf(name)
	if err := d.shards.Take(ctx, shard); err != nil {
		return nil, err
	}
	f, err := lockFile(ctx, filepath.Join(d.root, "locks", "objects", shard))
	if err != nil {
		d.shards.Give(shard)
		return nil, err
	}
	return func() {
		f.Close() // frees the lock
		d.shards.Give(shard)
	}, nil
}

// lockFile opens the file, makes it if need be, and waits for its lock. Closing the file frees it, and so does the end of the process.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	for pause := newPause(); ; {
		f, err := tryLockFile(path)
		if err != nil || f != nil {
			return f, err
		}
		if err := pause.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// tryLockFile returns nil without an error if somebody else has the lock.
//
// A holder may remove the file before it frees the lock. Then whoever had opened it gets a lock on a file that has no name any more, which excludes
// nobody: so the name is looked up again after locking, and such a lock given back.
func tryLockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	got, err := tryLock(f)
	if got {
		got, err = isStill(f, path)
	}
	if !got || err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// tryLock reports whether we have the lock of an open file or folder now.
func tryLock(f *os.File) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}

// isStill reports whether the path names this very file.
func isStill(f *os.File, path string) (bool, error) {
	have, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(have, there), err
}

// pause is how long to wait before looking at a lock again: short at first for a quick hand-over, never long, and not in step with others.
type pause struct{ next time.Duration }

func newPause() *pause { return &pause{next: time.Millisecond} }

func (p *pause) wait(ctx context.Context) error {
	t := time.NewTimer(p.next/2 + rand.N(p.next))
	defer t.Stop()
	p.next = min(p.next*3/2, 30*time.Millisecond)
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}
