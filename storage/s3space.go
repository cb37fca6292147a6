package storage

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// s3Space is a part of the bucket: the keys that begin with prefix. What follows in a key is the object's name.
type s3Space struct {
	s      *S3
	prefix string
}

// s3Found is what lies at a key.
type s3Found struct {
	etag  string // empty: nothing
	nonce string // of the write; empty if it cannot be read
	gone  bool   // nothing, or a tombstone
	file  []byte
}

// A tombstone stands for an object that was removed by compare-and-swap. All have the same length, shorter than any object, so that a listing tells them.
const (
	tombstoneIntro = "gatelodge tombstone 1 "
	tombstoneSize  = len(tombstoneIntro) + nonceLength + 1
)

func newTombstone() (file []byte, nonce string) {
	var random [nonceLength / 2]byte
	rand.Read(random[:])
	nonce = hex.EncodeToString(random[:])
	return []byte(tombstoneIntro + nonce + "\n"), nonce
}

// tombstoneNonce takes a tombstone apart.
func tombstoneNonce(file []byte) (nonce string, ok bool) {
	rest, begins := strings.CutPrefix(string(file[:min(len(file), tombstoneSize)]), tombstoneIntro)
	nonce, ends := strings.CutSuffix(rest, "\n")
	return nonce, begins && ends && len(file) == tombstoneSize && isHex(nonce, nonceLength)
}

// look reads what lies at a key. unless is an ETag that the caller knows (errUnchanged), or empty. Absence is no error.
func (sp *s3Space) look(ctx context.Context, name, unless string) (s3Found, error) {
	file, etag, err := sp.s.getKey(ctx, sp.prefix+name, unless)
	if errors.Is(err, ErrNotExist) {
		return s3Found{gone: true}, nil
	}
	if err != nil {
		return s3Found{}, err
	}
	if nonce, ok := tombstoneNonce(file); ok {
		return s3Found{etag: etag, nonce: nonce, gone: true}, nil
	}
	h, _, _ := parseObject(file[:min(len(file), maxHeader)]) // the header alone, whatever the checksum
	return s3Found{etag: etag, nonce: string(h.version), file: file}, nil
}

// read returns the object, damaged or not. unless is a Version the caller knows, or empty.
func (sp *s3Space) read(ctx context.Context, name string, unless Version) (*foundObject, error) {
	ctx, cancel := sp.s.bound(ctx)
	defer cancel()
	known, _ := etagOf(unless)
	found, err := sp.look(ctx, name, known)
	if err != nil {
		return nil, err
	}
	if found.gone {
		return nil, ErrNotExist
	}
	o := judge(name, found.file)
	if o.damage != nil { // it may have been damaged on its way here
		if again, err := sp.look(ctx, name, ""); err == nil && !again.gone {
			found, o = again, judge(name, again.file)
		}
	}
	o.version = versionOf(found.etag, string(o.version))
	return o, nil
}

// get is read for those who have no use for damage.
func (sp *s3Space) get(ctx context.Context, name string, unless Version) ([]byte, Version, error) {
	o, err := sp.read(ctx, name, unless)
	if err != nil {
		return nil, "", err
	}
	if o.damage != nil {
		corrupt := NewCorruptError(name, o.file, o.damage)
		corrupt.Version = o.version
		return nil, "", corrupt
	}
	return o.data, o.version, nil
}

// A Version is an ETag without its quotes, a slash, and the nonce of the write (or what stands for it in a damaged object).
func versionOf(etag, nonce string) Version { return Version(etag + "/" + nonce) }

func etagOf(v Version) (etag string, ok bool) {
	i := strings.LastIndexByte(string(v), '/')
	if i <= 0 {
		return "", false
	}
	return string(v[:i]), true
}

// putIf writes the object at version v; empty: it must be absent.
func (sp *s3Space) putIf(ctx context.Context, name string, data []byte, v Version) (Version, error) {
	h := newHeader(name, data)
	cond := s3Condition{absent: true}
	if v != "" {
		etag, ok := etagOf(v)
		if !ok {
			return "", ErrConflict // no object of this store can be there
		}
		cond = s3Condition{match: etag}
	}
	etag, err := sp.swap(ctx, name, append([]byte(h.String()), data...), string(h.version), cond)
	if err != nil {
		return "", err
	}
	return versionOf(etag, string(h.version)), nil
}

// put writes the object whatever was there.
func (sp *s3Space) put(ctx context.Context, name string, data []byte) (Version, error) {
	ctx, cancel := sp.s.bound(ctx)
	defer cancel()
	h := newHeader(name, data)
	etag, err := sp.s.putKey(ctx, sp.prefix+name, append([]byte(h.String()), data...), s3Condition{})
	if err != nil {
		return "", err
	}
	return versionOf(etag, string(h.version)), nil
}

// bury puts a tombstone in the place of version v.
func (sp *s3Space) bury(ctx context.Context, name string, v Version) error {
	etag, ok := etagOf(v)
	if !ok {
		return ErrConflict
	}
	file, nonce := newTombstone()
	_, err := sp.swap(ctx, name, file, nonce, s3Condition{match: etag})
	return err
}

// bound gives a call its deadline.
func (s *S3) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, s.cfg.Timeout, fmt.Errorf("no answer from bucket %s within %v", s.where, s.cfg.Timeout))
}
