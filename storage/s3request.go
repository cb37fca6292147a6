package storage

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// errUnchanged is returned by a read for an object that is still at the version the caller knows.
var errUnchanged = errors.New("storage: the object is unchanged")

// An s3Condition is what must hold for a PUT. The zero value is no condition.
type s3Condition struct {
	absent bool   // If-None-Match: *
	match  string // If-Match, an ETag without its quotes
}

// getKey reads an object, at most a byte more than there may be. known is an ETag whose bytes need not be sent again (errUnchanged), or empty. An answer that
// breaks off is asked for again: the SDK repeats only what has no answer.
func (s *S3) getKey(ctx context.Context, key, known string) (file []byte, etag string, err error) {
	for range getAttempts {
		if file, etag, err = s.getKeyOnce(ctx, key, known); !errors.Is(err, errBrokenOff) || ctx.Err() != nil {
			break
		}
	}
	return file, etag, err
}

// getAttempts is how often an answer that breaks off is asked for, errBrokenOff what says that it did.
const getAttempts = 3

var errBrokenOff = errors.New("the answer broke off")

func (s *S3) getKeyOnce(ctx context.Context, key, known string) (file []byte, etag string, err error) {
	in := &s3.GetObjectInput{Bucket: &s.cfg.Bucket, Key: &key}
	if known != "" {
		in.IfNoneMatch = new(quoted(known))
	}
	out, err := s.client.GetObject(ctx, in)
	if status, code := s3Status(err); status == http.StatusNotModified {
		return nil, known, errUnchanged
	} else if status == http.StatusNotFound && code == "NoSuchKey" { // any other 404 is of the bucket, or of somebody in between
		return nil, "", ErrNotExist
	}
	if err != nil {
		return nil, "", s3Error(ctx, err)
	}
	defer out.Body.Close()
	file, err = io.ReadAll(io.LimitReader(out.Body, int64(maxStored+maxHeader+1)))
	if err != nil {
		return nil, "", s3Error(ctx, fmt.Errorf("%w: %w", errBrokenOff, err))
	}
	if out.ETag == nil {
		return nil, "", errors.New("the answer has no ETag")
	}
	return file, unquoted(*out.ETag), nil
}

// putKey writes an object. A conditional write is sent once.
func (s *S3) putKey(ctx context.Context, key string, file []byte, cond s3Condition) (etag string, err error) {
	in := &s3.PutObjectInput{Bucket: &s.cfg.Bucket, Key: &key, Body: bytes.NewReader(file), ContentType: new("application/octet-stream")}
	client := s.client
	switch {
	case cond.absent:
		client, in.IfNoneMatch = s.once, new("*")
	case cond.match != "":
		client, in.IfMatch = s.once, new(s.ifMatch(cond.match))
	}
	out, err := client.PutObject(ctx, in)
	if err != nil {
		return "", s3Error(ctx, err)
	}
	if out.ETag == nil {
		return "", errors.New("the answer has no ETag")
	}
	return unquoted(*out.ETag), nil
}

// deleteKey removes an object. match may be empty; with it, some stores remove the object all the same.
func (s *S3) deleteKey(ctx context.Context, key, match string) error {
	in := &s3.DeleteObjectInput{Bucket: &s.cfg.Bucket, Key: &key}
	if match != "" {
		in.IfMatch = new(s.ifMatch(match))
	}
	_, err := s.client.DeleteObject(ctx, in)
	if _, code := s3Status(err); err == nil || code == "NoSuchKey" {
		return nil
	}
	return s3Error(ctx, err)
}

func (s *S3) ifMatch(etag string) string {
	if s.unquoted.Load() {
		return etag
	}
	return quoted(etag)
}

func quoted(etag string) string   { return `"` + etag + `"` }
func unquoted(etag string) string { return strings.Trim(etag, `"`) }

// s3Status is the HTTP status and the code of the answer that err is about; zero if there was no answer.
func s3Status(err error) (status int, code string) {
	if answer, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		status = answer.HTTPStatusCode()
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		code = api.ErrorCode()
	}
	return status, code
}

// s3Error says in short what the store answered, or else why there is no answer.
func s3Error(ctx context.Context, err error) error {
	status, code := s3Status(err)
	switch {
	case status >= 300:
		return &answerError{status: status, code: code, err: err}
	case ctx.Err() != nil:
		return fmt.Errorf("%w (%w)", ended(ctx), err)
	}
	if unsent, ok := errors.AsType[*url.Error](err); ok { // what surrounds it is the SDK's tale of attempts
		return fmt.Errorf("no answer from the store: %w", unsent.Err)
	}
	return err
}

// An answerError is an answer of the store that is none of success. What it wraps says the same at length.
type answerError struct {
	status int
	code   string
	err    error
}

func (e *answerError) Unwrap() error { return e.err }

func (e *answerError) Error() string {
	request := ""
	if answer, ok := errors.AsType[interface {
		error
		ServiceRequestID() string
	}](e.err); ok && answer.ServiceRequestID() != "" {
		request = " (request " + answer.ServiceRequestID() + ")"
	}
	return fmt.Sprintf("the store answered %d %s%s", e.status, cmp.Or(e.code, http.StatusText(e.status)), request)
}

// refusedByStore reports whether the error of a conditional PUT says that its condition does not hold: 412, 409 (AWS: a concurrent write is
// under way) and, for If-Match, 404.
func refusedByStore(err error) bool {
	switch status, code := s3Status(err); status {
	case http.StatusPreconditionFailed:
		return true
	case http.StatusConflict:
		return code != "ExistingObjectIsDirectory" && code != "ObjectParentIsFile" // versitygw: it cannot have a and a/b
	case http.StatusNotFound:
		return code == "NoSuchKey"
	}
	return false
}

// outcomeUnknown reports whether a PUT with that error may have been applied, or be yet.
func outcomeUnknown(err error) bool {
	status, _ := s3Status(err)
	return status == 0 || status >= 500 || status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status < 300
}
