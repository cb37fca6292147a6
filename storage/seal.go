package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"
)

// ErrPlaintext is wrapped by errors about an object that lies in clear where the configuration wants it sealed.
var ErrPlaintext = errors.New("storage: the object is not sealed")

// A KeyError says that an object is sealed, and that no key of the ring is the one. It is neither an absence nor a damage: nothing is ordered or
// put aside because a key is missing here.
type KeyError struct {
	Name string // the object
	ID   string // of the key; empty if a newer program sealed it
}

func (e *KeyError) Error() string {
	if e.ID == "" {
		return fmt.Sprintf("object %s is sealed in a format that this program does not know: use the program that wrote it", e.Name)
	}
	return fmt.Sprintf("object %s is sealed with the key %s, which is not in the key ring: add it to storage.encryption.keys", e.Name, e.ID)
}

// SealConfig is how a store seals.
type SealConfig struct {
	// Keys is the ring: the first seals, all open. With none, nothing is sealed, and what is sealed is refused as a KeyError, so that
	// a key ring that was forgotten does not make every certificate look damaged.
	Keys []SealKey

	// Require refuses what lies in clear, with an error that wraps ErrPlaintext. Else it is read, and sealed when it is written next. Somebody who can write
	// to the store, but has no key, can put objects of his own into it unless this is set.
	Require bool
}

// Sealed is a Store that keeps another's objects sealed; see sealenvelope.go for what they look like.
//
// Everything is sealed, so that no new kind of secret is forgotten in a list, but for the challenges of CAs ("acme/challenges/"), which are public when they
// are of use, and which must be answered even by a node that lacks a key. Names, sizes, times and leases are not secret. An older envelope put
// back in place of a newer one opens: only who can write to the store can do it, and fences in the contents tell.
//
// Versions, leases and listings are those of the store below.
type Sealed struct {
	inner   Store
	keys    map[string]*SealKey
	first   *SealKey // seals; nil if the ring is empty
	require bool
	log     *zap.Logger
}

var (
	_ Store    = (*Sealed)(nil)
	_ Salvager = (*Sealed)(nil)
)

// clearPrefix begins the names of objects that are not sealed.
const clearPrefix = "acme/challenges/"

// NewSealed seals what is below. It reads one object, the canary (see canary), and refuses a ring in which a key is not the one that bears its ID in
// this store: with a wrong key, everything would look damaged. log may be nil.
func NewSealed(ctx context.Context, inner Store, cfg SealConfig, log *zap.Logger) (*Sealed, error) {
	if log == nil {
		log = zap.NewNop()
	}
	s := &Sealed{inner: inner, keys: map[string]*SealKey{}, require: cfg.Require, log: log}
	var ring []SealKey
	for _, key := range cfg.Keys {
		if fault := keyIDFault(key.ID); fault != "" {
			return nil, fmt.Errorf("key ring: the ID of a key is wrong: %s", fault)
		}
		if err := fitsRing(ring, key); err != nil {
			return nil, fmt.Errorf("key ring: %w", err)
		}
		ring = append(ring, key)
	}
	for i := range ring {
		s.keys[ring[i].ID] = &ring[i]
	}
	if len(ring) > 0 {
		s.first = &ring[0]
	} else if cfg.Require {
		return nil, errors.New("storage.encryption.require is set, and storage.encryption.keys is empty: give a key, or do not require it")
	}
	if err := s.checkCanary(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// inClear reports whether the object is stored as it is.
func inClear(name string) bool { return strings.HasPrefix(name, clearPrefix) || name == canaryObject }

// Get implements Store.
func (s *Sealed) Get(ctx context.Context, name string) ([]byte, Version, error) {
	stored, version, err := s.inner.Get(ctx, name)
	if _, damaged := errors.AsType[*CorruptError](err); damaged {
		return nil, "", s.stillInside(ctx, name, err)
	}
	if err != nil {
		return nil, "", err
	}
	data, err := s.open(name, stored)
	if err != nil {
		return nil, "", s.blame(name, stored, version, err)
	}
	return data, version, nil
}

// open returns the bytes of the object name that is stored so. Its error is a KeyError, wraps ErrPlaintext, or says what is damaged.
func (s *Sealed) open(name string, stored []byte) ([]byte, error) {
	switch {
	case inClear(name):
		return stored, nil
	case isSealed(stored):
		return s.unseal(name, stored)
	case s.require:
		return nil, fmt.Errorf("read %s: %w, and storage.encryption.require is set: run `gatelodge storage rekey`, which seals what is not", name, ErrPlaintext)
	}
	return stored, nil
}

func (s *Sealed) unseal(name string, stored []byte) ([]byte, error) {
	e, err := parseEnvelope(stored)
	if err != nil {
		return nil, err
	}
	key := s.keys[e.id]
	if key == nil {
		return nil, &KeyError{Name: name, ID: e.id}
	}
	return key.open(name, e)
}

// blame turns an error of open into one for callers: what is damaged is named with exactly the version and the bytes that are.
func (s *Sealed) blame(name string, stored []byte, v Version, err error) error {
	if !isDamage(err) {
		return err
	}
	return &CorruptError{Name: name, Err: err, Version: v, Sum: sha256.Sum256(stored)}
}

func isDamage(err error) bool { return errors.Is(err, errSealTorn) || errors.Is(err, errSealBroken) }

// Salvage implements Salvager: what cannot be opened because it is damaged comes as it lies there. Without the key there is nothing to salvage: a KeyError.
func (s *Sealed) Salvage(ctx context.Context, name string) ([]byte, Version, error) {
	salvager, ok := s.inner.(Salvager)
	if !ok {
		return nil, "", fmt.Errorf("salvage %s: %T is no storage.Salvager: %w", name, s.inner, errors.ErrUnsupported)
	}
	stored, version, err := salvager.Salvage(ctx, name)
	if err != nil || inClear(name) {
		return stored, version, err
	}
	data, err := s.inside(name, stored)
	switch {
	case err == nil:
		return data, version, nil
	case isDamage(err):
		return stored, version, nil
	}
	return nil, "", err
}

// inside opens the envelope in bytes that the store below may have found damaged, with who knows what around it: an envelope that opens is whole.
func (s *Sealed) inside(name string, stored []byte) ([]byte, error) {
	begin := bytes.Index(stored, []byte(sealMagic))
	if begin < 0 {
		return stored, nil
	}
	return s.unseal(name, stored[begin:])
}

// stillInside says again, with the sum of what Salvage returns, that the store below found an object damaged.
func (s *Sealed) stillInside(ctx context.Context, name string, damage error) error {
	data, version, err := s.Salvage(ctx, name)
	if errors.Is(err, ErrNotExist) || errors.Is(err, errors.ErrUnsupported) {
		return damage
	}
	if err != nil {
		return err
	}
	corrupt, _ := errors.AsType[*CorruptError](damage)
	return &CorruptError{Name: name, Err: corrupt.Err, Version: version, Sum: sha256.Sum256(data)}
}

// Put implements Store.
func (s *Sealed) Put(ctx context.Context, name string, data []byte) (Version, error) {
	sealed, err := s.seal(ctx, name, data)
	if err != nil {
		return "", err
	}
	return s.inner.Put(ctx, name, sealed)
}

// PutIf implements Store.
func (s *Sealed) PutIf(ctx context.Context, name string, data []byte, v Version) (Version, error) {
	sealed, err := s.seal(ctx, name, data)
	if err != nil {
		return "", err
	}
	return s.inner.PutIf(ctx, name, sealed, v)
}

func (s *Sealed) seal(ctx context.Context, name string, data []byte) ([]byte, error) {
	if err := checkWrite(ctx, name, data); err != nil {
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	if s.first == nil || inClear(name) {
		return data, nil
	}
	return s.first.seal(name, data)
}

// Delete implements Store.
func (s *Sealed) Delete(ctx context.Context, name string) error { return s.inner.Delete(ctx, name) }

// DeleteIf implements Salvager.
func (s *Sealed) DeleteIf(ctx context.Context, name string, v Version) error {
	salvager, ok := s.inner.(Salvager)
	if !ok {
		return fmt.Errorf("delete %s: %T is no storage.Salvager: %w", name, s.inner, errors.ErrUnsupported)
	}
	return salvager.DeleteIf(ctx, name, v)
}

// List implements Store.
func (s *Sealed) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	return s.inner.List(ctx, prefix, after, limit)
}

// Lease implements Store.
func (s *Sealed) Lease(ctx context.Context, name string) (Lease, error) {
	return s.inner.Lease(ctx, name)
}
