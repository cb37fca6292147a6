package acmeclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"gatelodge/storage"
)

// ErrAccountExists is wrapped by ImportAccount's error where the CA has an account already.
var ErrAccountExists = errors.New("acmeclient: there is an account at this CA already")

// ForeignAccount is an account that another program has made.
type ForeignAccount struct {
	Key     []byte // PKCS #8 DER: ECDSA P-256 or P-384, or RSA
	URL     string // empty: the CA is asked with the key
	Contact []string

	// Directory is the URL of the CA's directory, as Config has it. An account URL on another host, such as that of the CA's former ACME v1, is not believed.
	Directory string
}

// ImportAccount makes the account the one that the Client of that name (Config.Name) uses, if there is none yet: its error wraps ErrAccountExists if there is
// another, and is nil if there is this one. The CA is not asked. One that does not know the account's URL is told the key by the Client, once.
func ImportAccount(ctx context.Context, store storage.Store, ca string, a ForeignAccount) error {
	key, err := parseAccountKey(a.Key)
	if err != nil {
		return err
	}
	c := &Client{cfg: Config{Name: ca, Store: store}}
	have, _, err := c.loadAccount(ctx)
	switch {
	case err != nil:
		return err
	case have != nil && sameKey(have.key, key):
		return nil
	case have != nil:
		return fmt.Errorf("%w: %s", ErrAccountExists, c.accountName())
	}
	record := accountRecord{Key: a.Key, Contact: a.Contact, Created: time.Now().UTC()}
	if sameHost(a.URL, a.Directory) {
		record.URL = a.URL
	}
	data, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode the account: %w", err)
	}
	if _, err := store.PutIf(ctx, c.accountName(), data, ""); errors.Is(err, storage.ErrConflict) {
		return fmt.Errorf("%w: %s was made this moment", ErrAccountExists, c.accountName())
	} else if err != nil {
		return fmt.Errorf("store the account at %s: %w", ca, err)
	}
	return nil
}

func sameHost(a, b string) bool {
	u, err1 := url.Parse(a)
	v, err2 := url.Parse(b)
	return err1 == nil && err2 == nil && u.Host != "" && u.Scheme == v.Scheme && strings.EqualFold(u.Host, v.Host)
}
