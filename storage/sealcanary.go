package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.uber.org/zap"
)

// canaryObject is where the canary lies, in clear.
const canaryObject = "keys/canary"

// canaryText is what each key of the ring seals in it.
const canaryText = "gatelodge: this key is the right one"

// canary has, for each key that this store was ever sealed with, a text that only this key opens. Every process reads it at start, before anything
// else: a wrong key is found there, and not when thousands of certificates seem to be damaged. It lists too which keys there should be.
type canary struct {
	Keys map[string][]byte `json:"keys"` // ID to envelope
}

// canaryName is the name under which a key's text is sealed.
func canaryName(id string) string { return canaryObject + "/" + id }

// checkCanary holds the ring against the canary, and enters keys that are new.
func (s *Sealed) checkCanary(ctx context.Context) error {
	for range 10 {
		c, version, err := s.readCanary(ctx)
		if err != nil {
			return err
		}
		fresh, err := s.compareCanary(c)
		if err != nil || !fresh {
			return err
		}
		if err := s.writeCanary(ctx, c, version); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("write %s: %w", canaryObject, ErrConflict)
}

// compareCanary reports whether keys of the ring were entered.
func (s *Sealed) compareCanary(c *canary) (fresh bool, err error) {
	if len(s.keys) == 0 && len(c.Keys) > 0 {
		return false, fmt.Errorf("this storage is sealed (with %s) and there is no key: set storage.encryption.keys", c.ids())
	}
	for id, key := range s.keys {
		sealed, ok := c.Keys[id]
		if !ok {
			if sealed, err = key.seal(canaryName(id), []byte(canaryText)); err != nil {
				return false, err
			}
			c.Keys[id], fresh = sealed, true
			continue
		}
		if text, err := s.unseal(canaryName(id), sealed); err != nil || string(text) != canaryText {
			return false, fmt.Errorf("the key %s of storage.encryption.keys is not the one that sealed this storage under that ID: give the right one, or the new one another ID", id)
		}
	}
	for id := range c.Keys {
		if s.keys[id] == nil {
			s.log.Warn("storage may have objects sealed with a key that is not in the key ring", zap.String("key", id),
				zap.String("advice", "`gatelodge storage rekey --check` counts them, `gatelodge storage rekey` forgets a key that seals none"))
		}
	}
	return fresh, nil
}

func (s *Sealed) readCanary(ctx context.Context) (*canary, Version, error) {
	c := &canary{Keys: map[string][]byte{}}
	data, version, err := s.inner.Get(ctx, canaryObject)
	if errors.Is(err, ErrNotExist) {
		return c, "", nil
	}
	if err == nil {
		if json.Unmarshal(data, c) != nil || c.Keys == nil {
			err = NewCorruptError(canaryObject, data, errors.New("it cannot be read; if the keys are right for sure, remove it and it is made anew"))
		}
	}
	if err != nil {
		return nil, "", fmt.Errorf("see whether the keys of the storage are the right ones: %w", err)
	}
	return c, version, nil
}

func (s *Sealed) writeCanary(ctx context.Context, c *canary, v Version) error {
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode %s: %w", canaryObject, err)
	}
	_, err = s.inner.PutIf(ctx, canaryObject, data, v)
	return err
}

// forgetKeys takes keys out of the canary that are not in the ring and that seal nothing any more.
func (s *Sealed) forgetKeys(ctx context.Context, inUse map[string]int) error {
	for range 10 {
		c, version, err := s.readCanary(ctx)
		if err != nil {
			return err
		}
		before := len(c.Keys)
		maps.DeleteFunc(c.Keys, func(id string, _ []byte) bool { return s.keys[id] == nil && inUse[id] == 0 })
		if len(c.Keys) == before {
			return nil
		}
		if err := s.writeCanary(ctx, c, version); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("write %s: %w", canaryObject, ErrConflict)
}

func (c *canary) ids() string { return strings.Join(slices.Sorted(maps.Keys(c.Keys)), ", ") }
