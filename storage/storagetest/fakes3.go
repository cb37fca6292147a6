package storagetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"gatelodge/storage"
)

// A FakeS3 is an object store in memory, reached without a network: it is the transport of S3Config. It leaves out authentication and, with a
// fault set, what the fault says.
type FakeS3 struct {
	t       testing.TB
	backend gofakes3.Backend
	server  http.Handler

	mu     sync.Mutex // guards faults
	faults []S3Fault
}

// An S3Fault decides what becomes of a request. Serve hands the request to the store. A nil answer and error pass it on to the next fault.
type S3Fault func(r *http.Request, serve func(*http.Request) *http.Response) (*http.Response, error)

// NewFakeS3 returns a store with the empty bucket "test", and makes the environment that of a client with credentials.
func NewFakeS3(t testing.TB) *FakeS3 {
	t.Helper()
	SetS3Env(t, "key", "secret")
	backend := s3mem.New()
	if err := backend.CreateBucket("test"); err != nil {
		t.Fatal(err)
	}
	return &FakeS3{t: t, backend: backend, server: gofakes3.New(backend).Server()}
}

// SetS3Env makes the environment that of a client with these credentials, whatever it was before.
func SetS3Env(t testing.TB, key, secret string) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": "", "AWS_REGION": "us-east-1", "AWS_PROFILE": "", "AWS_CA_BUNDLE": "",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_S3": "",
	} {
		t.Setenv(name, value)
	}
}

// Config is for OpenS3. Its leases are quick.
func (f *FakeS3) Config() storage.S3Config {
	return storage.S3Config{Endpoint: "http://fake.example", Bucket: "test", Prefix: "some/prefix", Lease: QuickLeases(), Transport: f}
}

// Set replaces the faults. The first one that answers decides.
func (f *FakeS3) Set(faults ...S3Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = faults
}

// RoundTrip implements http.RoundTripper.
func (f *FakeS3) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	faults := f.faults
	f.mu.Unlock()
	for _, fault := range faults {
		if answer, err := fault(r, f.serve); answer != nil || err != nil {
			return answer, err
		}
	}
	return f.serve(r), nil
}

func (f *FakeS3) serve(r *http.Request) *http.Response {
	r = r.Clone(context.WithoutCancel(r.Context())) // a server goes on after its client has gone
	if r.Body == nil {
		r.Body = http.NoBody
	}
	r.RequestURI = r.URL.RequestURI()
	r.Header.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10)) // as it arrives
	w := httptest.NewRecorder()
	f.server.ServeHTTP(w, r)
	answer := w.Result()
	answer.Request = r
	return answer
}

// ErrNoAnswer is what AfterApplying leaves a client with.
var ErrNoAnswer = errors.New("storagetest: the connection broke before the answer")

// OnlyPut makes a fault strike only writes of keys that contain part, the n first times; zero is always.
func OnlyPut(part string, n int, fault S3Fault) S3Fault {
	var mu sync.Mutex
	struck := 0
	return func(r *http.Request, serve func(*http.Request) *http.Response) (*http.Response, error) {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, part) {
			return nil, nil
		}
		mu.Lock()
		struck++
		strikes := n == 0 || struck <= n
		mu.Unlock()
		if !strikes {
			return nil, nil
		}
		return fault(r, serve)
	}
}

// Status answers with a status and a code of S3, without applying the request.
func Status(status int, code string) S3Fault {
	return func(r *http.Request, _ func(*http.Request) *http.Response) (*http.Response, error) {
		return answerXML(r, status, code), nil
	}
}

// StatusAfterApplying applies the request and answers with a status of failure.
func StatusAfterApplying(status int, code string) S3Fault {
	return func(r *http.Request, serve func(*http.Request) *http.Response) (*http.Response, error) {
		serve(r).Body.Close()
		return answerXML(r, status, code), nil
	}
}

// NoAnswer breaks the connection; with apply, after applying the request.
func NoAnswer(apply bool) S3Fault {
	return func(r *http.Request, serve func(*http.Request) *http.Response) (*http.Response, error) {
		if apply {
			serve(r).Body.Close()
		}
		return nil, ErrNoAnswer
	}
}

// Hang answers never; with apply, it applies the request first.
func Hang(apply bool) S3Fault {
	return func(r *http.Request, serve func(*http.Request) *http.Response) (*http.Response, error) {
		if apply {
			serve(r).Body.Close()
		}
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
}

// IgnoreHeader makes the store one that does not know a header of requests with that method.
func IgnoreHeader(method, header string) S3Fault {
	return func(r *http.Request, serve func(*http.Request) *http.Response) (*http.Response, error) {
		if r.Method != method || r.Header.Get(header) == "" {
			return nil, nil
		}
		r = r.Clone(r.Context())
		r.Header.Del(header)
		return serve(r), nil
	}
}

// UnquotedOnly refuses If-Match with quotes, as Ceph RGW 16 does.
func UnquotedOnly(r *http.Request, serve func(*http.Request) *http.Response) (*http.Response, error) {
	match := r.Header.Get("If-Match")
	if !strings.HasPrefix(match, `"`) {
		return nil, nil
	}
	return answerXML(r, http.StatusPreconditionFailed, "PreconditionFailed"), nil
}

func answerXML(r *http.Request, status int, code string) *http.Response {
	return Answer(r, status, "application/xml", `<?xml version="1.0" encoding="UTF-8"?><Error><Code>`+code+`</Code><Message>injected</Message></Error>`)
}

// Answer is an answer of somebody else than the store.
func Answer(r *http.Request, status int, contentType, body string) *http.Response {
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: r}
}

// Tamper changes an object behind everybody's back.
func (f *FakeS3) Tamper(key string, change func([]byte) []byte) {
	f.t.Helper()
	object, err := f.backend.GetObject("test", key, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	file, err := io.ReadAll(object.Contents)
	if err != nil {
		f.t.Fatal(err)
	}
	file = change(file)
	if _, err := f.backend.PutObject("test", key, map[string]string{}, bytes.NewReader(file), int64(len(file)), nil); err != nil {
		f.t.Fatal(err)
	}
}

// Keys returns the keys of all objects, in order.
func (f *FakeS3) Keys() (keys []string) {
	f.t.Helper()
	list, err := f.backend.ListBucket("test", nil, gofakes3.ListBucketPage{})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, o := range list.Contents {
		keys = append(keys, o.Key)
	}
	return keys
}
