package storage

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
)

// An UnfitError says that a store answers but does not do what this program relies on: a person has to decide. An outage is never an UnfitError.
type UnfitError struct {
	Bucket   string // and where it is
	Fault    string // what was seen
	Therefor string // what it leads to, and what to do
}

func (e *UnfitError) Error() string {
	return fmt.Sprintf("storage: bucket %s %s; %s", e.Bucket, e.Fault, e.Therefor)
}

const (
	noFakeLocks = "locks would not exclude other nodes. Use AWS S3, R2, MinIO>=2025-09, Ceph or versitygw>=1.8, " +
		`or, if this is the only node that uses the bucket, set storage.s3.conditional_writes = "single-node"`
	noAbsence = "it could not be told whether a certificate exists. Allow s3:GetObject and s3:ListBucket (AWS answers 403 for an absent object without the latter)"
	noWhole   = "certificates would be lost. Use another store"
)

// racers is how many create one object at the same time, in SelfTest.
const racers = 8

// SelfTest asks the store to keep what it promises: that an absent object is said to be absent, that what was written is read, and, unless
// it is "single-node", that conditional writes are refused and granted as they should be. It returns an *UnfitError if it does not, or another error if that could not be found
// out; then the store can be read, and conditional writes and leases test again. Its 26 requests leave nothing behind. Once passed it asks nothing.
func (s *S3) SelfTest(ctx context.Context) error {
	ctx, end, err := s.calls.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return s.ready(ctx)
}

// ready returns nil once SelfTest has passed. One caller at a time runs it.
func (s *S3) ready(ctx context.Context) error {
	if s.tested.Load() {
		return nil
	}
	select {
	case s.selfTester <- struct{}{}:
		defer func() { <-s.selfTester }()
	case <-ctx.Done():
		return ended(ctx)
	}
	if s.tested.Load() {
		return nil
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	t := &selfTest{s: s, sp: &s3Space{s: s, prefix: s.cfg.Prefix + "selftest/" + strings.ToLower(rand.Text()) + "-"}}
	if err := t.run(ctx); err != nil {
		if _, unfit := errors.AsType[*UnfitError](err); unfit {
			return err
		}
		return fmt.Errorf("test bucket %s: %w", s.where, err)
	}
	s.tested.Store(true)
	s.log.Info("bucket passed the self-test", zap.String("bucket", s.where), zap.String("conditional_writes", s.cfg.ConditionalWrites),
		zap.Bool("unquoted_if_match", s.unquoted.Load()), zap.Bool("conditional_delete", s.deletesIf.Load()))
	return nil
}

// selfTest is one run.
type selfTest struct {
	s  *S3
	sp *s3Space // with a random prefix: two nodes that start together do not meet

	first, second string // ETags of the two versions of the object "a"
}

func (t *selfTest) run(ctx context.Context) (err error) {
	if err := t.absence(ctx); err != nil {
		return err
	}
	defer func() {
		if left := t.cleanUp(ctx); err == nil {
			err = left
		}
	}()
	steps := []func(context.Context) error{t.create, t.createAgain, t.readBack, t.replace, t.replaceStale, t.replaceAbsent, t.race, t.deleteStale}
	if t.s.singleNode() {
		steps = []func(context.Context) error{t.write, t.readBack}
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// absence: a GET of what was never there says so.
func (t *selfTest) absence(ctx context.Context) error {
	_, _, err := t.s.getKey(ctx, t.sp.prefix+"absent", "")
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	const what = "GET of an absent object"
	switch status, code := s3Status(err); {
	case code == "NoSuchBucket":
		return t.unfit(what, err, "create it, or correct storage.s3.bucket")
	case status == http.StatusMovedPermanently:
		return t.unfit(what, err, "it is in another region: correct storage.s3.region")
	case err == nil, code == "AccessDenied":
		return t.unfit(what, err, noAbsence)
	case status == http.StatusForbidden: // InvalidAccessKeyId, SignatureDoesNotMatch, ExpiredToken ...: good ones may come
		return fmt.Errorf("%s: %w: the credentials or the clock are not right", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (t *selfTest) write(ctx context.Context) (err error) {
	t.first, err = t.s.putKey(ctx, t.sp.prefix+"a", []byte("first"), s3Condition{})
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

func (t *selfTest) create(ctx context.Context) (err error) {
	t.first, err = t.s.putKey(ctx, t.sp.prefix+"a", []byte("first"), s3Condition{absent: true})
	return t.granted("PUT If-None-Match:* of a new object", err)
}

func (t *selfTest) createAgain(ctx context.Context) error {
	_, err := t.s.putKey(ctx, t.sp.prefix+"a", []byte("again"), s3Condition{absent: true})
	return t.refused("PUT If-None-Match:* on an existing object", err)
}

func (t *selfTest) readBack(ctx context.Context) error {
	file, etag, err := t.s.getKey(ctx, t.sp.prefix+"a", "")
	if err != nil && !errors.Is(err, ErrNotExist) {
		return fmt.Errorf("read what was written: %w", err)
	}
	if err != nil || !bytes.Equal(file, []byte("first")) || etag != t.first || strings.HasPrefix(etag, "W/") {
		return &UnfitError{Bucket: t.s.where, Fault: "does not return what was just written, or not with the same strong ETag", Therefor: noWhole}
	}
	return nil
}

// replace finds out, too, whether the store wants ETags without quotes.
func (t *selfTest) replace(ctx context.Context) (err error) {
	put := func() {
		t.second, err = t.s.putKey(ctx, t.sp.prefix+"a", []byte("second"), s3Condition{match: t.first})
	}
	t.s.unquoted.Store(false)
	if put(); refusedByStore(err) {
		t.s.unquoted.Store(true)
		put()
	}
	return t.granted("PUT If-Match with the right ETag", err)
}

func (t *selfTest) replaceStale(ctx context.Context) error {
	_, err := t.s.putKey(ctx, t.sp.prefix+"a", []byte("third"), s3Condition{match: t.first})
	return t.refused("PUT If-Match with an old ETag", err)
}

func (t *selfTest) replaceAbsent(ctx context.Context) error {
	_, err := t.s.putKey(ctx, t.sp.prefix+"absent", []byte("third"), s3Condition{match: t.second})
	return t.refused("PUT If-Match on an absent object", err)
}

// race: of many who create an object, one does.
func (t *selfTest) race(ctx context.Context) error {
	var wins atomic.Int32
	var wg sync.WaitGroup
	faults := make([]error, racers)
	for i := range racers {
		wg.Go(func() {
			_, err := t.sp.putIf(ctx, "race", []byte{byte('a' + i)}, "")
			if err == nil {
				wins.Add(1)
			} else if !errors.Is(err, ErrConflict) {
				faults[i] = err
			}
		})
	}
	wg.Wait()
	if n := wins.Load(); n > 1 {
		return &UnfitError{Bucket: t.s.where, Therefor: noFakeLocks,
			Fault: fmt.Sprintf("does not enforce conditional writes (of %d PUT If-None-Match:* at the same time %d returned 200)", racers, n)}
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("%d creations at the same time: %w", racers, err)
	}
	if wins.Load() == 0 {
		return fmt.Errorf("of %d creations at the same time none came through", racers)
	}
	return nil
}

// deleteStale only finds out: nothing relies on it but SweepTombstones.
func (t *selfTest) deleteStale(ctx context.Context) error {
	err := t.s.deleteKey(ctx, t.sp.prefix+"a", t.first)
	t.s.deletesIf.Store(refusedByStore(err))
	return nil
}

func (t *selfTest) cleanUp(ctx context.Context) error {
	for _, key := range []string{"a", "absent", "race"} {
		if err := t.s.deleteKey(ctx, t.sp.prefix+key, ""); err != nil {
			return fmt.Errorf("delete what the test wrote: %w", err)
		}
	}
	return nil
}

// granted wants a conditional write to have been done.
func (t *selfTest) granted(what string, err error) error {
	if err == nil {
		return nil
	}
	if status, _ := s3Status(err); refusedByStore(err) || status == http.StatusNotImplemented || status == http.StatusBadRequest {
		return t.unfit(what, err, noFakeLocks)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// refused wants a conditional write to have been refused.
func (t *selfTest) refused(what string, err error) error {
	if err == nil {
		return t.unfit(what, nil, noFakeLocks)
	}
	if refusedByStore(err) {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (t *selfTest) unfit(what string, err error, therefor string) error {
	status, code := s3Status(err)
	returned := "200"
	if err != nil {
		returned = strings.TrimSpace(fmt.Sprint(status, " ", code))
	}
	fault := "does not enforce conditional writes"
	if therefor != noFakeLocks {
		fault = "cannot be used"
	}
	return &UnfitError{Bucket: t.s.where, Fault: fmt.Sprintf("%s (%s returned %s)", fault, what, returned), Therefor: therefor}
}
