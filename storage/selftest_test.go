package storage_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func TestS3_SelfTestRefusesStoresThatDoNotKeepTheirPromises(t *testing.T) {
	for name, c := range map[string]struct {
		fault storagetest.S3Fault
		want  string
	}{
		"If-None-Match is ignored": {storagetest.IgnoreHeader(http.MethodPut, "If-None-Match"),
			"storage: bucket test at http://fake.example does not enforce conditional writes (PUT If-None-Match:* on an existing object returned 200); " +
				"locks would not exclude other nodes. Use AWS S3, R2, MinIO>=2025-09, Ceph or versitygw>=1.8, or, " +
				`if this is the only node that uses the bucket, set storage.s3.conditional_writes = "single-node"`},
		"If-Match is ignored": {storagetest.IgnoreHeader(http.MethodPut, "If-Match"),
			"(PUT If-Match with an old ETag returned 200)"},
		"If-Match is granted on an absent object": {onlyKey("-absent", storagetest.IgnoreHeader(http.MethodPut, "If-Match")),
			"(PUT If-Match on an absent object returned 200)"},
		"If-None-Match is not known": {ifHeader("If-None-Match", storagetest.Status(501, "NotImplemented")),
			"(PUT If-None-Match:* of a new object returned 501 NotImplemented)"},
		"If-Match is never granted": {ifHeader("If-Match", storagetest.Status(412, "PreconditionFailed")),
			"(PUT If-Match with the right ETag returned 412 PreconditionFailed)"},
		"of a race all win": {onlyKey("-race", storagetest.IgnoreHeader(http.MethodPut, "If-None-Match")), "of 8 PUT If-None-Match:* at the same time 8 returned 200"},
		"absence is not said": {ifHeader("", storagetest.Status(403, "AccessDenied")),
			"cannot be used (GET of an absent object returned 403 AccessDenied); it could not be told whether a certificate exists. Allow s3:GetObject and s3:ListBucket"},
		"no such bucket": {ifHeader("", storagetest.Status(404, "NoSuchBucket")), "returned 404 NoSuchBucket); create it, or correct storage.s3.bucket"},
		"another region": {ifHeader("", storagetest.Status(301, "PermanentRedirect")), "correct storage.s3.region"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := storagetest.NewFakeS3(t)
			fake.Set(c.fault)
			s := openS3(t, fake.Config())
			err := s.SelfTest(t.Context())
			if _, unfit := errors.AsType[*storage.UnfitError](err); !unfit || !strings.Contains(err.Error(), c.want) {
				t.Errorf("self-test: %v\nwant: %s", err, c.want)
			}
			for what, err := range map[string]error{
				"put-if": second(s.PutIf(t.Context(), "certs/a.example", nil, "")),
				"lease":  second(s.Lease(t.Context(), "issue/a.example")),
			} {
				if _, unfit := errors.AsType[*storage.UnfitError](err); !unfit {
					t.Errorf("%s on an unfit store: %v", what, err)
				}
			}
		})
	}
}

func second[T any](_ T, err error) error { return err }

// ifHeader strikes requests that have the header; empty: all.
func ifHeader(header string, fault storagetest.S3Fault) storagetest.S3Fault {
	return func(r *http.Request, serve func(*http.Request) *http.Response) (*http.Response, error) {
		if header != "" && r.Header.Get(header) == "" {
			return nil, nil
		}
		return fault(r, serve)
	}
}

// onlyKey strikes requests for keys that end so.
func onlyKey(end string, fault storagetest.S3Fault) storagetest.S3Fault {
	return func(r *http.Request, serve func(*http.Request) *http.Response) (*http.Response, error) {
		if !strings.HasSuffix(r.URL.Path, end) {
			return nil, nil
		}
		return fault(r, serve)
	}
}

func TestS3_SelfTestLearnsWhatTheStoreWants(t *testing.T) {
	for name, faults := range map[string][]storagetest.S3Fault{
		"If-Match without quotes":      {storagetest.UnquotedOnly},
		"conditional DELETE ignored":   {storagetest.IgnoreHeader(http.MethodDelete, "If-Match")},
		"losers of races answered 500": {losersHear500},
	} {
		t.Run(name, func(t *testing.T) {
			storagetest.Run(t, func(t *testing.T) storage.Store {
				fake := storagetest.NewFakeS3(t)
				fake.Set(faults...)
				return openS3(t, fake.Config())
			})
		})
	}
}

// losersHear500 is what Ceph RGW 16 does to half of them.
func losersHear500(r *http.Request, serve func(*http.Request) *http.Response) (*http.Response, error) {
	if r.Method != http.MethodPut || strings.Contains(r.URL.Path, "/selftest/") && !strings.HasSuffix(r.URL.Path, "-race") {
		return nil, nil
	}
	answer := serve(r)
	if answer.StatusCode == http.StatusPreconditionFailed && time.Now().UnixNano()%2 == 0 {
		answer.Body.Close()
		return storagetest.Status(500, "InternalError")(r, serve)
	}
	return answer, nil
}

func TestS3_OutageDuringTheSelfTestIsNoRefusalAndHeals(t *testing.T) {
	fake := storagetest.NewFakeS3(t)
	s := openS3(t, fake.Config())
	if _, err := s.Put(t.Context(), "certs/a.example", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for name, fault := range map[string]storagetest.S3Fault{"no answer": storagetest.NoAnswer(false), "503": storagetest.Status(503, "SlowDown"),
		"expired credentials": storagetest.Status(403, "ExpiredToken")} {
		fake.Set(fault)
		err := s.SelfTest(t.Context())
		if _, unfit := errors.AsType[*storage.UnfitError](err); unfit || err == nil {
			t.Errorf("%s: %v", name, err)
		}
		_, err = s.PutIf(t.Context(), "certs/b.example", nil, "")
		if err == nil || errors.Is(err, storage.ErrConflict) {
			t.Errorf("conditional write before the self-test passed: %v", err)
		}
		fake.Set()
		wantObject(t, s, "certs/a.example", "x", "") // reads need no self-test
	}
	if _, err := s.PutIf(t.Context(), "certs/b.example", []byte("y"), ""); err != nil {
		t.Errorf("when the store is back: %v", err)
	}
	before := s.Stats()
	if err := s.SelfTest(t.Context()); err != nil || s.Stats() != before {
		t.Errorf("a second self-test: %v, requests %+v", err, s.Stats())
	}
}

func TestS3_SelfTestLeavesNothingBehind(t *testing.T) {
	fake := storagetest.NewFakeS3(t)
	s := openS3(t, fake.Config())
	if err := s.SelfTest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if keys := fake.Keys(); len(keys) > 0 {
		t.Errorf("left: %q", keys)
	}
	is := s.Stats()
	if total := is.Get + is.Put + is.Delete + is.List; total > 40 || is.List > 0 {
		t.Errorf("requests: %+v", is)
	}
	t.Logf("requests: %+v", is)
}
