package certs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// leafSum is the SHA-256 of a certificate.
type leafSum [sha256.Size]byte

func (l leafSum) String() string { return hex.EncodeToString(l[:]) }

// revocation is a certificate that must not be served again, or soon not. All of them are in one small object, which every process that serves reads each minute. An entry
// stays until the certificate would have ended: so it is refused even if a backup brings it back.
type revocation struct {
	Name        string    `json:"name"` // the certificate's own
	CA          string    `json:"ca"`
	Serial      string    `json:"serial"`
	Key         string    `json:"key"` // see keySum
	NotAfter    time.Time `json:"not_after"`
	Reason      int       `json:"reason"`
	Compromised bool      `json:"compromised,omitempty"` // it is replaced first, and serves until then
	Begun       time.Time `json:"begun"`
	Gone        time.Time `json:"gone,omitzero"`         // since then no object has it that is served from
	Done        time.Time `json:"done,omitzero"`         // revoked, and nothing left of its key
	Unrevoked   string    `json:"unrevoked,omitempty"`   // why the CA was not told
	Certificate []byte    `json:"certificate,omitempty"` // DER, until it is done

	leaf leafSum // its place in the list
}

// serves reports whether the certificate may still be shown to clients.
func (r *revocation) serves() bool { return r.Compromised && r.Gone.IsZero() }

const revocationsObject = "revocations"

// revocationsFile is that object, by leafSum in hexadecimal.
type revocationsFile struct {
	Certificates map[string]*revocation `json:"certificates"`
}

// revocations is what this process knows of the list, and who works on it here.
type revocations struct {
	store storage.Store
	log   *zap.Logger
	known atomic.Pointer[map[leafSum]*revocation] // replaced, never modified; never nil

	turn   chan struct{} // has one element while the list is read or written, so that memory never goes back, and goroutines need not compete
	readAt atomic.Int64  // Unix nanoseconds: when the list was read last, or could not be

	mu      sync.Mutex    // guards what follows
	reading chan struct{} // closed when the list was read; nil if nobody reads it
	workers map[leafSum]*revoker
}

// revoker works on one revocation in this process. Its fields but again are guarded by revocations.mu.
type revoker struct {
	again chan struct{} // has room for one: somebody asks for another attempt now
	tried chan struct{} // closed when the present attempt, or the next one, has ended
	err   error         // how the last attempt ended
	next  time.Time     // by the CA's word there is no other one before; zero if it gave none
}

func newRevocations(store storage.Store, log *zap.Logger) *revocations {
	l := &revocations{store: store, log: log, turn: make(chan struct{}, 1), workers: map[leafSum]*revoker{}}
	l.known.Store(&map[leafSum]*revocation{})
	l.readAt.Store(time.Now().UnixNano()) // it is read at the start
	return l
}

// of returns the revocation of the certificate; nil, nearly always.
func (l *revocations) of(c *certificate) *revocation {
	if all := *l.known.Load(); len(all) > 0 && c != nil {
		return all[c.sum]
	}
	return nil
}

// refuses reports whether the certificate must not be shown to anybody.
func (l *revocations) refuses(c *certificate) bool {
	r := l.of(c)
	return r != nil && !r.serves()
}

// read brings memory up to date.
func (l *revocations) read(ctx context.Context) error {
	if err := l.takeTurn(ctx); err != nil {
		return err
	}
	defer l.endTurn()
	file, _, err := l.load(ctx)
	if err == nil {
		l.know(file)
	}
	return err
}

func (l *revocations) takeTurn(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *revocations) endTurn() { <-l.turn }

func (l *revocations) know(file *revocationsFile) {
	known := make(map[leafSum]*revocation, len(file.Certificates))
	for _, r := range file.Certificates {
		known[r.leaf] = r
	}
	l.known.Store(&known)
}

// load returns the list. A damaged one is put aside: what is revoked at the CA stays so, what is not can be asked for again.
func (l *revocations) load(ctx context.Context) (*revocationsFile, storage.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	file, version, err := storage.Load(ctx, l.store, revocationsObject, decodeRevocations, l.log)
	if err != nil && !errors.Is(err, storage.ErrNotExist) {
		return nil, "", fmt.Errorf("read the list of revocations: %w", err)
	}
	if file == nil {
		file = &revocationsFile{}
	}
	if file.Certificates == nil {
		file.Certificates = map[string]*revocation{}
	}
	return file, version, nil
}

func decodeRevocations(data []byte) (*revocationsFile, error) {
	f := new(revocationsFile)
	if err := json.Unmarshal(data, f); err != nil {
		return nil, err
	}
	for key, r := range f.Certificates {
		sum, err := hex.DecodeString(key)
		if err != nil || len(sum) != sha256.Size || r == nil {
			return nil, fmt.Errorf("%q is no certificate", key)
		}
		r.leaf = leafSum(sum)
	}
	return f, nil
}

// change rewrites the list by compare-and-swap, and memory after it. Entries whose certificates have ended are left out.
func (l *revocations) change(ctx context.Context, f func(*revocationsFile)) error {
	if err := l.takeTurn(ctx); err != nil {
		return err
	}
	defer l.endTurn()
	for range 10 {
		file, version, err := l.load(ctx)
		if err != nil {
			return err
		}
		f(file)
		now := time.Now()
		maps.DeleteFunc(file.Certificates, func(_ string, r *revocation) bool { return !r.Done.IsZero() && now.After(r.NotAfter) })
		data, err := json.Marshal(file)
		if err != nil {
			return fmt.Errorf("encode the list of revocations: %w", err)
		}
		writing, cancel := context.WithTimeout(ctx, storeTimeout)
		_, err = l.store.PutIf(writing, revocationsObject, data, version)
		cancel()
		if err == nil {
			l.know(file)
			return nil
		}
		if !errors.Is(err, storage.ErrConflict) {
			return fmt.Errorf("write the list of revocations: %w", err)
		}
	}
	return fmt.Errorf("write the list of revocations: %w", storage.ErrConflict)
}

// add enters revocations. One that is there is begun anew if it was done, because the certificate came back; else it may become one for a compromised key, but
// a certificate that was taken away is not given back.
func (l *revocations) add(ctx context.Context, list []revocation) error {
	return l.change(ctx, func(file *revocationsFile) {
		for _, r := range list {
			old := file.Certificates[r.leaf.String()]
			if old != nil && old.Done.IsZero() {
				if r.Reason == ReasonKeyCompromise {
					old.Reason = r.Reason
				}
				old.Compromised = old.Compromised && r.Compromised
				continue
			}
			file.Certificates[r.leaf.String()] = &r
		}
	})
}

// update changes one entry.
func (l *revocations) update(ctx context.Context, leaf leafSum, f func(*revocation)) error {
	return l.change(ctx, func(file *revocationsFile) {
		if r := file.Certificates[leaf.String()]; r != nil {
			f(r)
		}
	})
}

// errand is a revocation that somebody here works on.
type errand struct {
	*revoker
	first bool            // the worker is new, and this its first attempt
	tried <-chan struct{} // closed when the attempt has ended that was under way, or was the next, when the errand began
}

// worker returns who works on the revocation here.
func (l *revocations) worker(leaf leafSum) errand {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.workers[leaf]
	if w != nil {
		return errand{w, false, w.tried}
	}
	w = &revoker{again: make(chan struct{}, 1), tried: make(chan struct{})}
	l.workers[leaf] = w
	return errand{w, true, w.tried}
}

// ended notes how an attempt of the worker ended, and whether it was the last.
func (l *revocations) ended(leaf leafSum, w *revoker, err error, last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.err, w.next = err, capped(time.Now(), retryOf(err))
	select {
	case <-w.again: // asked for while this attempt was under way
	default:
	}
	close(w.tried)
	w.tried = make(chan struct{})
	if last {
		delete(l.workers, leaf)
		w.tried = nil
	}
}

// await waits for the end of the errand's attempt, and asks for it now unless it is under way. Where the CA allows none yet, it returns how the last one ended.
func (l *revocations) await(ctx context.Context, e errand) error {
	if !e.first {
		l.mu.Lock()
		err, next := e.err, e.next
		l.mu.Unlock()
		if err != nil && time.Now().Before(next) {
			return err
		}
		select {
		case e.again <- struct{}{}:
		default:
		}
	}
	select {
	case <-e.tried:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return e.err
}

// problem is how the last attempt of this process ended.
func (l *revocations) problem(leaf leafSum) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.workers[leaf]; w != nil {
		return w.err
	}
	return nil
}
