package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"go.uber.org/zap"
)

// SweepTombstones removes what leases and DeleteIf have left behind and nobody has used for so long (30 days, say), and returns how many objects. Call it
// rarely, under a lease of its own; it lists all leases and, if the store obeys conditions on DELETE, all objects.
//
// A lease that somebody takes in the same moment may be removed on stores that ignore those conditions. Its holder learns at the next beat that it is lost; its writes are fenced all
// the same, since fences go up with the clock. Tombstones of objects stay on such stores: they have 47 bytes, and only damaged objects have left them.
func (s *S3) SweepTombstones(ctx context.Context, idle time.Duration) (removed int, err error) {
	ctx, end, err := s.calls.begin(ctx)
	if err != nil {
		return 0, fmt.Errorf("sweep tombstones: %w", err)
	}
	defer end()
	if s.singleNode() {
		return 0, nil // leaves none
	}
	if err := s.ready(ctx); err != nil {
		return 0, fmt.Errorf("sweep tombstones: %w", err)
	}
	// The ages of other hosts' writes are compared with our clock: idle is days, clocks differ by less.
	before := time.Now().Add(-idle)
	old := func(o types.Object) bool {
		return o.LastModified != nil && o.LastModified.Before(before) && o.ETag != nil
	}
	leases := &s3Space{s: s, prefix: s.cfg.Prefix + "leases/"}
	removed, err = leases.sweep(ctx, old)
	if err == nil && s.deletesIf.Load() {
		var n int
		n, err = s.objects.sweep(ctx, func(o types.Object) bool { return old(o) && o.Size != nil && *o.Size == int64(tombstoneSize) })
		removed += n
	}
	if err != nil {
		return removed, fmt.Errorf("sweep tombstones: %w", err)
	}
	return removed, nil
}

// sweep removes what dead finds dead, if it is still what was listed.
func (sp *s3Space) sweep(ctx context.Context, dead func(types.Object) bool) (removed int, err error) {
	var fault error
	err = sp.walk(ctx, "", "", 1000, func(name string, o types.Object) bool {
		if !dead(o) {
			return true
		}
		err := sp.s.deleteListed(ctx, sp.prefix+name, unquoted(*o.ETag))
		if refusedByStore(err) {
			return true // in use again
		}
		if err != nil {
			fault = fmt.Errorf("delete %s: %w", name, err)
			return false
		}
		sp.s.log.Debug("tombstone removed", zap.String("object", name))
		removed++
		return true
	})
	if err == nil {
		err = fault
	}
	return removed, err
}

func (s *S3) deleteListed(ctx context.Context, key, etag string) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return s.deleteKey(ctx, key, etag)
}
