package acmeclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"gatelodge/storage"
)

// Forgive forgets what the CA refused for these names until later: a person knows that the reason is gone, such as a pause that was lifted. So it does, and without names nothing
// else, for what was wrong with the CA as a whole: it was out of order, or wanted a person to act. Limits of a domain, an account or an address stay: they do not go because
// somebody wishes so.
func (c *Client) Forgive(ctx context.Context, names []string) error {
	if err := c.open(); err != nil {
		return err
	}
	c.limits.forgive(ScopeCA)
	if len(names) == 0 {
		return nil
	}
	return c.limits.forgiveNames(ctx, slices.Sorted(slices.Values(names)))
}

// forgiveNames forgets the limits of scope name that cover the sorted names, here and in the store. Other nodes that have read them already keep to them.
func (b *limitBook) forgiveNames(ctx context.Context, names []string) error {
	forgiven := func(l Limit) bool { return l.Scope == ScopeName && l.covers(names) }
	b.mu.Lock()
	b.limits = slices.DeleteFunc(b.limits, forgiven)
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	var err error
	for range 5 { // other nodes write, too
		limits, version, readErr := b.read(ctx)
		if readErr != nil {
			return fmt.Errorf("read the CA's limits: %w", readErr)
		}
		left := slices.DeleteFunc(slices.Clone(limits), forgiven)
		if len(left) == len(limits) {
			return nil
		}
		data, encodeErr := json.Marshal(left)
		if encodeErr != nil {
			return encodeErr
		}
		if _, err = b.store.PutIf(ctx, b.name(), data, version); !errors.Is(err, storage.ErrConflict) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("store the CA's limits: %w", err)
	}
	return nil
}
