package storage

import (
	"context"
	"fmt"
	"time"
)

// swapAttempts is how often a conditional write is sent while the answers leave open whether it was applied.
const swapAttempts = 3

// swap writes a file whose nonce is new, if the condition holds, and returns its ETag, ErrConflict, or an error that leaves the outcome open.
//
// An answer that leaves it open (5xx, none) is followed by a look at what lies there: our nonce, and it was applied; what was there before, and it is sent
// again, which applies it at most once, since its first application ends the condition; anything else is a conflict. (Were we applied and then overwritten by somebody who read our
// bytes, the caller who hears of a conflict sees what they made of it.)
func (sp *s3Space) swap(ctx context.Context, name string, file []byte, nonce string, cond s3Condition) (etag string, err error) {
	ctx, cancel := sp.s.bound(ctx)
	defer cancel()
	wasOpen := false // whether an attempt of ours may have been applied without our knowing
	for attempt := range swapAttempts {
		if attempt > 0 {
			if err := sleep(ctx, jitter(time.Duration(attempt)*75*time.Millisecond)); err != nil {
				return "", err
			}
		}
		etag, err = sp.attempt(ctx, sp.prefix+name, file, cond)
		switch {
		case err == nil:
			return etag, nil
		case refusedByStore(err) && !wasOpen && !cond.absent:
			return "", ErrConflict
		case !refusedByStore(err) && !outcomeUnknown(err):
			return "", err
		}
		wasOpen = wasOpen || outcomeUnknown(err)
		is, lookErr := sp.look(ctx, name, "")
		switch {
		case lookErr != nil:
			return "", fmt.Errorf("it is unknown whether it was written: %w; look at it again: %w", err, lookErr)
		case is.nonce == nonce:
			return is.etag, nil
		case cond.absent && is.gone: // nothing yet, or a tombstone to write upon
			cond = s3Condition{absent: is.etag == "", match: is.etag}
		case refusedByStore(err) || is.etag != cond.match:
			return "", ErrConflict
		}
	}
	return "", fmt.Errorf("it is unknown whether it was written: %w", err)
}

// attempt sends a PUT once and waits half of the time that is left at most, so that what became of it can be seen.
func (sp *s3Space) attempt(ctx context.Context, key string, file []byte, cond s3Condition) (string, error) {
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/2)
		defer cancel()
	}
	return sp.s.putKey(ctx, key, file, cond)
}
