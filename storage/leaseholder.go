package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// A LeaseTeller is a Store that can tell who holds a lease, for a person: the answer may be out of date when it arrives. Disk and S3 are; a store that
// wraps another passes it on.
type LeaseTeller interface {
	// LeaseHolder names who holds the lease, empty for nobody. It neither waits for the lease nor takes it.
	LeaseHolder(ctx context.Context, name string) (string, error)
}

var (
	_ LeaseTeller = (*Disk)(nil)
	_ LeaseTeller = (*S3)(nil)
	_ LeaseTeller = (*LocalCopy)(nil)
	_ LeaseTeller = (*Sealed)(nil)
)

// LeaseHolder asks the store, if it is a LeaseTeller. Otherwise the error wraps errors.ErrUnsupported.
func LeaseHolder(ctx context.Context, store Store, name string) (string, error) {
	teller, ok := store.(LeaseTeller)
	if !ok {
		return "", fmt.Errorf("ask who holds lease %s: %T is no storage.LeaseTeller: %w", name, store, errors.ErrUnsupported)
	}
	return teller.LeaseHolder(ctx, name)
}

// LeaseHolder implements LeaseTeller. The lock of a file tells that somebody on this host has it, not who.
func (d *Disk) LeaseHolder(ctx context.Context, name string) (string, error) {
	if err := checkCall(ctx, name); err != nil {
		return "", fmt.Errorf("ask who holds lease %s: %w", name, err)
	}
	f, err := os.OpenFile(d.leasePath(name), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("ask who holds lease %s: %w", name, err)
	}
	defer f.Close()                                                                                  // frees the lock, if we got it
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) { // shared: two who ask do not see each other
		return "a process on this host", nil
	}
	return "", nil
}

// LeaseHolder implements LeaseTeller: host, process id and a random part, as the lease's object says.
func (s *S3) LeaseHolder(ctx context.Context, name string) (string, error) {
	if s.singleNode() {
		return s.host.LeaseHolder(ctx, name)
	}
	if err := checkCall(ctx, name); err != nil {
		return "", fmt.Errorf("ask who holds lease %s: %w", name, err)
	}
	return s.leases.holderOf(ctx, name)
}

// holderOf reads the lease's object.
func (c *casLeases) holderOf(ctx context.Context, name string) (string, error) {
	data, _, err := c.objects.get(ctx, name, "")
	if errors.Is(err, ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("ask who holds lease %s: %w", name, err)
	}
	r, err := parseLeaseRecord(data)
	if err != nil {
		return "", fmt.Errorf("ask who holds lease %s: %w", name, err)
	}
	if r.State != leaseHeld {
		return "", nil
	}
	return r.Holder, nil
}

// LeaseHolder implements LeaseTeller, if the store below does.
func (l *LocalCopy) LeaseHolder(ctx context.Context, name string) (string, error) {
	return LeaseHolder(ctx, l.inner, name)
}

// LeaseHolder implements LeaseTeller, if the store below does.
func (s *Sealed) LeaseHolder(ctx context.Context, name string) (string, error) {
	return LeaseHolder(ctx, s.inner, name)
}
