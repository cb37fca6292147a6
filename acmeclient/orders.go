package acmeclient

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// An order that is not decided is continued for a day, then given up for a new one.
const maxOrderAge = 24 * time.Hour

// leftOrderAge is how old the record of an order is that nobody continues any more.
const leftOrderAge = 8 * 24 * time.Hour

// orderRecord is the object acme/<ca>/orders/<hash of the CSR>: an order in progress. Whoever comes with the same CSR continues it: this process after an
// error, its successor after a crash, another node.
type orderRecord struct {
	URL            string    `json:"url,omitempty"` // empty over a protocol without orders
	Authorizations []string  `json:"authorizations,omitempty"`
	Certificate    string    `json:"certificate,omitempty"`
	Account        string    `json:"account"`
	Protocol       Protocol  `json:"protocol"`
	Profile        string    `json:"profile,omitempty"`
	Names          []string  `json:"names"` // for a person who looks
	Placed         time.Time `json:"placed"`
	Expires        time.Time `json:"expires,omitzero"`
}

// usable reports whether the order can still be continued by this account.
func (r *orderRecord) usable(account string, now time.Time) bool {
	return r.Account == account && now.Sub(r.Placed) < maxOrderAge && (r.Expires.IsZero() || now.Before(r.Expires))
}

// lost reports whether the order is of no use any more since the CA answered that it has none such for us. One that was placed just now may be there: another node of the CA
// does not know it yet, or something before the CA refuses us. To place the next would be to lose that, too, at each attempt.
func (r *orderRecord) lost(err error, now time.Time) bool {
	return isKind(err, "accountDoesNotExist") || isGone(err) && now.Sub(r.Placed) >= undecidedPause
}

// order returns what the dialect needs to read the order's state.
func (r *orderRecord) order() *order {
	return &order{url: r.URL, authorizations: r.Authorizations, certificateURL: r.Certificate, expires: r.Expires}
}

// maxUnsaved bounds the orders kept in memory because the store did not take them.
const maxUnsaved = 1024

// orderBook keeps orders in progress.
type orderBook struct {
	ca    string
	store storage.Store
	log   *zap.Logger

	// mu guards unsaved: orders that were placed while the store failed. They are continued by this process at least, instead of being placed again.
	mu      sync.Mutex
	unsaved map[string]orderRecord
}

func newOrderBook(ca string, store storage.Store, log *zap.Logger) *orderBook {
	return &orderBook{ca: ca, store: store, log: log, unsaved: map[string]orderRecord{}}
}

func (b *orderBook) prefix() string { return "acme/" + b.ca + "/orders/" }

// name returns the object's name for a CSR.
func (b *orderBook) name(csr []byte) string {
	sum := sha256.Sum256(csr)
	return b.prefix() + hex.EncodeToString(sum[:])
}

// load returns the order in progress for the CSR, nil if there is positively none. With a store that does not answer nothing is ordered: there may be one.
func (b *orderBook) load(ctx context.Context, name string) (*orderRecord, error) {
	b.mu.Lock()
	record, ok := b.unsaved[name]
	b.mu.Unlock()
	if ok {
		return &record, nil
	}
	data, _, err := b.store.Get(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	_, damaged := errors.AsType[*storage.CorruptError](err)
	if err != nil && !damaged {
		return nil, ofStore(fmt.Errorf("read the order in progress: %w", err))
	}
	if err == nil {
		err = json.Unmarshal(data, &record)
	}
	if err != nil { // nothing of worth in it: the CSR has another order soon
		b.log.Warn("the stored order is damaged; a new one is placed", zap.String("object", name), zap.Error(err))
		return nil, nil
	}
	return &record, nil
}

// save stores the order before any challenge is told. If that fails, nothing goes on, but the order is remembered.
func (b *orderBook) save(ctx context.Context, name string, r orderRecord) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the order: %w", err)
	}
	_, err = b.store.Put(ctx, name, data)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		delete(b.unsaved, name)
		return nil
	}
	if len(b.unsaved) < maxUnsaved {
		b.unsaved[name] = r
	}
	return ofStore(fmt.Errorf("store the order in progress: %w", err))
}

// saveNew stores an order that was just placed. It tries harder than others, also if ctx ends: whoever comes to the name after us and does not find the order
// places another.
func (b *orderBook) saveNew(ctx context.Context, name string, r orderRecord, pauses []time.Duration) error {
	save := func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
		defer cancel()
		return b.save(ctx, name, r)
	}
	err := save()
	for _, pause := range pauses {
		if err == nil || sleep(ctx, pause) != nil {
			break
		}
		err = save()
	}
	return err
}

// keepCertificate notes where the certificate will be, for a protocol without orders. It is best effort: without it, a successor asks for another certificate.
func (b *orderBook) keepCertificate(ctx context.Context, name, url string) {
	record, err := b.load(ctx, name)
	if err == nil && record != nil {
		record.Certificate = url
		err = b.save(ctx, name, *record)
	}
	if err != nil {
		b.log.Warn("note where the certificate will be", zap.String("object", name), zap.Error(err))
	}
}

// resave tries again to store an order that was placed while the store failed.
func (b *orderBook) resave(ctx context.Context, name string) error {
	b.mu.Lock()
	record, ok := b.unsaved[name]
	b.mu.Unlock()
	if !ok {
		return nil
	}
	return b.save(ctx, name, record)
}

// forget removes the order: it is done, or cannot be continued. The work's context may have ended. What stays behind after an error is found dead later.
func (b *orderBook) forget(ctx context.Context, name string) {
	b.mu.Lock()
	delete(b.unsaved, name)
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := b.store.Delete(ctx, name); err != nil {
		b.log.Warn("remove the order that is done", zap.String("object", name), zap.Error(err))
	}
}

// sweep removes the records that nobody will come back for: of a process that died before it could forget its order, for example.
func (b *orderBook) sweep(ctx context.Context) error {
	return storage.ForAll(ctx, b.store, b.prefix(), 4, func(ctx context.Context, name string) error {
		data, _, err := b.store.Get(ctx, name)
		var record orderRecord
		if err != nil || json.Unmarshal(data, &record) != nil || time.Since(record.Placed) < leftOrderAge {
			return nil // it is gone, or who comes for it says what is wrong with it
		}
		if err := b.store.Delete(ctx, name); err != nil {
			return fmt.Errorf("remove the record of an order that is over: %w", err)
		}
		return nil
	})
}
