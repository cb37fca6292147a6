package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"go.uber.org/zap/zaptest"

	"gatelodge/cmd/internal/config"
	"gatelodge/storage/storagetest"
)

// slowBucket is an object store in memory whose answers for some keys come late.
type slowBucket struct {
	url  string
	late chan func(path string) time.Duration // holds one element
}

func newSlowBucket(t *testing.T) *slowBucket {
	t.Helper()
	storagetest.SetS3Env(t, "key", "secret")
	backend := s3mem.New()
	if err := backend.CreateBucket("certs"); err != nil {
		t.Fatal(err)
	}
	b := &slowBucket{late: make(chan func(string) time.Duration, 1)}
	b.late <- func(string) time.Duration { return 0 }
	store := gofakes3.New(backend).Server()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		late := <-b.late
		b.late <- late
		select {
		case <-time.After(late(r.URL.Path)):
			store.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(srv.Close)
	b.url = srv.URL
	return b
}

func (b *slowBucket) set(late func(path string) time.Duration) { <-b.late; b.late <- late }

// open opens the store as the program does at its start, and returns how long that took.
func (b *slowBucket) open(t *testing.T, dir, localCopy string) (time.Duration, error) {
	t.Helper()
	t.Setenv("TEST_KEK", strings.Repeat("QUFB", 10)+"QUE=")
	cfg := config.Storage{Kind: "s3", Path: dir, S3: config.S3{Endpoint: b.url, Bucket: "certs", ConditionalWrites: "require", LocalCopy: localCopy}}
	cfg.Encryption.Keys = []config.SealingKey{{ID: "1", Ref: "env:TEST_KEK"}}
	began := time.Now()
	s, err := openStore(t.Context(), cfg, zaptest.NewLogger(t))
	took := time.Since(began)
	if err == nil {
		err = s.Close()
	}
	return took, err
}

// A process with a local copy serves from it while the bucket hangs, and soon.
func TestOpenStore_WaitsForABucketThatHangsBrieflyWhereThereIsALocalCopy(t *testing.T) {
	b := newSlowBucket(t)
	dir, local := t.TempDir(), t.TempDir()
	if _, err := b.open(t, dir, local); err != nil {
		t.Fatal(err)
	}
	b.set(func(string) time.Duration { return time.Hour })
	if took, err := b.open(t, dir, local); err != nil || took > 9*time.Second {
		t.Errorf("%v after %v; a test of 3 s and a look at the keys of 2 s were to be given up", err, took)
	}
}

// Without a local copy there is nothing else to serve from: a bucket that is slow is waited for.
func TestOpenStore_WaitsForASlowBucketWhereThereIsNoLocalCopy(t *testing.T) {
	b := newSlowBucket(t)
	dir := t.TempDir()
	if _, err := b.open(t, dir, ""); err != nil {
		t.Fatal(err)
	}
	b.set(func(path string) time.Duration {
		if strings.HasSuffix(path, "/keys/canary") {
			return 3 * time.Second
		}
		return 0
	})
	if took, err := b.open(t, dir, ""); err != nil {
		t.Errorf("%v after %v", err, took)
	}
}
