package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/zap/zaptest"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

// quickFake is a store whose calls have little time, with one object at a known version.
func quickFake(t *testing.T) (*storagetest.FakeS3, *storage.S3, storage.Version) {
	t.Helper()
	fake := storagetest.NewFakeS3(t)
	cfg := fake.Config()
	cfg.Timeout = time.Second
	s := openS3(t, cfg)
	if err := s.SelfTest(t.Context()); err != nil {
		t.Fatal(err)
	}
	v, err := s.Put(t.Context(), "certs/old.example", []byte("old"))
	if err != nil {
		t.Fatal(err)
	}
	return fake, s, v
}

func wantObject(t *testing.T, s storage.Store, name, want string, at storage.Version) {
	t.Helper()
	data, v, err := s.Get(t.Context(), name)
	if err != nil || string(data) != want || at != "" && v != at {
		t.Errorf("%s is %q at %q (%v), want %q at %q", name, data, v, err, want, at)
	}
}

func TestS3_ConditionalWritesComeOutRightWhateverBecomesOfTheAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		fault storagetest.S3Fault
		puts  uint64 // that are sent
	}{
		"500 without applying":               {storagetest.Status(500, "InternalError"), 2},
		"500 after applying":                 {storagetest.StatusAfterApplying(500, "InternalError"), 1},
		"503 without applying":               {storagetest.Status(503, "SlowDown"), 2},
		"429 without applying":               {storagetest.Status(429, "TooManyRequests"), 2},
		"no answer, not applied":             {storagetest.NoAnswer(false), 2},
		"no answer, but applied":             {storagetest.NoAnswer(true), 1},
		"hangs, not applied":                 {storagetest.Hang(false), 2},
		"hangs, but applied":                 {storagetest.Hang(true), 1},
		"our own success, sent twice by net": {repeated, 1},
	} {
		t.Run(name, func(t *testing.T) {
			fake, s, old := quickFake(t)
			before := s.Stats()
			fake.Set(storagetest.OnlyPut("new.example", 1, c.fault))
			v, err := s.PutIf(t.Context(), "certs/new.example", []byte("new"), "")
			if err != nil {
				t.Fatal(err)
			}
			if sent := s.Stats().Put - before.Put; sent != c.puts {
				t.Errorf("%d PUT were sent, want %d", sent, c.puts)
			}
			wantObject(t, s, "certs/new.example", "new", v)
			if name == "our own success, sent twice by net" {
				return // an update hears of a conflict then, and reads
			}
			fake.Set(storagetest.OnlyPut("old.example", 1, c.fault))
			v, err = s.PutIf(t.Context(), "certs/old.example", []byte("changed"), old)
			if err != nil {
				t.Fatal(err)
			}
			wantObject(t, s, "certs/old.example", "changed", v)
			fake.Set(storagetest.OnlyPut("old.example", 1, c.fault))
			if err := s.DeleteIf(t.Context(), "certs/old.example", v); err != nil {
				t.Fatal(err)
			}
			_, _, err = s.Get(t.Context(), "certs/old.example")
			wantErr(t, err, storage.ErrNotExist)
		})
	}
}

// repeated is a PUT that something between us and the store sends again.
func repeated(r *http.Request, serve func(*http.Request) *http.Response) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	again := func() *http.Request {
		r := r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
		return r
	}
	serve(again()).Body.Close()
	return serve(again()), nil
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestS3_RefusedConditionsAreConflicts(t *testing.T) {
	for name, fault := range map[string]storagetest.S3Fault{
		"412":                     storagetest.Status(412, "PreconditionFailed"),
		"409, a concurrent write": storagetest.Status(409, "ConditionalRequestConflict"),
		"404, absent":             storagetest.Status(404, "NoSuchKey"),
	} {
		t.Run(name, func(t *testing.T) {
			fake, s, old := quickFake(t)
			fake.Set(storagetest.OnlyPut("old.example", 0, fault))
			_, err := s.PutIf(t.Context(), "certs/old.example", []byte("x"), old)
			wantErr(t, err, storage.ErrConflict)
			wantErr(t, s.DeleteIf(t.Context(), "certs/old.example", old), storage.ErrConflict)
			fake.Set()
			wantObject(t, s, "certs/old.example", "old", old)
		})
	}
}

func TestS3_LoserOfARaceThatIsAnswered500HearsOfTheConflict(t *testing.T) { // Ceph RGW 16 does that to half of the losers
	fake, s, old := quickFake(t)
	fake.Set(storagetest.OnlyPut("old.example", 1, func(r *http.Request, serve func(*http.Request) *http.Response) (*http.Response, error) {
		if _, err := s.Put(t.Context(), "certs/old.example", []byte("the winner's")); err != nil {
			t.Error(err)
		}
		return storagetest.Status(500, "InternalError")(r, serve)
	}))
	_, err := s.PutIf(t.Context(), "certs/old.example", []byte("the loser's"), old)
	wantErr(t, err, storage.ErrConflict)
	wantObject(t, s, "certs/old.example", "the winner's", "")
}

func TestS3_LastingFailuresOfWritesAreNeitherSuccessNorConflict(t *testing.T) {
	for name, fault := range map[string]storagetest.S3Fault{
		"500":                                  storagetest.Status(500, "InternalError"),
		"no answer":                            storagetest.NoAnswer(false),
		"403":                                  storagetest.Status(403, "AccessDenied"),
		"404, no bucket":                       storagetest.Status(404, "NoSuchBucket"),
		"409, a name is the folder of another": storagetest.Status(409, "ObjectParentIsFile"),
	} {
		t.Run(name, func(t *testing.T) {
			fake, s, old := quickFake(t)
			fake.Set(fault)
			for v, name := range map[storage.Version]string{old: "certs/old.example", "": "certs/new.example"} {
				if _, err := s.PutIf(t.Context(), name, []byte("x"), v); err == nil || errors.Is(err, storage.ErrConflict) || errors.Is(err, storage.ErrNotExist) {
					t.Errorf("put %s: error %v", name, err)
				}
			}
			if _, err := s.Put(t.Context(), "certs/old.example", []byte("x")); err == nil {
				t.Error("put: no error")
			}
			if err := s.Delete(t.Context(), "certs/old.example"); err == nil {
				t.Error("delete: no error")
			}
			if _, err := s.List(t.Context(), "", "", 0); err == nil {
				t.Error("list: no error")
			}
			if _, err := s.Lease(t.Context(), "issue/a.example"); err == nil {
				t.Error("lease: no error")
			}
			fake.Set()
			wantObject(t, s, "certs/old.example", "old", old)
		})
	}
}

func TestS3_OutageIsNeverAbsence(t *testing.T) {
	html := func(status int) storagetest.S3Fault {
		return func(r *http.Request, _ func(*http.Request) *http.Response) (*http.Response, error) {
			return storagetest.Answer(r, status, "text/html", "<html>not here</html>"), nil
		}
	}
	for name, fault := range map[string]storagetest.S3Fault{
		"500": storagetest.Status(500, "InternalError"), "503": storagetest.Status(503, "SlowDown"), "no answer": storagetest.NoAnswer(false),
		"403": storagetest.Status(403, "AccessDenied"), "the bucket is gone": storagetest.Status(404, "NoSuchBucket"),
		"404 of somebody in between": html(404), "200 of somebody in between": html(200), "nothing in a 404": storagetest.Status(404, ""),
	} {
		t.Run(name, func(t *testing.T) {
			fake, s, _ := quickFake(t)
			fake.Set(fault)
			for _, name := range []string{"certs/old.example", "certs/absent.example"} {
				if _, _, err := s.Get(t.Context(), name); err == nil || errors.Is(err, storage.ErrNotExist) {
					t.Errorf("get %s: error %v", name, err)
				}
				if _, _, err := s.Salvage(t.Context(), name); errors.Is(err, storage.ErrNotExist) {
					t.Errorf("salvage %s: error %v", name, err)
				}
			}
		})
	}
}

func TestS3_ReadsAreSentThreeTimes(t *testing.T) {
	for name, fault := range map[string]storagetest.S3Fault{"503": storagetest.Status(503, "SlowDown"), "429, as R2 says": storagetest.Status(429, "TooManyRequests")} {
		t.Run(name, func(t *testing.T) {
			fake, s, old := quickFake(t)
			failures := 2
			fake.Set(func(r *http.Request, serve func(*http.Request) *http.Response) (*http.Response, error) {
				if failures--; failures >= 0 {
					return fault(r, serve)
				}
				return nil, nil
			})
			wantObject(t, s, "certs/old.example", "old", old)
		})
	}
}

func TestS3_CallsEndWithTheirContextsAndBeforeTheirTimeout(t *testing.T) {
	fake, s, old := quickFake(t)
	fake.Set(storagetest.Hang(false))
	for name, call := range map[string]func(context.Context) error{
		"get":    func(ctx context.Context) error { _, _, err := s.Get(ctx, "certs/old.example"); return err },
		"put":    func(ctx context.Context) error { _, err := s.Put(ctx, "certs/old.example", nil); return err },
		"put-if": func(ctx context.Context) error { _, err := s.PutIf(ctx, "certs/old.example", nil, old); return err },
		"delete": func(ctx context.Context) error { return s.Delete(ctx, "certs/old.example") },
		"list":   func(ctx context.Context) error { _, err := s.List(ctx, "certs/", "", 0); return err },
		"lease":  func(ctx context.Context) error { _, err := s.Lease(ctx, "issue/a.example"); return err },
	} {
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := call(ctx)
		cancel()
		if waited := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || waited > time.Second {
			t.Errorf("%s: %v after %v", name, err, waited)
		}
	}
	if _, _, err := s.Get(t.Context(), "certs/old.example"); err == nil || !strings.Contains(err.Error(), "no answer from bucket test at http://fake.example within 1s") {
		t.Errorf("get without a deadline: %v", err)
	}
}

func TestS3_DamageIsNeverServedAndGoesIntoQuarantine(t *testing.T) {
	for name, damage := range map[string]func(file []byte) []byte{
		"cut":       func(file []byte) []byte { return file[:len(file)-1] },
		"one bit":   func(file []byte) []byte { file[len(file)-1] ^= 1; return file },
		"empty":     func([]byte) []byte { return nil },
		"no header": func([]byte) []byte { return []byte("something else") },
		"another name": func(file []byte) []byte {
			return []byte(strings.Replace(string(file), "old.example", "odd.example", 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			fake, s, _ := quickFake(t)
			fake.Tamper("some/prefix/objects/certs/old.example", damage)
			_, _, err := s.Get(t.Context(), "certs/old.example")
			if _, corrupt := errors.AsType[*storage.CorruptError](err); !corrupt {
				t.Fatalf("get: %v", err)
			}
			if _, err := s.PutIf(t.Context(), "certs/old.example", []byte("x"), ""); !errors.Is(err, storage.ErrConflict) {
				t.Errorf("creation over a damaged object: %v", err)
			}
			if err := storage.Quarantine(t.Context(), s, "certs/old.example", err, zaptest.NewLogger(t)); err != nil {
				t.Fatal(err)
			}
			_, _, err = s.Get(t.Context(), "certs/old.example")
			wantErr(t, err, storage.ErrNotExist)
			names, err := s.List(t.Context(), "", "", 0)
			if err != nil || fmt.Sprint(names) != "[quarantine/certs/old.example]" {
				t.Errorf("list: %q, %v", names, err)
			}
			v, err := s.PutIf(t.Context(), "certs/old.example", []byte("made anew"), "")
			if err != nil {
				t.Fatal(err)
			}
			wantObject(t, s, "certs/old.example", "made anew", v)
		})
	}
}

// Four stores in five ignore If-Match on DELETE: what is not the version that was meant must stay all the same.
func TestS3_DeleteIfIsSafeOnStoresThatIgnoreItsCondition(t *testing.T) {
	fake, s, _ := quickFake(t)
	fake.Set(storagetest.IgnoreHeader(http.MethodDelete, "If-Match"))
	for round := range 30 {
		v, err := s.Put(t.Context(), "certs/a.example", []byte("first"))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var deleteErr, putErr error
		wg.Go(func() { deleteErr = s.DeleteIf(t.Context(), "certs/a.example", v) })
		wg.Go(func() { _, putErr = s.PutIf(t.Context(), "certs/a.example", []byte("second"), v) })
		wg.Wait()
		data, _, err := s.Get(t.Context(), "certs/a.example")
		switch {
		case deleteErr == nil && errors.Is(putErr, storage.ErrConflict) && errors.Is(err, storage.ErrNotExist):
		case errors.Is(deleteErr, storage.ErrConflict) && putErr == nil && string(data) == "second":
		default:
			t.Fatalf("round %d: delete %v, put %v, and then %q %v", round, deleteErr, putErr, data, err)
		}
	}
}

// spoiled makes the first n answers to reads of keys that contain part what spoil makes of their bytes.
func spoiled(part string, n int, spoil func(body []byte) io.Reader) storagetest.S3Fault {
	var mu sync.Mutex
	return func(r *http.Request, serve func(*http.Request) *http.Response) (*http.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, part) || n == 0 {
			return nil, nil
		}
		n--
		answer := serve(r)
		body, err := io.ReadAll(answer.Body)
		answer.Body = io.NopCloser(spoil(body))
		return answer, err
	}
}

// What arrives broken may lie whole in the bucket: it is read again before anybody hears of it, and nothing is put aside for it.
func TestS3_ReadsAgainWhatArrivesBroken(t *testing.T) {
	for name, c := range map[string]struct {
		times int
		spoil func(body []byte) io.Reader
	}{
		"breaks off, twice": {2, func(b []byte) io.Reader {
			return io.MultiReader(bytes.NewReader(b[:len(b)/2]), iotest.ErrReader(io.ErrUnexpectedEOF))
		}},
		"is cut off":      {1, func(b []byte) io.Reader { return bytes.NewReader(b[:len(b)-1]) }},
		"has another bit": {1, func(b []byte) io.Reader { b[len(b)-1] ^= 1; return bytes.NewReader(b) }},
	} {
		t.Run(name, func(t *testing.T) {
			fake, s, old := quickFake(t)
			fake.Set(spoiled("old.example", c.times, c.spoil))
			wantObject(t, s, "certs/old.example", "old", old)
		})
	}
	t.Run("lies there damaged", func(t *testing.T) {
		fake, s, _ := quickFake(t)
		fake.Set(spoiled("old.example", 9, func(b []byte) io.Reader { return bytes.NewReader(b[:len(b)-1]) }))
		_, _, err := s.Get(t.Context(), "certs/old.example")
		if _, damaged := errors.AsType[*storage.CorruptError](err); !damaged {
			t.Errorf("error %v, want a CorruptError", err)
		}
	})
}
