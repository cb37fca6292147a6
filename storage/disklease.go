package storage

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

// Lease implements Store. Within the process callers queue in order; the first of them looks at the lock until it is free.
func (d *Disk) Lease(ctx context.Context, name string) (_ Lease, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("lease %s: %w", name, err)
		}
	}()
	if err := checkCall(ctx, name); err != nil {
		return nil, err
	}
	wait, end, err := d.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	var fence uint64
	var free func() error
	if err := d.within(func() (err error) {
		fence, free, err = d.acquire(wait, name)
		return err
	}); err != nil {
		return nil, err
	}
	return d.hold(ctx, fence, free)
}

// acquire waits for the lock of a lease, and takes a fence for it.
func (d *Disk) acquire(ctx context.Context, name string) (fence uint64, free func() error, _ error) {
	if err := d.leases.Take(ctx, name); err != nil {
		return 0, nil, err
	}
	path := d.leasePath(name)
	f, err := lockFile(ctx, path)
	if err != nil {
		d.leases.Give(name)
		return 0, nil, err
	}
	free = func() error {
		// Removed before it is freed, so that locks do not pile up. If that fails the file stays for the next holder or the next sweep.
		if ours, err := isStill(f, path); err == nil && ours {
			os.Remove(path)
		}
		err := f.Close()
		d.leases.Give(name)
		return err
	}
	if fence, err = d.nextFence(ctx); err != nil {
		return 0, nil, errors.Join(err, free())
	}
	return fence, free, nil
}

// hold makes the lease known to Close.
func (d *Disk) hold(ctx context.Context, fence uint64, free func() error) (Lease, error) {
	var l *heldLease
	l = newHeldLease(ctx, fence, func() error {
		d.mu.Lock()
		delete(d.held, l)
		d.mu.Unlock()
		return free()
	})
	d.mu.Lock()
	closed := d.closed
	if !closed {
		d.held[l] = struct{}{}
	}
	d.mu.Unlock()
	if closed {
		return nil, errors.Join(errDiskClosed, l.end(ErrLeaseLost))
	}
	return l, nil
}

func (d *Disk) leasePath(name string) string {
	return filepath.Join(d.root, "locks", "leases", fileName(name, sha256.Sum256([]byte(name))))
}

// prepareFence makes the file of fences durable before it is needed: what is written into it later needs no sync of its folder.
func (d *Disk) prepareFence() error {
	path := filepath.Join(d.root, "locks", "fence")
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	return writeSmallFile(path, "")
}

// nextFence returns a number greater than any before, in whatever process, and durable before it is given.
//
// One counter serves all leases of the disk, so that a lease's own file need not outlive it.
func (d *Disk) nextFence(ctx context.Context) (_ uint64, err error) {
	if err := d.shards.Take(ctx, "fence"); err != nil {
		return 0, err
	}
	defer d.shards.Give("fence")
	f, err := lockFile(ctx, filepath.Join(d.root, "locks", "fence"))
	if err != nil {
		return 0, fmt.Errorf("next fence: %w", err)
	}
	defer f.Close()
	last, err := d.lastFence(f)
	if err != nil {
		return 0, fmt.Errorf("read the last fence: %w", err)
	}
	next := nextFence(last)
	err = d.step("write", f.Name(), func() error {
		_, err := f.WriteAt(fmt.Appendf(nil, "%020d\n", next), 0) // always as long
		return err
	})
	if err == nil {
		err = d.step("sync", f.Name(), f.Sync)
	}
	if err != nil {
		return 0, fmt.Errorf("write the next fence: %w", err)
	}
	return next, nil
}

func (d *Disk) lastFence(f *os.File) (uint64, error) {
	data, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil || len(data) == 0 {
		return 0, err
	}
	last, err := strconv.ParseUint(strings.TrimSuffix(string(data), "\n"), 10, 63)
	if err != nil {
		d.log.Error("counter of fences is damaged, counting on from the clock", zap.String("file", f.Name()), zap.Error(err))
		return 0, f.Truncate(0)
	}
	return last, nil
}
