package storage

import (
	"context"
	"fmt"
)

// maxStored is the greatest number of bytes that a backend must keep: an object that is as large as it may be, sealed.
const maxStored = MaxObject + maxEnvelope

// checkCall is what every method checks first.
func checkCall(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ended(ctx)
	}
	return nil
}

func checkWrite(ctx context.Context, name string, data []byte) error {
	limit := MaxObject
	if isSealed(data) {
		limit = maxStored
	}
	if len(data) > limit {
		return fmt.Errorf("%d bytes are more than an object can have (%d)", len(data), MaxObject)
	}
	return checkCall(ctx, name)
}

// ended says that ctx has ended and, if somebody gave a reason, why.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == err {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}
