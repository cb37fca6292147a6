package certs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"gatelodge/proxy/certs/memo"
	"gatelodge/storage"
)

// failureRecord is what we remember of a name's failures in a row: in storage, so that neither a restart nor another process tries again too
// early, and in memory, so that a handshake knows at once.
type failureRecord struct {
	CA      string    `json:"ca"`
	Scope   string    `json:"scope"`
	Reason  string    `json:"reason"` // our own words
	Problem Problem   `json:"problem"`
	Count   int       `json:"count"`           // failures since the last success
	There   int       `json:"there,omitempty"` // of them in a row at this CA
	Moved   time.Time `json:"moved,omitzero"`  // when another CA was asked than before; zero: never
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	RetryAt time.Time `json:"retry_at,omitzero"` // the CA's own word
	Next    time.Time `json:"next"`              // not before then
	Paused  bool      `json:"paused,omitempty"`  // by the CA, until a person has been there
	View    string    `json:"view,omitempty"`    // what we saw ourselves, see Config.View

	// Recent are the last failures, as many as Budget.Failures counts, oldest first.
	Recent []time.Time `json:"recent,omitempty"`
}

// note enters a failure among the recent ones, and puts Next off until the budget has room for another.
func (f *failureRecord) note(prior *failureRecord, at time.Time, limit Limit) {
	if limit.Count <= 0 {
		return
	}
	if prior != nil {
		f.Recent = append(f.Recent, prior.Recent...)
	}
	f.Recent = append(f.Recent, at)
	f.Recent = f.Recent[max(0, len(f.Recent)-limit.Count):]
	f.Next = latest(f.Next, f.room(limit))
}

// room is when the budget has room for another failure.
func (f *failureRecord) room(limit Limit) time.Time {
	if limit.Count <= 0 || len(f.Recent) < limit.Count {
		return time.Time{}
	}
	return f.Recent[len(f.Recent)-limit.Count].Add(limit.Per)
}

// backingOff reports whether it is too early for another attempt.
func (f *failureRecord) backingOff(now time.Time) bool { return f != nil && now.Before(f.Next) }

// BackoffError says that a name is not tried again yet.
type BackoffError struct {
	Name   string
	Next   time.Time // the earliest next attempt
	Reason string    // of the last failure
}

func (e *BackoffError) Error() string {
	return fmt.Sprintf("no certificate for %s before %s: %s", e.Name, e.Next.UTC().Format(time.RFC3339), e.Reason)
}

func (f *failureRecord) asError(name string) error {
	return &BackoffError{Name: name, Next: f.Next, Reason: f.Reason}
}

// failuresInMemory is how many names' failures are known without a read of storage.
const failuresInMemory = 1 << 16

// failures keep the records. What storage says goes before what memory says.
type failures struct {
	store storage.Store
	log   *zap.Logger
	known *memo.Memo[string, *failureRecord] // records are replaced, never modified
}

func newFailures(store storage.Store, log *zap.Logger) *failures {
	return &failures{store: store, log: log, known: memo.New[string, *failureRecord](failuresInMemory)}
}

// remembered returns the record in memory, without asking storage.
func (f *failures) remembered(name string) *failureRecord {
	rec, _ := f.known.Get(name)
	return rec
}

// read returns the stored record; nil if there is none. An error means that we cannot know: then nothing is ordered.
func (f *failures) read(ctx context.Context, name string) (*failureRecord, error) {
	rec, _, err := storage.LoadJSON[*failureRecord](ctx, f.store, failureObject(name), f.log) // a damaged one is a clean slate, once: the next failure is written anew
	if errors.Is(err, storage.ErrNotExist) || err == nil && rec == nil {
		f.known.Forget(name)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the failures of %s: %w", name, err)
	}
	f.remember(name, rec)
	return rec, nil
}

// remember keeps the record in memory for a day longer than it holds the name back, for whoever asks why.
func (f *failures) remember(name string, rec *failureRecord) {
	f.known.Put(name, rec, latest(rec.Next, rec.Last).Add(24*time.Hour))
}

// write keeps the record. It is called under the name's lease. If storage refuses it, memory has it until the next restart.
func (f *failures) write(ctx context.Context, name string, rec *failureRecord) {
	f.remember(name, rec)
	if err := f.put(ctx, name, rec); err != nil {
		f.log.Warn("failure could not be stored, it is remembered until a restart", zap.String("name", name), zap.Error(err))
	}
}

// rewrite stores a record that a person changed. If storage refuses it, nothing has changed.
func (f *failures) rewrite(ctx context.Context, name string, rec *failureRecord) error {
	err := f.put(ctx, name, rec)
	if err == nil {
		f.remember(name, rec)
	}
	return err
}

func (f *failures) put(ctx context.Context, name string, rec *failureRecord) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encode the failures of %s: %w", name, err)
	}
	if _, err := f.store.Put(ctx, failureObject(name), data); err != nil {
		return fmt.Errorf("store the failures of %s: %w", name, err)
	}
	return nil
}

// clear forgets what went wrong, after a success. It is called under the name's lease.
func (f *failures) clear(ctx context.Context, name string) {
	f.known.Forget(name)
	if err := f.store.Delete(ctx, failureObject(name)); err != nil {
		// The next reader sees that it is older than the certificate.
		f.log.Debug("old failure could not be deleted", zap.String("name", name), zap.Error(err))
	}
}

// scopeOf, retryOf and problemOf read an issuer's error. What is no Failure concerns the CA.
func scopeOf(err error) string {
	if f, ok := errors.AsType[Failure](err); ok {
		return f.Scope()
	}
	return ScopeCA
}

func pausedBy(err error) bool {
	f, ok := errors.AsType[PausedFailure](err)
	return ok && f.Paused()
}

func retryOf(err error) time.Time {
	if f, ok := errors.AsType[Failure](err); ok {
		return f.RetryAt()
	}
	return time.Time{}
}

func problemOf(err error) Problem {
	var p Problem
	if f, ok := errors.AsType[ExplainedFailure](err); ok {
		p = f.Problem()
	}
	return advise(p, scopeOf(err), err)
}
