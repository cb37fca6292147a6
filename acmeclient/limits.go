package acmeclient

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// Limit is a refusal of the CA that holds until a time: nothing in its scope is ordered before.
type Limit struct {
	Scope   string    `json:"scope"`             // one of the Scope constants
	Subject string    `json:"subject,omitempty"` // the registered domain, the name, or the names of a set joined by commas
	Until   time.Time `json:"until"`
	Status  int       `json:"status,omitempty"` // HTTP status
	Type    string    `json:"type,omitempty"`   // problem type
	Detail  string    `json:"detail,omitempty"` // the CA's words
	Advice  string    `json:"advice,omitempty"`
	Paused  bool      `json:"paused,omitempty"` // see Problem.Paused
}

// covers reports whether an order for the sorted names falls under the limit.
func (l *Limit) covers(names []string) bool {
	switch l.Scope {
	case ScopeName:
		return slices.Contains(names, l.Subject) || l.Subject == strings.Join(names, ",")
	case ScopeDomain:
		return slices.ContainsFunc(names, func(n string) bool { return n == l.Subject || strings.HasSuffix(n, "."+l.Subject) })
	}
	return true
}

// shared reports whether other nodes are concerned as well: they have the same account and the same names, but not the same address.
func (l *Limit) shared() bool {
	return l.Scope == ScopeName || l.Scope == ScopeDomain || l.Scope == ScopeAccount
}

// Bounds of the memory of limits.
const (
	maxLimits     = 512
	limitsRefresh = 30 * time.Second
)

// limitBook remembers the CA's limits, for itself and, in the object acme/<ca>/limits, for the fleet. What it knows is advice: a store that does not
// answer is no reason not to order.
type limitBook struct {
	ca    string
	store storage.Store
	log   *zap.Logger

	// mu guards what follows; never held during I/O.
	mu     sync.Mutex
	limits []Limit
	loaded time.Time // when the object was last read, or tried
}

func (b *limitBook) name() string { return "acme/" + b.ca + "/limits" }

// check returns the Problem that an order for the sorted names would meet again, or nil. Nil names ask for what concerns every request.
func (b *limitBook) check(ctx context.Context, names []string) error {
	now := time.Now()
	b.mu.Lock()
	stale := now.Sub(b.loaded) >= limitsRefresh
	if stale {
		b.loaded = now // one reads, the others go on with what is known
	}
	b.mu.Unlock()
	if stale {
		b.load(ctx, now)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var worst *Limit
	for i := range b.limits {
		l := &b.limits[i]
		if l.Until.After(now) && l.covers(names) && (worst == nil || l.Until.After(worst.Until)) {
			worst = l
		}
	}
	if worst == nil {
		return nil
	}
	p := &Problem{
		CA: b.ca, Op: "place the order (not sent: the CA refused before)", Type: worst.Type, Detail: worst.Detail, Status: worst.Status,
		Advice: worst.Advice, scope: worst.Scope, subject: worst.Subject, retryAt: worst.Until, remembered: true, paused: worst.Paused,
	}
	if worst.Scope == ScopeName && !strings.Contains(worst.Subject, ",") {
		p.Identifier = worst.Subject
	}
	return p
}

// load merges what the fleet knows.
func (b *limitBook) load(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	limits, _, err := b.read(ctx)
	if err != nil {
		b.log.Warn("read the CA's limits", zap.Error(err))
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range limits {
		b.limits = mergeLimit(b.limits, l, now)
	}
}

// read returns what the fleet knows. What is damaged is put aside and begun anew.
func (b *limitBook) read(ctx context.Context) ([]Limit, storage.Version, error) {
	limits, version, err := storage.LoadJSON[[]Limit](ctx, b.store, b.name(), b.log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	return limits, version, err
}

// note remembers the time that a Problem of an order gave, if it gave one.
func (b *limitBook) note(ctx context.Context, p *Problem, names []string) {
	now := time.Now()
	if p.remembered || !p.retryAt.After(now) {
		return
	}
	l := Limit{Scope: p.scope, Subject: p.subject, Until: p.retryAt.UTC(), Status: p.Status, Type: p.Type, Detail: p.Detail, Advice: p.Advice, Paused: p.paused}
	if l.Scope == ScopeName && l.Subject == "" {
		l.Subject = strings.Join(names, ",")
	}
	b.mu.Lock()
	b.limits = mergeLimit(b.limits, l, now)
	b.mu.Unlock()
	if !l.shared() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := b.save(ctx, l, now); err != nil {
		b.log.Warn("store the CA's limit", zap.String("scope", l.Scope), zap.Error(err))
	}
}

// save adds the limit to what the fleet knows.
func (b *limitBook) save(ctx context.Context, l Limit, now time.Time) error {
	var err error
	for range 5 { // other nodes write, too
		limits, version, readErr := b.read(ctx)
		if readErr != nil {
			return readErr
		}
		data, encodeErr := json.Marshal(mergeLimit(limits, l, now))
		if encodeErr != nil {
			return encodeErr
		}
		if _, err = b.store.PutIf(ctx, b.name(), data, version); !errors.Is(err, storage.ErrConflict) {
			return err
		}
	}
	return err
}

// forgive forgets this node's limits of the scope.
func (b *limitBook) forgive(scope string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limits = slices.DeleteFunc(b.limits, func(l Limit) bool { return l.Scope == scope })
}

// list returns the limits that hold now.
func (b *limitBook) list(now time.Time) []Limit {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.limits), func(l Limit) bool { return !l.Until.After(now) })
}

// mergeLimit adds l to limits: the newest word on a subject counts, what has passed goes, and beyond maxLimits what ends first.
func mergeLimit(limits []Limit, l Limit, now time.Time) []Limit {
	limits = slices.DeleteFunc(limits, func(old Limit) bool {
		return !old.Until.After(now) || old.Scope == l.Scope && old.Subject == l.Subject
	})
	if !l.Until.After(now) {
		return limits
	}
	limits = append(limits, l)
	slices.SortFunc(limits, func(a, b Limit) int { return b.Until.Compare(a.Until) })
	return limits[:min(len(limits), maxLimits)]
}
