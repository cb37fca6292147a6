package acmeclient

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// Account is the Client's account at its CA.
type Account struct {
	URL     string // the account's URL, which CAA records may name (RFC 8657)
	Contact []string
	Created time.Time
}

// account is an account with its key. It is replaced, never modified.
type account struct {
	key crypto.Signer // ours are P-256, which every public CA accepts; imported ones may be others, see parseAccountKey
	accountRecord
}

// accountRecord is the object acme/<ca>/account: one account per CA for the whole fleet. A CA that moves from v1 to v2 knows the key by another URL then.
type accountRecord struct {
	Key        []byte        `json:"key"`           // PKCS #8
	URL        string        `json:"url,omitempty"` // over v2; empty until the CA has answered
	Contact    []string      `json:"contact,omitempty"`
	Terms      string        `json:"terms,omitempty"`       // URL of the terms that were agreed to
	V1         *registration `json:"v1,omitempty"`          // nil: never registered over v1
	Binding    string        `json:"eab_kid,omitempty"`     // key identifier of the external account binding that was last sent
	Pending    []byte        `json:"pending_key,omitempty"` // PKCS #8, of a roll-over that is not known to have happened
	Created    time.Time     `json:"created"`
	Registered time.Time     `json:"registered,omitzero"` // when it was last registered
	Restored   time.Time     `json:"restored,omitzero"`   // when it was last registered again since the CA had lost it; bounds how often that happens
}

// registration is the account as ACME v1 knows it.
type registration struct {
	URL   string `json:"url,omitempty"`   // empty: the CA gave none
	Terms string `json:"terms,omitempty"` // URL of the terms that were agreed to
}

// known reports whether the account is registered over the protocol.
func (r *accountRecord) known(p Protocol) bool {
	if p == ProtocolV1 {
		return r.V1 != nil
	}
	return r.URL != ""
}

// at returns the account's URL over the protocol.
func (r *accountRecord) at(p Protocol) string {
	switch {
	case p != ProtocolV1:
		return r.URL
	case r.V1 != nil:
		return r.V1.URL
	}
	return ""
}

// register notes what the CA answered over the protocol.
func (r *accountRecord) register(p Protocol, url, terms string) {
	if p == ProtocolV1 {
		r.V1 = &registration{URL: url, Terms: terms}
		return
	}
	r.URL, r.Terms = url, terms
}

// reregisterPause bounds how often an account that the CA lost is registered again.
const reregisterPause = time.Hour

// storeTimeout bounds a write that must happen though the work's context has ended.
const storeTimeout = 10 * time.Second

// accounts owns the account: read from the store once, made under a lease if positively absent.
type accounts struct {
	turn chan struct{} // holds one: whoever reads or registers; the others wait

	// mu guards known; never held during I/O.
	mu    sync.Mutex
	known *account
}

func (a *accounts) get() *account {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known
}

func (a *accounts) set(acct *account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known = acct
}

func (c *Client) accountName() string { return "acme/" + c.cfg.Name + "/account" }

// account returns the fleet's account at the CA and makes it if there is none. A store that does not answer never leads to another account; one whose record is
// damaged for certain does, and the record is kept for a person (see replaceDamaged).
func (c *Client) account(ctx context.Context, d dialect) (*account, error) {
	if acct := c.accounts.get(); acct != nil && acct.known(d.protocol()) {
		return acct, nil
	}
	return c.inTurn(ctx, func() (*account, error) {
		acct, err := c.storedAccount(ctx, d)
		if _, damaged := errors.AsType[*storage.CorruptError](err); acct != nil || err != nil && !damaged {
			return acct, err
		}
		if acct, err = c.registerUnderLease(ctx, d, ""); err != nil {
			return nil, err
		}
		c.accounts.set(acct)
		return acct, nil
	})
}

// storedAccount returns the account that there is, in turn. It is nil if there is positively none that the CA knows over the dialect.
func (c *Client) storedAccount(ctx context.Context, d dialect) (*account, error) {
	if acct := c.accounts.get(); acct != nil && acct.known(d.protocol()) {
		return acct, nil
	}
	return c.readAccount(ctx, d)
}

// readAccount is storedAccount though one is in memory.
func (c *Client) readAccount(ctx context.Context, d dialect) (*account, error) {
	acct, _, err := c.loadAccount(ctx)
	if err != nil || acct == nil || !acct.known(d.protocol()) {
		return nil, err
	}
	if acct, err = c.tend(ctx, d, acct); err != nil {
		return nil, err
	}
	c.accounts.set(acct)
	return acct, nil
}

// replaceLost registers an account again that the CA says it does not know, with the same key: CAA and DNS records may name its URL, and a
// restored CA may know it again. Another node may have done it already.
func (c *Client) replaceLost(ctx context.Context, d dialect, lost *account) (*account, error) {
	return c.inTurn(ctx, func() (*account, error) {
		if acct := c.accounts.get(); acct != nil && acct.Registered.After(lost.Registered) {
			return acct, nil
		}
		acct, err := c.registerUnderLease(ctx, d, lost.at(d.protocol()))
		if err != nil {
			return nil, err
		}
		c.accounts.set(acct)
		return acct, nil
	})
}

// inTurn runs work alone within this Client.
func (c *Client) inTurn(ctx context.Context, work func() (*account, error)) (*account, error) {
	select {
	case c.accounts.turn <- struct{}{}:
		defer func() { <-c.accounts.turn }()
		return work()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the account at %s: %w", c.cfg.Name, ctx.Err())
	}
}

// loadAccount reads the account. It is nil if it is positively absent.
func (c *Client) loadAccount(ctx context.Context) (*account, storage.Version, error) {
	data, version, err := c.cfg.Store.Get(ctx, c.accountName())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", ofStore(fmt.Errorf("read the account at %s: %w", c.cfg.Name, err))
	}
	acct := &account{}
	if err := json.Unmarshal(data, &acct.accountRecord); err != nil {
		return nil, "", storage.NewCorruptError(c.accountName(), data, errors.New("it is no account record"))
	}
	if acct.key, err = parseAccountKey(acct.Key); err != nil {
		return nil, "", storage.NewCorruptError(c.accountName(), data, err)
	}
	return acct, version, nil
}

// knownOverV2 reports whether the account was ever registered over v2. One whose record is damaged may have been.
func (c *Client) knownOverV2(ctx context.Context) (bool, error) {
	acct, _, err := c.loadAccount(ctx)
	if _, damaged := errors.AsType[*storage.CorruptError](err); damaged {
		return true, nil
	}
	return acct != nil && acct.known(ProtocolV2), err
}

// underLease runs work while no other node changes the account.
func (c *Client) underLease(ctx context.Context, work func(context.Context) (*account, error)) (*account, error) {
	lease, err := c.cfg.Store.Lease(ctx, c.accountName())
	if err != nil {
		return nil, ofStore(fmt.Errorf("get the lease for the account at %s: %w", c.cfg.Name, err))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(lease.Context(), func() { cancel(context.Cause(lease.Context())) })
	defer func() {
		stop()
		release, done := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
		defer done()
		if err := lease.Release(release); err != nil {
			c.log.Warn("release the account's lease", zap.Error(err))
		}
		cancel(nil)
	}()
	return work(ctx)
}

// registerUnderLease makes or remakes the account while no other node does. lost is the URL that the CA does not know, or empty for a first account.
func (c *Client) registerUnderLease(ctx context.Context, d dialect, lost string) (*account, error) {
	return c.underLease(ctx, func(ctx context.Context) (*account, error) {
		acct, version, err := c.loadAccount(ctx) // whoever held the lease before may have done it
		if _, damaged := errors.AsType[*storage.CorruptError](err); damaged {
			acct, version, err = c.replaceDamaged(ctx, err)
		}
		switch {
		case err != nil:
			return nil, err
		case acct == nil:
			acct, err = newAccount()
		case acct.known(d.protocol()) && acct.at(d.protocol()) != lost:
			return acct, nil
		case lost != "":
			err = c.mayRegisterAgain(acct)
		}
		if err != nil {
			return nil, err
		}
		return c.register(ctx, d, acct, version)
	})
}

// replaceDamaged puts a record aside that cannot be read, so that another account can be made: with the key the account is lost, and until a person came no
// certificate would be renewed. It is called under the lease. Whoever has a backup of the record puts it back, and the new account is forgotten.
func (c *Client) replaceDamaged(ctx context.Context, damage error) (*account, storage.Version, error) {
	if err := storage.Quarantine(ctx, c.cfg.Store, c.accountName(), damage, c.log); err != nil {
		return nil, "", fmt.Errorf("%w; it could not be put aside: %w", damage, err)
	}
	return c.loadAccount(ctx) // somebody may have restored it just now
}

// newAccount makes the key of an account; the CA does not know it yet.
func newAccount() (*account, error) {
	key, der, err := newAccountKey()
	if err != nil {
		return nil, err
	}
	return &account{key: key, accountRecord: accountRecord{Key: der, Created: time.Now().UTC()}}, nil
}

// newAccountKey makes a key, and the form that it is stored in.
func newAccountKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the account key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the account key: %w", err)
	}
	return key, der, nil
}

// parseAccountKey reads a stored key; the error is for a person who repairs the record.
func parseAccountKey(der []byte) (crypto.Signer, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("its key cannot be read; restore it, or remove it to make a new account")
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("its key is a %T, which signs nothing", parsed)
	}
	if _, err := signatureOf(key); err != nil {
		return nil, err
	}
	return key, nil
}

// sameKey reports whether two keys are one.
func sameKey(a, b crypto.Signer) bool {
	public, ok := a.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(b.Public())
}

// mayRegisterAgain refuses to register a lost account more than once an hour: a CA whose nodes know different accounts must not make us register in a circle.
func (c *Client) mayRegisterAgain(acct *account) error {
	next := acct.Restored.Add(reregisterPause)
	if time.Now().After(next) {
		return nil
	}
	return &Problem{
		CA: c.cfg.Name, Op: "register the account again", Type: problemNamespace + "accountDoesNotExist",
		Detail: "the CA lost the account twice within an hour",
		Advice: "see what happened to the account at the CA; it is registered again after an hour",
		scope:  ScopeAccount, retryAt: next,
	}
}

// register stores the key, tells the CA, and stores what it answered. In this order, so that a crash in between costs a request and not an account.
func (c *Client) register(ctx context.Context, d dialect, acct *account, version storage.Version) (*account, error) {
	again := acct.known(d.protocol())
	next := *acct
	next.Contact, next.Binding = c.cfg.Contact, c.cfg.EAB.KID
	version, err := c.storeAccount(ctx, &next, version)
	if err != nil {
		return nil, err
	}
	url, terms, err := c.introduce(ctx, d, acct)
	if err != nil {
		return nil, err
	}
	next.accountRecord.register(d.protocol(), url, terms)
	next.Registered = time.Now().UTC() // not before the CA has answered: one that failed did not lose the account once more
	if again {
		next.Restored = next.Registered
	}
	if _, err = c.storeAccount(ctx, &next, version); err != nil {
		return nil, err
	}
	if again {
		c.log.Error("the CA had lost the account; it was registered again with the same key: CAA and DNS records that name its URL may need a change",
			zap.String("old_account", acct.at(d.protocol())), zap.String("account", url))
	} else {
		c.log.Info("account registered", zap.String("account", url), zap.String("terms", terms))
	}
	return &next, nil
}

// introduce tells the CA the account's key. A CA that moved from v1 to v2 may know it by another URL already; and one that was sent an external account
// binding before, whose answer nobody saw, may take no binding twice.
func (c *Client) introduce(ctx context.Context, d dialect, acct *account) (url, terms string, err error) {
	if d.protocol() == ProtocolV2 && acct.URL == "" && (acct.V1 != nil || acct.Binding != "") {
		url, err := d.find(ctx, acct.key)
		switch {
		case isKind(err, "accountDoesNotExist"):
		case acct.V1 != nil:
			return url, acct.V1.Terms, err
		default:
			return url, newTerms(d, acct), err
		}
	}
	return d.register(ctx, acct.key, c.cfg.Contact)
}

func (c *Client) storeAccount(ctx context.Context, acct *account, version storage.Version) (storage.Version, error) {
	data, err := json.Marshal(acct.accountRecord)
	if err != nil {
		return "", fmt.Errorf("encode the account: %w", err)
	}
	next, err := c.cfg.Store.PutIf(ctx, c.accountName(), data, version)
	if err != nil {
		return "", ofStore(fmt.Errorf("store the account at %s: %w", c.cfg.Name, err))
	}
	return next, nil
}
