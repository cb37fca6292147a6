package storage

import (
	"context"
	"errors"
	"fmt"
)

// Get implements Store. It is one GET, sent up to three times.
func (s *S3) Get(ctx context.Context, name string) ([]byte, Version, error) {
	var data []byte
	var v Version
	err := s.call(ctx, name, nil, func(ctx context.Context) (err error) {
		data, v, err = s.objects.get(ctx, name, "")
		return err
	})
	if corrupt, ok := errors.AsType[*CorruptError](err); ok {
		return nil, "", corrupt
	}
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", name, err)
	}
	return data, v, nil
}

// Salvage implements Salvager: of a damaged object it returns all that lies in the bucket, header included, up to the size of an object.
func (s *S3) Salvage(ctx context.Context, name string) ([]byte, Version, error) {
	var o *foundObject
	err := s.call(ctx, name, nil, func(ctx context.Context) (err error) {
		o, err = s.objects.read(ctx, name, "")
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("salvage %s: %w", name, err)
	}
	if o.damage != nil {
		return o.file, o.version, nil
	}
	return o.data, o.version, nil
}

// Put implements Store.
func (s *S3) Put(ctx context.Context, name string, data []byte) (v Version, err error) {
	err = s.call(ctx, name, data, func(ctx context.Context) error {
		unlock, err := s.lockHost(ctx, name)
		if err != nil {
			return err
		}
		defer unlock()
		v, err = s.objects.put(ctx, name, data)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return v, nil
}

// PutIf implements Store.
func (s *S3) PutIf(ctx context.Context, name string, data []byte, want Version) (v Version, err error) {
	err = s.call(ctx, name, data, func(ctx context.Context) (err error) {
		if s.singleNode() {
			return s.onHost(ctx, name, want, func(ctx context.Context) (err error) {
				v, err = s.objects.put(ctx, name, data)
				return err
			})
		}
		if err := s.ready(ctx); err != nil {
			return err
		}
		v, err = s.objects.putIf(ctx, name, data, want)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return v, nil
}

// Delete implements Store.
func (s *S3) Delete(ctx context.Context, name string) error {
	err := s.call(ctx, name, nil, func(ctx context.Context) error {
		unlock, err := s.lockHost(ctx, name)
		if err != nil {
			return err
		}
		defer unlock()
		return s.remove(ctx, name)
	})
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

func (s *S3) remove(ctx context.Context, name string) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	return s.deleteKey(ctx, s.objects.prefix+name, "")
}

// DeleteIf implements Salvager. It leaves a tombstone, which SweepTombstones may remove.
func (s *S3) DeleteIf(ctx context.Context, name string, v Version) error {
	err := s.call(ctx, name, nil, func(ctx context.Context) error {
		switch {
		case v == "":
			return ErrConflict
		case s.singleNode():
			return s.onHost(ctx, name, v, func(ctx context.Context) error { return s.remove(ctx, name) })
		}
		if err := s.ready(ctx); err != nil {
			return err
		}
		return s.objects.bury(ctx, name, v)
	})
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// call does one call between open and close. data is nil unless it is a write.
func (s *S3) call(ctx context.Context, name string, data []byte, do func(context.Context) error) error {
	if err := checkWrite(ctx, name, data); err != nil {
		return err
	}
	ctx, end, err := s.calls.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return do(ctx)
}

// lockHost lets nobody else on this host write the object, in single-node mode; otherwise the store sees to it.
func (s *S3) lockHost(ctx context.Context, name string) (unlock func(), err error) {
	if !s.singleNode() {
		return func() {}, nil
	}
	return s.host.lockObject(ctx, name)
}

// onHost is compare-and-swap for single-node: the host's lock stands for the store's condition.
func (s *S3) onHost(ctx context.Context, name string, want Version, write func(context.Context) error) error {
	unlock, err := s.host.lockObject(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	var is Version
	o, err := s.objects.read(ctx, name, "")
	switch {
	case err == nil:
		is = o.version
	case !errors.Is(err, ErrNotExist):
		return err
	}
	if is != want {
		return ErrConflict
	}
	return write(ctx)
}
