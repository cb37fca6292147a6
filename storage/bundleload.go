package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"
)

// LoadBundle gets a bundle and copes with damage, in this order:
//
//   - An object that Get refuses, but in which chain and key are whole by their own checksum, is stored again from these two and
//     returned: damage elsewhere never disables a good pair.
//   - Any other damaged object is put into quarantine, and the name looked at again.
//
// So the error wraps ErrNotExist when the certificate is positively absent, be it only now; an outage is never reported so.
func LoadBundle(ctx context.Context, s Store, name string, log *zap.Logger) (*Bundle, Version, error) {
	var corrupt *CorruptError
	for range 3 { // somebody else may be mending it too
		data, version, err := s.Get(ctx, name)
		if err == nil {
			var b *Bundle
			if b, err = DecodeBundle(name, data); err == nil {
				return b, version, nil
			}
		}
		if !errors.As(err, &corrupt) {
			return nil, "", err
		}
		if b, version, err := mendBundle(ctx, s, name, corrupt, log); err == nil {
			return b, version, nil
		}
		if err := Quarantine(ctx, s, name, corrupt, log); err != nil {
			return nil, "", err
		}
	}
	return nil, "", corrupt
}

// mendBundle stores again the pair of a damaged object, if it is good.
func mendBundle(ctx context.Context, s Store, name string, cause error, log *zap.Logger) (*Bundle, Version, error) {
	salvager, ok := s.(Salvager)
	if !ok {
		return nil, "", cause
	}
	data, version, err := salvager.Salvage(ctx, name)
	if err != nil {
		return nil, "", err
	}
	pair := wholePair(data)
	if pair == nil || !meantBy(cause, data, version) {
		return nil, "", cause
	}
	b, err := DecodeBundle(name, pair)
	if err != nil {
		return nil, "", err
	}
	b.Lost = cause
	data, err = b.Encode()
	if err != nil {
		return nil, "", err
	}
	mended, err := s.PutIf(ctx, name, data, version)
	if errors.Is(err, ErrConflict) {
		return nil, "", fmt.Errorf("mend %s: %w", name, err)
	}
	if err != nil { // the pair serves all the same
		log.Error("damaged object could not be stored again", zap.String("object", name), zap.Error(err))
		return b, version, nil
	}
	log.Error("damaged object mended from its chain and key, what else it said is lost", zap.String("object", name), zap.Error(cause))
	return b, mended, nil
}

// wholePair cuts chain and key out of an object, without what is around them; nil if they are not what was written.
func wholePair(data []byte) []byte {
	begin, end := bytes.Index(data, []byte("-----BEGIN")), bytes.LastIndex(data, []byte(pairSumPrefix))
	if begin < 0 || end < begin || string(data[end:]) != pairSum(data[begin:end]) {
		return nil
	}
	return data[begin:end]
}
