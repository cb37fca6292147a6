package certs

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"gatelodge/storage"
)

// wipe removes what is stored of the key. If others know it, that is every place where it may be; the record that it is blocked stays.
func (w *withdrawal) wipe(ctx context.Context, revoked bool) error {
	if w.r.Reason == ReasonKeyCompromise {
		pending := pendingObject(w.r.Name)
		for _, object := range []string{pending, "quarantine/" + pending, "quarantine/" + certObject(w.r.Name)} {
			if err := w.wipeObject(ctx, object); err != nil {
				return err
			}
		}
	}
	if err := w.store.Delete(ctx, revokingObject(w.r.leaf)); err != nil {
		return fmt.Errorf("remove the key: %w", err)
	}
	if w.r.Reason != ReasonKeyCompromise || !revoked {
		return nil
	}
	return w.block(ctx, &w.r, time.Now().UTC().Truncate(time.Second))
}

// wipeObject removes the object if it has the key in it, or may have: if it is damaged.
func (w *withdrawal) wipeObject(ctx context.Context, object string) error {
	data, _, err := w.store.Get(ctx, object)
	if errors.Is(err, storage.ErrNotExist) || w.old == nil {
		return nil
	}
	damaged := false
	if err != nil {
		if _, damaged = errors.AsType[*storage.CorruptError](err); !damaged {
			return fmt.Errorf("look for the key in %s: %w", object, err)
		}
	}
	if !damaged && !holdsKey(data, w.old.Key) {
		return nil
	}
	if err := w.store.Delete(ctx, object); err != nil {
		return fmt.Errorf("remove the key: %w", err)
	}
	return nil
}

// holdsKey reports whether the key is in the bytes, as PEM or JSON have it.
func holdsKey(data, key []byte) bool {
	return bytes.Contains(data, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})) ||
		bytes.Contains(data, []byte(base64.StdEncoding.EncodeToString(key)))
}
