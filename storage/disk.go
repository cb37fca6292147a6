package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
)

// Disk is a Store in a folder of a local file system, shared by any number of processes of one host. It must not be shared between hosts, by NFS
// or otherwise: flock and rename do not hold there what is promised here; a fleet uses object storage.
//
// Below its root:
//
//	format                       one line, the version of this layout
//	objects/certs/ab/c/a.example the object certs/a.example; "abc" begins the SHA-256 of its name
//	locks/objects/ab             who writes an object whose hash begins so, for as long as a rename takes
//	locks/leases/issue,a.example who holds the lease issue/a.example; gone when nobody does
//	locks/fence                  the last fence given
//	tmp/4f0c.../                 what one process is about to write
//
// What is durable when: Put, PutIf, Delete and DeleteIf return nil after file and folder are synced, so what they did survives the loss of
// power. Until then the old object is there, whole; a crash leaves the old or the new one. A lease is not durable: the kernel frees it
// when its holder dies, however that happens. Fences are durable before they are given.
//
// A root that goes away while we run is an error to every call, and is used again when it is back: see diskgone.go.
//
// The file system's own errors (no space, I/O, permissions) come back wrapped and leave the object whole. A call that waits for another
// process ends with its context; one that the kernel holds, on a failing disk, does not.
type Disk struct {
	root string
	log  *zap.Logger
	gone atomic.Bool // the root was not there when somebody looked last

	restoring sync.Mutex // one restore at a time

	// step does one step of a write. Tests put faults before and after it.
	step func(op, path string, do func() error) error

	life    context.Context // ends when Close begins
	endLife context.CancelCauseFunc
	calls   sync.WaitGroup // those that write or wait

	shards Turns // of writes, before locks/objects
	leases Turns // of leases, before locks/leases

	mu     sync.Mutex // guards what follows; never held during I/O
	tmp    string     // this process's folder below tmp
	own    *os.File   // tmp, opened and locked for as long as the Disk is open
	closed bool
	held   map[*heldLease]struct{}
	synced map[string]struct{} // folders of objects that this process knows to be durable
}

var (
	_ Store    = (*Disk)(nil)
	_ Salvager = (*Disk)(nil)
)

// errDiskClosed is what calls get that come after Close or still wait when it begins.
var errDiskClosed = fmt.Errorf("the storage was closed: %w", fs.ErrClosed)

// OpenDisk opens the store in the folder dir and makes it if need be. The folder must be ours alone: it is set to mode 0700 and
// the change logged, or refused with an error that says what to do. What dead processes left behind is swept; nothing is read of the objects.
//
// log may be nil.
func OpenDisk(dir string, log *zap.Logger) (*Disk, error) {
	if log == nil {
		log = zap.NewNop()
	}
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open storage %s: %w", dir, err)
	}
	d := &Disk{
		root:   root,
		log:    log,
		step:   func(_, _ string, do func() error) error { return do() },
		held:   make(map[*heldLease]struct{}),
		synced: make(map[string]struct{}),
	}
	d.life, d.endLife = context.WithCancelCause(context.Background())
	if err := d.prepare(); err != nil {
		return nil, fmt.Errorf("open storage %s: %w", root, err)
	}
	return d, nil
}

// Close ends calls that wait, gives up leases that are still held (their contexts end with cause ErrLeaseLost), waits for writes in progress and
// removes the process's temporary folder. Closing twice is harmless.
func (d *Disk) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	held := d.held
	d.held = nil
	d.mu.Unlock()

	d.endLife(errDiskClosed)
	var errs []error
	for l := range held {
		errs = append(errs, l.end(ErrLeaseLost))
	}
	d.calls.Wait()
	errs = append(errs, os.RemoveAll(d.tmp), d.own.Close()) // nobody changes them any more
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close storage %s: %w", d.root, err)
	}
	return nil
}

// begin is the first thing of every call that writes or waits, end the last. The context ends with Close too.
func (d *Disk) begin(ctx context.Context) (_ context.Context, end func(), _ error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, nil, errDiskClosed
	}
	d.calls.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(d.life, func() { cancel(errDiskClosed) })
	return ctx, func() {
		unhook()
		cancel(nil)
		d.calls.Done()
	}, nil
}
