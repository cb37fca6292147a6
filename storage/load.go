package storage

import (
	"context"
	"encoding/json"
	"errors"

	"go.uber.org/zap"
)

// Load gets an object that can be made anew, and decodes it. One that is damaged, by what Get or decode says, is put into quarantine; then the name is looked at
// again. So the error wraps ErrNotExist when there is nothing good, be it only now; an outage is never reported so.
func Load[T any](ctx context.Context, s Store, name string, decode func(data []byte) (T, error), log *zap.Logger) (T, Version, error) {
	var none T
	var corrupt *CorruptError
	for range 3 { // somebody else may be writing it too
		data, version, err := s.Get(ctx, name)
		if err == nil {
			v, bad := decode(data)
			if bad == nil {
				return v, version, nil
			}
			err = NewCorruptError(name, data, bad)
		}
		if !errors.As(err, &corrupt) {
			return none, "", err
		}
		if err := Quarantine(ctx, s, name, corrupt, log); err != nil {
			return none, "", err
		}
	}
	return none, "", corrupt
}

// LoadJSON is Load for an object in JSON. Fields that T has not are passed over.
func LoadJSON[T any](ctx context.Context, s Store, name string, log *zap.Logger) (T, Version, error) {
	return Load(ctx, s, name, func(data []byte) (v T, err error) {
		err = json.Unmarshal(data, &v)
		return v, err
	}, log)
}
