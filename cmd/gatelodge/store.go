package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"gatelodge/cmd/internal/config"
	"gatelodge/storage"
)

// store is the storage of a configuration, with what has to be closed after it. It is the top layer with all that this can do beside a storage.Store: without
// Salvager nothing damaged could be put aside.
type store struct {
	*storage.Sealed // also without keys: then what is sealed is told apart from what is damaged

	base   storage.Store // what is below
	bucket *storage.S3   // nil on a disk
	layers []interface{ Close() error }
	log    *zap.Logger
}

var (
	_ storage.Store       = (*store)(nil)
	_ storage.Salvager    = (*store)(nil)
	_ storage.LeaseTeller = (*store)(nil)
)

// openStore opens the disk or the bucket, the local copy in front of a bucket, and the sealing around both: what lies on any disk or in any
// bucket is sealed, what the program handles is not.
func openStore(ctx context.Context, cfg config.Storage, log *zap.Logger) (_ *store, err error) {
	s := &store{log: log}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open storage: %w", err), s.Close())
		}
	}()
	keys, err := storage.ParseKeys(keyRefs(cfg.Encryption.Keys))
	if err != nil {
		return nil, err
	}
	if err := s.openBase(ctx, cfg, log); err != nil {
		return nil, err
	}
	sealing, cancel := context.WithTimeout(ctx, patience(cfg).key)
	defer cancel()
	if s.Sealed, err = storage.NewSealed(sealing, s.base, storage.SealConfig{Keys: keys, Require: cfg.Encryption.Require}, log); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *store) openBase(ctx context.Context, cfg config.Storage, log *zap.Logger) error {
	if cfg.Kind != "s3" {
		disk, err := storage.OpenDisk(cfg.Path, log)
		if err != nil {
			return err
		}
		s.push(disk, disk)
		return nil
	}
	bucket, err := storage.OpenS3(ctx, storage.S3Config{
		Endpoint: cfg.S3.Endpoint, Region: cfg.S3.Region, Bucket: cfg.S3.Bucket, Prefix: cfg.S3.Prefix, PathStyle: cfg.S3.PathStyle,
		ConditionalWrites: cfg.S3.ConditionalWrites, LockDir: filepath.Join(cfg.Path, "locks-s3"),
	}, log)
	if err != nil {
		return err
	}
	s.bucket = bucket
	s.push(bucket, bucket)
	trial, cancel := context.WithTimeout(ctx, patience(cfg).test)
	defer cancel()
	if err := testBucket(trial, bucket, log); err != nil {
		return err
	}
	if cfg.S3.LocalCopy == "" {
		return nil
	}
	disk, err := storage.OpenDisk(cfg.S3.LocalCopy, log)
	if err != nil {
		return fmt.Errorf("local copy: %w", err)
	}
	s.layers = append(s.layers, disk)
	of := cfg.S3.Endpoint + "/" + cfg.S3.Bucket + "/" + cfg.S3.Prefix
	local := storage.NewLocalCopy(bucket, disk, storage.LocalCopyConfig{Of: of}, log)
	s.push(local, local)
	return nil
}

// waits are for how long a bucket that does not answer holds up the start: its test, and then the reading of the sealing keys' canary.
type waits struct{ test, key time.Duration }

// patience is short where a local copy can serve meanwhile. Without one a slow bucket is better than none.
func patience(cfg config.Storage) waits {
	if cfg.S3.LocalCopy != "" {
		return waits{3 * time.Second, 2 * time.Second}
	}
	return waits{10 * time.Second, 10 * time.Second}
}

// testBucket refuses a store that cannot keep nodes apart. One that does not answer is no reason to stay away: what is in the local copy is served,
// and the bucket tests itself before the first write.
func testBucket(ctx context.Context, bucket *storage.S3, log *zap.Logger) error {
	err := bucket.SelfTest(ctx)
	if unfit := (*storage.UnfitError)(nil); errors.As(err, &unfit) {
		return err
	}
	if err != nil {
		log.Warn("the bucket does not answer; names in the local copy are served, nothing is ordered", zap.Error(err))
	}
	return nil
}

func (s *store) push(top storage.Store, c interface{ Close() error }) {
	s.base, s.layers = top, append(s.layers, c)
}

// Close closes the layers, the last opened first.
func (s *store) Close() error {
	var errs []error
	for i := len(s.layers) - 1; i >= 0; i-- {
		errs = append(errs, s.layers[i].Close())
	}
	return errors.Join(errs...)
}

func keyRefs(keys []config.SealingKey) []string {
	var refs []string
	for _, k := range keys {
		refs = append(refs, k.String())
	}
	return refs
}
