package storage

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"
)

// quarantinePrefix is put before the name of a damaged object. One damaged copy is kept for each name, the latest.
const quarantinePrefix = "quarantine/"

// Quarantine takes a damaged object out of the way: its bytes are kept as "quarantine/NAME" for a person to look at, the object is
// removed, and one line is logged. Then it is positively absent and can be made anew. It returns nil too when the object is gone or has been
// rewritten in the meantime; so callers read it again.
//
// cause is the CorruptError of Get or DecodeBundle. What is removed is exactly the version whose bytes were found damaged:
// an object that another process has just made good is never touched.
func Quarantine(ctx context.Context, s Store, name string, cause error, log *zap.Logger) error {
	salvager, ok := s.(Salvager)
	if !ok {
		return fmt.Errorf("quarantine %s: %T is no storage.Salvager: %w", name, s, errors.ErrUnsupported)
	}
	data, version, err := salvager.Salvage(ctx, name)
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("quarantine %s: %w", name, err)
	}
	if !meantBy(cause, data, version) {
		return nil // rewritten by somebody else
	}
	if !strings.HasPrefix(name, quarantinePrefix) { // a damaged copy is worth no copy of its own
		if _, err := s.Put(ctx, quarantinePrefix+name, data); err != nil {
			return fmt.Errorf("quarantine %s: keep the damaged bytes: %w", name, err)
		}
	}
	err = salvager.DeleteIf(ctx, name, version)
	if errors.Is(err, ErrConflict) {
		return nil // rewritten, or taken away, by somebody else
	}
	if err != nil {
		return fmt.Errorf("quarantine %s: %w", name, err)
	}
	log.Error("damaged object put into quarantine", zap.String("object", name), zap.String("kept_as", quarantinePrefix+name), zap.Error(cause))
	return nil
}

// meantBy reports whether this is what was found damaged.
func meantBy(cause error, data []byte, v Version) bool {
	corrupt, ok := errors.AsType[*CorruptError](cause)
	switch {
	case !ok:
		return true
	case corrupt.Version != "" && corrupt.Version != v:
		return false
	}
	return corrupt.Sum == [sha256.Size]byte{} || corrupt.Sum == sha256.Sum256(data)
}
