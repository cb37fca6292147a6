// Package migrate brings certificates from other programs into a storage.Store, and out again, without one order to a CA.
//
// A Source finds what lies in a foreign folder or file; Import makes bundles of it and stores them by compare-and-swap. It can be run
// again at any time: what is there already is left alone, and nothing newer is ever replaced. What is damaged is reported, one by one, and the rest
// imported.
//
// A certificate with several names becomes one bundle for each: that is how this program orders, serves and renews. They share chain and key until each is
// renewed for itself.
package migrate

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"gatelodge/storage"
)

// A Source is what another program has left: see Caddy, Certmagic, Certbot, AcmeJSON and PEM.
type Source interface {
	// each calls take for everything that is found, whole or not, until take fails. An error of its own means that the source cannot be read at all.
	each(ctx context.Context, take func(found) error) error
}

// found is one thing in a source.
type found struct {
	where string // for a person
	err   error  // what is wrong with it; then there is nothing else
	skip  string // why it is left out on purpose; then there is nothing else

	chain, key []byte // PEM
	ca         string // a URL of the CA, if it is known
	issuerData []byte // what certmagic keeps beside a certificate, JSON
	start, end time.Time

	account *Account // instead of a certificate
}

// Options are for Import. The zero value imports certificates and leaves accounts.
type Options struct {
	// DryRun only says what would be done.
	DryRun bool

	// Parallel is how many certificates are stored together. Zero means 8.
	Parallel int

	// CA returns the name in our configuration of the CA with that URL: its directory or, where the source does not tell that, an account there. Empty means
	// that it is not configured; then whichever CA is configured for the name renews. Nil means always empty. See ByURL.
	CA func(url string) string

	// Object returns the name of the object for a name's certificate. Nil means "certs/" and the name, with "_" for a wildcard's star.
	Object func(name string) string

	// Stored is told of each certificate that is in the store now, be it that it was there before: to enter it into the index of what is to be renewed. It is not
	// called concurrently, nor in a dry run. An error ends the import.
	Stored func(ctx context.Context, name string, b *storage.Bundle) error

	// Blocked reports whether a key must not be used any more, because others know it: its certificates are left out. An error ends the import. Nil means that none is.
	Blocked func(ctx context.Context, public crypto.PublicKey) (bool, error)

	// Account stores an account, or reports that it is not stored and says why. It is not called in a dry run. Nil leaves accounts where they are.
	Account func(ctx context.Context, a Account) error

	// Progress, if not nil, is told now and then how many things were seen. It is not called concurrently.
	Progress func(seen int)

	// Logger is told of damage in the store. Nil means none.
	Logger *zap.Logger
}

func (o Options) withDefaults() Options {
	o.Parallel = cmp.Or(o.Parallel, 8)
	if o.CA == nil {
		o.CA = func(string) string { return "" }
	}
	if o.Object == nil {
		o.Object = objectFor
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	return o
}

// objectFor is where proxy/certs looks.
func objectFor(name string) string {
	if strings.HasPrefix(name, "*.") {
		name = "_" + name[1:]
	}
	return "certs/" + name
}

// Import brings what src has into dst. An error means that src cannot be read, or dst does not answer; then some of it may be stored, and the next run goes on.
func Import(ctx context.Context, dst storage.Store, src Source, o Options) (*Report, error) {
	im := &importing{dst: dst, o: o.withDefaults(), now: time.Now(), report: &Report{DryRun: o.DryRun}, planned: map[string]planned{}}
	group, work := errgroup.WithContext(ctx)
	group.SetLimit(im.o.Parallel)
	err := src.each(work, func(f found) error {
		group.Go(func() error { return im.take(work, f) })
		return context.Cause(work)
	})
	if failed := group.Wait(); failed != nil {
		err = failed
	}
	im.report.sort()
	if err != nil {
		return im.report, fmt.Errorf("import: %w", err)
	}
	return im.report, nil
}

// importing is one run.
type importing struct {
	dst storage.Store
	o   Options
	now time.Time

	mu      sync.Mutex // guards what follows; never held during I/O, but for calls of Stored and Account
	report  *Report
	seen    int
	planned map[string]planned // what a dry run would have stored, by name
}

// planned is a certificate that a dry run would have stored.
type planned struct {
	leaf     [sha256.Size]byte
	notAfter time.Time
}

// take deals with one thing. It fails only if dst does.
func (im *importing) take(ctx context.Context, f found) error {
	defer im.progress()
	switch {
	case f.err != nil:
		im.problem(f.where, f.err)
		return nil
	case f.skip != "":
		im.count(func(r *Report) { r.Skipped = append(r.Skipped, Problem{f.where, f.skip}) })
		return nil
	case f.account != nil:
		im.account(ctx, f)
		return nil
	}
	b, names, err := f.bundle()
	if err != nil {
		im.problem(f.where, err)
		return nil
	}
	if !b.NotAfter.After(im.now) {
		im.count(func(r *Report) { r.Ended++ })
		return nil
	}
	if blocked, err := im.blocked(ctx, b); err != nil {
		return err
	} else if blocked {
		im.problem(f.where, errors.New("its key is known to others, and blocked here for ever: obtain a new certificate"))
		return nil
	}
	b.CA = im.o.CA(f.ca)
	im.count(func(r *Report) { r.Certificates++ })
	for _, name := range names {
		if err := im.name(ctx, f.where, name, b); err != nil {
			return err
		}
	}
	return nil
}

func (im *importing) blocked(ctx context.Context, b *storage.Bundle) (bool, error) {
	if im.o.Blocked == nil {
		return false, nil
	}
	leaf, err := x509.ParseCertificate(b.Chain[0])
	if err != nil {
		return false, err // cannot happen: found.bundle has parsed it
	}
	return im.o.Blocked(ctx, leaf.PublicKey)
}

// name stores the certificate for one of its names.
func (im *importing) name(ctx context.Context, where, name string, b *storage.Bundle) error {
	object := im.o.Object(name)
	if err := storage.CheckName(object); err != nil {
		im.problem(where, fmt.Errorf("%s: %w", name, err))
		return nil
	}
	var outcome outcome
	var err error
	if im.o.DryRun {
		outcome, err = im.wouldStore(ctx, name, object, b)
	} else {
		outcome, b, err = im.store(ctx, object, b)
	}
	if err != nil {
		return err
	}
	im.count(func(r *Report) { r.countName(outcome) })
	if im.o.DryRun || im.o.Stored == nil {
		return nil
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.o.Stored(ctx, name, b)
}

// outcome is what becomes of a name.
type outcome int

const (
	created outcome = iota
	replaced
	there // the same certificate is stored already
	newer // the one in the store ends no earlier
)

// decide compares what is stored (nil: nothing) with what came.
func decide(have *storage.Bundle, b *storage.Bundle) outcome {
	switch {
	case have == nil:
		return created
	case bytes.Equal(have.Chain[0], b.Chain[0]):
		return there
	case !b.NotAfter.After(have.NotAfter):
		return newer
	}
	return replaced
}

// store returns the bundle that is in the store then.
func (im *importing) store(ctx context.Context, object string, b *storage.Bundle) (outcome, *storage.Bundle, error) {
	for range 10 {
		have, version, err := storage.LoadBundle(ctx, im.dst, object, im.o.Logger)
		if err != nil && !errors.Is(err, storage.ErrNotExist) {
			return 0, nil, err
		}
		if version.Stale() {
			return 0, nil, fmt.Errorf("read %s: %w", object, storage.ErrStale)
		}
		what := decide(have, b)
		if what == there || what == newer {
			return what, have, nil
		}
		mine := *b
		if have != nil {
			mine.Fence = have.Fence
		}
		data, err := mine.Encode()
		if err != nil {
			return 0, nil, err // cannot happen: found.bundle has tried
		}
		if _, err := im.dst.PutIf(ctx, object, data, version); !errors.Is(err, storage.ErrConflict) {
			return what, &mine, err
		}
	}
	return 0, nil, fmt.Errorf("write %s: %w", object, storage.ErrConflict)
}

// wouldStore says what store would do, and remembers it.
func (im *importing) wouldStore(ctx context.Context, name, object string, b *storage.Bundle) (outcome, error) {
	var have *storage.Bundle
	data, _, err := im.dst.Get(ctx, object)
	if err == nil {
		have, err = storage.DecodeBundle(object, data)
	}
	if _, damaged := errors.AsType[*storage.CorruptError](err); err != nil && !damaged && !errors.Is(err, storage.ErrNotExist) {
		return 0, err
	}
	what := decide(have, b)
	leaf := sha256.Sum256(b.Chain[0])
	im.mu.Lock()
	defer im.mu.Unlock()
	before, again := im.planned[name]
	switch {
	case what == there || what == newer:
		return what, nil
	case again && before.leaf == leaf:
		return there, nil
	case again && !b.NotAfter.After(before.notAfter):
		return newer, nil
	case again:
		what = replaced
	}
	im.planned[name] = planned{leaf, b.NotAfter}
	return what, nil
}

// account hands an account on.
func (im *importing) account(ctx context.Context, f found) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.report.Accounts++
	if im.o.DryRun || im.o.Account == nil {
		return
	}
	if err := im.o.Account(ctx, *f.account); err != nil {
		im.report.problem(f.where, fmt.Errorf("account not taken over: %w", err))
		return
	}
	im.report.AccountsStored++
}

func (im *importing) problem(where string, err error) {
	im.count(func(r *Report) { r.problem(where, err) })
}

func (im *importing) count(f func(r *Report)) {
	im.mu.Lock()
	defer im.mu.Unlock()
	f(im.report)
}

func (im *importing) progress() {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.seen++; im.o.Progress != nil && im.seen%1000 == 0 {
		im.o.Progress(im.seen)
	}
}
