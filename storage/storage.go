// Package storage keeps what must outlive a process: certificates with their keys, account keys, failures, permissions.
//
// One small interface, [Store], stands for a disk, a bucket or memory. It knows nothing of certificates or ACME: an object is a
// name and some bytes with a version, a lease is a name that one holder has at a time. What the bytes mean is decided by whoever wrote
// them; [Bundle] is the one exception, since a certificate, its chain and its key must never be torn apart.
package storage

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
)

// ErrNotExist is returned (wrapped) by Get for an object that is positively absent. An outage is never reported as
// ErrNotExist: whoever reads "absent" may order a certificate or make a new account.
var ErrNotExist = fs.ErrNotExist

// ErrConflict is returned (wrapped) by PutIf when the object is not at the version that was given. The caller reads it again and decides anew.
var ErrConflict = errors.New("storage: the object was changed by somebody else")

// ErrLeaseLost is the cause of a lease's cancelled context when another holder may have taken it over.
var ErrLeaseLost = errors.New("storage: the lease was lost")

// Version is an opaque token of one write of one object. Two writes of the same bytes have different versions. The empty
// Version means "the object does not exist".
type Version string

// Store keeps objects and leases.
//
// Names are slash-separated; see [CheckName]. No name is a directory of another ("a" and "a/b" must not both be
// objects). Every method is safe for concurrent use and returns soon after ctx ends. A method that returns an error other than ErrNotExist and
// ErrConflict leaves it unknown whether a write happened; what was there before, or what was to be written, is there whole.
// An object has at most [MaxObject] bytes. The caller keeps the bytes it passes and owns those it gets.
type Store interface {
	// Get returns the object's bytes and version, or an error that wraps ErrNotExist when it is positively absent.
	Get(ctx context.Context, name string) ([]byte, Version, error)

	// Put writes the object whatever was there. When it returns nil, the bytes are durable and no reader sees a mixture.
	Put(ctx context.Context, name string, data []byte) (Version, error)

	// PutIf writes the object only if it is at version v; the empty v means that it must not exist. Otherwise the error wraps ErrConflict.
	PutIf(ctx context.Context, name string, data []byte, v Version) (Version, error)

	// Delete removes the object. An absent object is no error.
	Delete(ctx context.Context, name string) error

	// List returns up to limit names that begin with prefix and are greater than after, in byte order. It is for
	// operators' commands and sweeps: nothing lists at start, in a handshake or to plan (DESIGN 3.5). A limit of zero means 1000.
	List(ctx context.Context, prefix, after string, limit int) ([]string, error)

	// Lease waits until the named lease is held by the caller or ctx ends. After it, callers look again before they
	// work: whoever held it before may have done it. Leases are named like objects, in a space of their own. Two leases for one name exclude each
	// other within a process too.
	Lease(ctx context.Context, name string) (Lease, error)
}

// Lease is the right to do something alone, for as long as its context lives.
type Lease interface {
	// Context is a child of the one given to Store.Lease. It is cancelled with cause ErrLeaseLost when the lease may have gone to somebody
	// else, and with cause context.Canceled when it is released. When it ends with its parent, the lease is still held and still to be released.
	Context() context.Context

	// Fence is greater than the fence of every earlier holder of the same name. Protected writes carry it (see Bundle.Fence), so that
	// a paused holder cannot overwrite its successor's work.
	Fence() uint64

	// Release gives the lease up and waits until others can have it. It is called with a context that does not end with the work's.
	// Releasing twice is harmless.
	Release(ctx context.Context) error
}

// MaxObject is the greatest size of an object in bytes. Certificates take 4 KB; the bound keeps a foreign or damaged file from filling memory.
const MaxObject = 4 << 20

// A Salvager is a Store that can show and remove exactly one version of an object, damaged or not. It is what [Quarantine] and [LoadBundle] need
// beyond Store. Disk, Memory and S3 are; a store that wraps another should pass it on.
type Salvager interface {
	// Salvage returns what Get returns or, where Get answers with a CorruptError, the bytes as they lie there. The version is
	// good for PutIf and DeleteIf in both cases.
	Salvage(ctx context.Context, name string) ([]byte, Version, error)

	// DeleteIf removes the object only if it is at version v. Otherwise, and when it is absent, the error wraps ErrConflict.
	DeleteIf(ctx context.Context, name string, v Version) error
}

// A CorruptError says that an object exists but cannot be what it should be. It is never treated as an absence: the
// object is quarantined first, see [Quarantine].
type CorruptError struct {
	Name string // the object
	Err  error  // what is wrong with it; never shows contents

	// Version and Sum (SHA-256) are those of the bytes that were found damaged, as Get or else Salvage returns them: Quarantine takes away
	// nothing else. Whoever finds damage sets what it knows; NewCorruptError sets Sum. With neither, Quarantine believes that what is there now was meant.
	Version Version
	Sum     [sha256.Size]byte
}

// NewCorruptError is for whoever has read an object's bytes and found that they cannot be right.
func NewCorruptError(name string, data []byte, err error) *CorruptError {
	return &CorruptError{Name: name, Err: err, Sum: sha256.Sum256(data)}
}

func (e *CorruptError) Error() string { return fmt.Sprintf("object %s is damaged: %v", e.Name, e.Err) }
func (e *CorruptError) Unwrap() error { return e.Err }
