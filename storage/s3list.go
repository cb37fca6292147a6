package storage

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// List implements Store. Objects that DeleteIf has removed are not listed.
func (s *S3) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	names, err := s.list(ctx, prefix, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return names, nil
}

func (s *S3) list(ctx context.Context, prefix, after string, limit int) (names []string, err error) {
	if ctx.Err() != nil {
		return nil, ended(ctx)
	}
	if limit <= 0 {
		limit = 1000
	}
	if !canBegin(prefix) {
		return nil, nil
	}
	ctx, end, err := s.calls.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	err = s.objects.walk(ctx, prefix, after, limit, func(name string, o types.Object) bool {
		if size := o.Size; CheckName(name) == nil && (size == nil || *size != int64(tombstoneSize)) {
			names = append(names, name)
		}
		return len(names) < limit
	})
	return names, err
}

// walk shows each key of the space that begins with prefix and comes after, in order, until show returns false. A page asks for as many as are wanted.
func (sp *s3Space) walk(ctx context.Context, prefix, after string, wanted int, show func(name string, o types.Object) bool) error {
	for {
		page, more, err := sp.page(ctx, prefix, after, wanted)
		if err != nil {
			return err
		}
		for _, o := range page {
			name := strings.TrimPrefix(*o.Key, sp.prefix)
			if name <= after {
				return fmt.Errorf("the store does not list in byte order: %q after %q", name, after)
			}
			after = name
			if !show(name, o) {
				return nil
			}
		}
		if !more || len(page) == 0 {
			return nil
		}
	}
}

// page is one LIST, with a deadline of its own.
func (sp *s3Space) page(ctx context.Context, prefix, after string, wanted int) (_ []types.Object, more bool, _ error) {
	ctx, cancel := sp.s.bound(ctx)
	defer cancel()
	in := &s3.ListObjectsV2Input{Bucket: &sp.s.cfg.Bucket, Prefix: new(sp.prefix + prefix), MaxKeys: new(int32(min(wanted, 1000)))}
	if after != "" {
		in.StartAfter = new(sp.prefix + after)
	}
	out, err := sp.s.client.ListObjectsV2(ctx, in)
	if err != nil {
		return nil, false, s3Error(ctx, err)
	}
	var page []types.Object
	for _, o := range out.Contents {
		if o.Key != nil && strings.HasPrefix(*o.Key, sp.prefix+prefix) {
			page = append(page, o)
		}
	}
	return page, out.IsTruncated != nil && *out.IsTruncated, nil
}

// canBegin reports whether any name begins so.
func canBegin(prefix string) bool {
	return prefix == "" || CheckName(prefix) == nil || strings.HasSuffix(prefix, "/") && CheckName(prefix[:len(prefix)-1]) == nil
}
