package certs

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gatelodge/storage"
)

// blockedKey is the record of a key that others know. It stays for ever; the key itself is not in it. That the object is there is what blocks, whatever is in it.
type blockedKey struct {
	Name    string    `json:"name"` // of the certificate that had the key
	CA      string    `json:"ca,omitempty"`
	Serial  string    `json:"serial,omitempty"` // hexadecimal
	Blocked time.Time `json:"blocked"`
	Revoked time.Time `json:"revoked,omitzero"`
}

// blockedObject lies under the SHA-256 of the key's SubjectPublicKeyInfo, in hexadecimal: what lists of compromised keys have too.
func blockedObject(sum string) string { return "blocked_keys/" + sum }

// keySum is that SHA-256.
func keySum(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encode a public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// KeyBlocked reports whether a key was compromised once (Manager.Compromised), so that no certificate may be made for it or imported with it. If storage cannot
// tell, that is an error, and the key is not to be used.
func KeyBlocked(ctx context.Context, store storage.Store, public crypto.PublicKey) (bool, error) {
	sum, err := keySum(public)
	if err != nil {
		return false, err
	}
	_, _, err = store.Get(ctx, blockedObject(sum))
	if errors.Is(err, storage.ErrNotExist) {
		return false, nil
	}
	if _, damaged := errors.AsType[*storage.CorruptError](err); err == nil || damaged {
		return true, nil
	}
	return false, fmt.Errorf("see whether a key is blocked: %w", err)
}

// block blocks the key of a certificate, or adds to its record when it was revoked.
func (m *Manager) block(ctx context.Context, r *revocation, revoked time.Time) error {
	data, err := json.Marshal(blockedKey{r.Name, r.CA, r.Serial, r.Begun, revoked})
	if err == nil {
		_, err = m.store.Put(ctx, blockedObject(r.Key), data)
	}
	if err != nil {
		return fmt.Errorf("block the key of %s: %w", r.Name, err)
	}
	return nil
}
