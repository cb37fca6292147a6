package storage_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func TestS3_CountsItsRequests(t *testing.T) {
	_, s, v := quickFake(t)
	ctx := t.Context()
	var lease storage.Lease
	for _, c := range []struct {
		what string
		call func() error
		want storage.S3Stats
	}{
		{"get", func() error { return second(second2(s.Get(ctx, "certs/old.example"))) }, storage.S3Stats{Get: 1}},
		{"put", func() error { return second(s.Put(ctx, "certs/b.example", nil)) }, storage.S3Stats{Put: 1}},
		{"creation", func() error { return second(s.PutIf(ctx, "certs/c.example", nil, "")) }, storage.S3Stats{Put: 1}},
		{"change", func() error { return second(s.PutIf(ctx, "certs/old.example", nil, v)) }, storage.S3Stats{Put: 1}},
		{"refused change", func() error { return conflict(s.PutIf(ctx, "certs/old.example", nil, v)) }, storage.S3Stats{Put: 1, Refused: 1}},
		{"refused creation", func() error { return conflict(s.PutIf(ctx, "certs/c.example", nil, "")) }, storage.S3Stats{Put: 1, Get: 1, Refused: 1}},
		{"list", func() error { return second(s.List(ctx, "", "", 0)) }, storage.S3Stats{List: 1}},
		{"delete", func() error { return s.Delete(ctx, "certs/c.example") }, storage.S3Stats{Delete: 1}},
		{"first lease", func() (err error) { lease, err = s.Lease(ctx, "a/b"); return err }, storage.S3Stats{Get: 1, Put: 1}},
		{"release", func() error { return lease.Release(ctx) }, storage.S3Stats{Put: 1}},
		{"second lease", func() (err error) { lease, err = s.Lease(ctx, "a/b"); return err }, storage.S3Stats{Get: 1, Put: 1}},
		{"its release", func() error { return lease.Release(ctx) }, storage.S3Stats{Put: 1}},
	} {
		before := s.Stats()
		if err := c.call(); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		after := s.Stats()
		is := storage.S3Stats{Get: after.Get - before.Get, Put: after.Put - before.Put, Delete: after.Delete - before.Delete, List: after.List - before.List,
			NotModified: after.NotModified - before.NotModified, Refused: after.Refused - before.Refused, Failed: after.Failed - before.Failed}
		if is != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, is, c.want)
		}
	}
}

func second2[A, B any](_ A, b B, err error) (B, error) { return b, err }

func conflict(_ storage.Version, err error) error {
	if errors.Is(err, storage.ErrConflict) {
		return nil
	}
	return fmt.Errorf("no conflict: %w", err)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Two nodes in simulated time, with production's times; one is cut off.
func TestS3_LeaseOfANodeThatIsCutOffIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := storagetest.NewFakeS3(t)
		cfg := fake.Config()
		cfg.Lease = storage.LeaseTimes{}
		living := openS3(t, cfg)
		var cut atomic.Bool
		cfg.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			if cut.Load() {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return fake.RoundTrip(r)
		})
		lonely := openS3(t, cfg)
		old, err := lonely.Lease(t.Context(), "issue/a.example")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if old.Context().Err() != nil {
			t.Fatalf("after two minutes of beats: %v", context.Cause(old.Context()))
		}
		cut.Store(true)
		start, before := time.Now(), living.Stats()
		next, err := living.Lease(t.Context(), "issue/a.example")
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited < 30*time.Second || waited > 36*time.Second {
			t.Errorf("taken over after %v", waited)
		}
		if !errors.Is(context.Cause(old.Context()), storage.ErrLeaseLost) || next.Fence() <= old.Fence() {
			t.Errorf("the old holder's context: %v; fence %d after %d", context.Cause(old.Context()), next.Fence(), old.Fence())
		}
		is := living.Stats()
		if polls := is.NotModified - before.NotModified; polls < 25 || polls > 45 || is.List > 0 {
			t.Errorf("%d looks answered 304; requests %+v", polls, is)
		}
		cut.Store(false)
		if err := old.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if err := next.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestS3_SingleNodeNeedsNothingFromTheStoreAndExcludesThisHost(t *testing.T) {
	core, logged := observer.New(zap.WarnLevel)
	open := func(t *testing.T, cfg storage.S3Config) *storage.S3 {
		s, err := storage.OpenS3(t.Context(), cfg, zap.New(core))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	config := func(t *testing.T) storage.S3Config {
		fake := storagetest.NewFakeS3(t)
		fake.Set(func(r *http.Request, serve func(*http.Request) *http.Response) (*http.Response, error) {
			if r.Header.Get("If-Match") != "" || r.Header.Get("If-None-Match") != "" {
				return storagetest.Status(501, "NotImplemented")(r, serve)
			}
			return nil, nil
		})
		cfg := fake.Config()
		cfg.ConditionalWrites, cfg.LockDir = "single-node", t.TempDir()
		return cfg
	}
	t.Run("contract", func(t *testing.T) {
		storagetest.Run(t, func(t *testing.T) storage.Store {
			s := open(t, config(t))
			if err := s.SelfTest(t.Context()); err != nil {
				t.Fatal(err)
			}
			return s
		})
	})
	cfg := config(t)
	a, b := open(t, cfg), open(t, cfg) // as two processes
	held, err := a.Lease(t.Context(), "issue/a.example")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if _, err := b.Lease(ctx, "issue/a.example"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a lease that another process of the host holds: %v", err)
	}
	if err := held.Release(t.Context()); err != nil {
		t.Error(err)
	}
	var wins atomic.Int32
	var wg sync.WaitGroup
	for _, s := range []*storage.S3{a, b, a, b} {
		wg.Go(func() {
			if _, err := s.PutIf(t.Context(), "certs/a.example", nil, ""); err == nil {
				wins.Add(1)
			} else if !errors.Is(err, storage.ErrConflict) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 {
		t.Errorf("%d created the same object", wins.Load())
	}
	if logged.FilterMessageSnippet("single node").Len() == 0 {
		t.Error("nothing was logged about it")
	}
}

func TestS3_SweepsTombstonesThatNobodyHasUsedForLong(t *testing.T) {
	fake, s, v := quickFake(t)
	ctx := t.Context()
	if err := s.DeleteIf(ctx, "certs/old.example", v); err != nil {
		t.Fatal(err)
	}
	lease, err := s.Lease(ctx, "issue/a.example")
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.Release(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(ctx, "certs/a.example", []byte("stays")); err != nil {
		t.Fatal(err)
	}
	if n, err := s.SweepTombstones(ctx, 30*24*time.Hour); n != 0 || err != nil {
		t.Errorf("of today: %d, %v", n, err)
	}
	// gofakes3 ignores conditions on DELETE, so that the tombstones of objects are left.
	if n, err := s.SweepTombstones(ctx, -time.Hour); n != 1 || err != nil {
		t.Errorf("of an hour from now: %d, %v", n, err)
	}
	if keys := fake.Keys(); !slices.Equal(keys, []string{"some/prefix/objects/certs/a.example", "some/prefix/objects/certs/old.example"}) {
		t.Errorf("left: %q", keys)
	}
	wantObject(t, s, "certs/a.example", "stays", "")
	again, err := s.Lease(ctx, "issue/a.example")
	if err != nil || again.Fence() <= lease.Fence() {
		t.Fatalf("after the sweep: %v", err)
	}
	if err := again.Release(ctx); err != nil {
		t.Error(err)
	}
}

func TestOpenS3_SaysWhatIsWrongWithItsConfiguration(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*storage.S3Config)
		want   string
	}{
		"no bucket":         {func(c *storage.S3Config) { c.Bucket = "" }, "set storage.s3.bucket"},
		"mode":              {func(c *storage.S3Config) { c.ConditionalWrites = "maybe" }, `write "require" or "single-node"`},
		"no folder":         {func(c *storage.S3Config) { c.ConditionalWrites = "single-node" }, "needs a local folder"},
		"prefix":            {func(c *storage.S3Config) { c.Prefix = "a//b" }, "storage.s3.prefix"},
		"prefix too long":   {func(c *storage.S3Config) { c.Prefix = strings.Repeat("a/", 250) }, "storage.s3.prefix"},
		"endpoint":          {func(c *storage.S3Config) { c.Endpoint = "s3.example.com:9000" }, "write a URL such as"},
		"times":             {func(c *storage.S3Config) { c.Lease.Lease = time.Second }, "times of leases"},
		"no region for AWS": {func(c *storage.S3Config) { c.Endpoint = ""; t.Setenv("AWS_REGION", "") }, "set storage.s3.region"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := storagetest.NewFakeS3(t).Config()
			c.change(&cfg)
			if _, err := storage.OpenS3(t.Context(), cfg, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error: %v\nwant: %s", err, c.want)
			}
		})
	}
}

func TestS3_CallsAfterCloseFail(t *testing.T) {
	s, err := storage.OpenS3(t.Context(), storagetest.NewFakeS3(t).Config(), nil)
	if err != nil {
		t.Fatal(err)
	}
	lease, err := s.Lease(t.Context(), "a/b")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if !errors.Is(context.Cause(lease.Context()), storage.ErrLeaseLost) {
		t.Errorf("a lease that was held: %v", context.Cause(lease.Context()))
	}
	wantErr(t, second(second2(s.Get(t.Context(), "a/b"))), fs.ErrClosed)
	wantErr(t, second(s.Put(t.Context(), "a/b", nil)), fs.ErrClosed)
	wantErr(t, s.SelfTest(t.Context()), fs.ErrClosed)
	wantErr(t, second(s.Lease(t.Context(), "a/b")), fs.ErrClosed)
}
