package storage_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"gatelodge/storage"
)

func TestOpenDisk_MakesAFolderThatNobodyElseCanEnter(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	d := openDisk(t, dir)
	if _, err := d.Put(t.Context(), "certs/a.example", []byte("x")); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[e.IsDir()]; err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestOpenDisk_ClosesOrRefusesAFolderOpenToOthers(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(t *testing.T, dir string)
		refuse string // part of the error; empty: the folder is closed
	}{
		{"empty", func(*testing.T, string) {}, ""},
		{"fresh file system", func(t *testing.T, dir string) { makeDir(t, filepath.Join(dir, "lost+found")) }, ""},
		{"a store", func(t *testing.T, dir string) { openDisk(t, dir).Close() }, ""},
		{"somebody's folder", func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, "notes.txt"), "hello") }, "gatelodge"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			c.before(t, dir)
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			core, logged := observer.New(zap.WarnLevel)
			d, err := storage.OpenDisk(dir, zap.New(core))
			info, _ := os.Stat(dir)
			if c.refuse != "" {
				if err == nil || !strings.Contains(err.Error(), c.refuse) || info.Mode().Perm() != 0o755 {
					t.Errorf("got error %v and mode %v, want a refusal that touches nothing", err, info.Mode().Perm())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if info.Mode().Perm() != 0o700 || logged.Len() != 1 {
				t.Errorf("mode %v, log %v", info.Mode().Perm(), logged.All())
			}
		})
	}
}

func TestOpenDisk_RefusesAnotherLayout(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "format"), "gatelodge storage 2\n")
	if _, err := storage.OpenDisk(dir, nil); err == nil || !strings.Contains(err.Error(), "gatelodge storage 2") {
		t.Errorf("got %v", err)
	}
	if got := entries(t, dir, "."); len(got) != 1 {
		t.Errorf("a refused folder was changed: %q", got)
	}
}

func TestOpenDisk_SaysWhatIsInTheWay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, "")
	if _, err := storage.OpenDisk(file, nil); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file for a folder: %v", err)
	}
	dir := t.TempDir()
	openDisk(t, dir).Close()
	if err := os.Remove(filepath.Join(dir, "tmp")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "tmp"), "")
	if _, err := storage.OpenDisk(dir, nil); err == nil || !strings.Contains(err.Error(), "not a folder") {
		t.Errorf("a file for an inner folder: %v", err)
	}
}

func TestDisk_ClosesAFileOpenToOthers(t *testing.T) {
	dir := t.TempDir()
	core, logged := observer.New(zap.WarnLevel)
	d, err := storage.OpenDisk(dir, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.Put(t.Context(), "certs/a.example", []byte("x")); err != nil {
		t.Fatal(err)
	}
	file := objectFile(t, dir, "a.example")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if data, _, err := d.Get(t.Context(), "certs/a.example"); err != nil || string(data) != "x" {
			t.Errorf("got %q, %v", data, err)
		}
	}
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 || logged.FilterField(zap.String("object", "certs/a.example")).Len() != 1 {
		t.Errorf("mode %v, log %v", info.Mode().Perm(), logged.All())
	}
}

func TestDisk_DamagedFileIsCorruptNeverAbsent(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(file []byte) []byte
	}{
		{"empty", func([]byte) []byte { return nil }},
		{"cut in the header", func(f []byte) []byte { return f[:20] }},
		{"cut at the header's end", func(f []byte) []byte { return f[:len(f)-len("payload")] }},
		{"cut in the bytes", func(f []byte) []byte { return f[:len(f)-1] }},
		{"one byte more", func(f []byte) []byte { return append(f, 'x') }},
		{"one bit of the bytes", func(f []byte) []byte { f[len(f)-2] ^= 1; return f }},
		{"one bit of the checksum", func(f []byte) []byte { f[60] ^= 1; return f }},
		{"zeros", func(f []byte) []byte { return make([]byte, len(f)) }},
		{"another object's file", func(f []byte) []byte { return []byte(strings.Replace(string(f), "a.example", "b.example", 1)) }},
		{"a newer format", func(f []byte) []byte { return []byte(strings.Replace(string(f), "object 1", "object 2", 1)) }},
		{"far too long", func(f []byte) []byte { return append(f, make([]byte, 2*storage.MaxObject)...) }},
	} {
		t.Run(c.name, func(t *testing.T) { testDamage(t, c.damage) })
	}
}

func testDamage(t *testing.T, damage func([]byte) []byte) {
	dir := t.TempDir()
	d := openDisk(t, dir)
	ctx := t.Context()
	first, err := d.Put(ctx, "certs/a.example", []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	path := objectFile(t, dir, "a.example")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, string(damage(file)))

	_, _, err = d.Get(ctx, "certs/a.example")
	corrupt, ok := errors.AsType[*storage.CorruptError](err)
	if !ok || corrupt.Name != "certs/a.example" || errors.Is(err, storage.ErrNotExist) {
		t.Fatalf("get: %v", err)
	}
	if strings.Contains(err.Error(), "payload") {
		t.Errorf("the error shows contents: %v", err)
	}
	if _, err := d.PutIf(ctx, "certs/a.example", nil, ""); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("create over a damaged object: %v", err)
	}
	if names, err := d.List(ctx, "certs/", "", 0); err != nil || len(names) != 1 {
		t.Errorf("list: %q, %v", names, err)
	}
	_, v, err := d.Salvage(ctx, "certs/a.example")
	if err != nil || v == "" {
		t.Fatalf("salvage: version %q, %v", v, err)
	}
	if v != first { // the header is damaged too
		if _, err := d.PutIf(ctx, "certs/a.example", nil, first); !errors.Is(err, storage.ErrConflict) {
			t.Errorf("write at the version that was: %v", err)
		}
	}
	if err := storage.Quarantine(ctx, d, "certs/a.example", corrupt, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Get(ctx, "certs/a.example"); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("get after quarantine: %v", err)
	}
	if _, _, err := d.Get(ctx, "quarantine/certs/a.example"); err != nil {
		t.Errorf("the damaged bytes: %v", err)
	}
}

func TestDisk_CloseEndsWaitsAndLeases(t *testing.T) {
	dir := t.TempDir()
	d := openDisk(t, dir)
	l, err := d.Lease(t.Context(), "issue/a.example")
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error)
	go func() {
		_, err := d.Lease(t.Context(), "issue/a.example")
		waited <- err
	}()
	other := openDisk(t, dir) // as another process would
	for range 2 {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-waited; !errors.Is(err, fs.ErrClosed) {
		t.Errorf("who waited got %v", err)
	}
	if cause := context.Cause(l.Context()); cause != storage.ErrLeaseLost {
		t.Errorf("the holder's context ended by %v", cause)
	}
	if err := l.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if l, err := other.Lease(t.Context(), "issue/a.example"); err != nil {
		t.Error(err)
	} else if err := l.Release(t.Context()); err != nil {
		t.Error(err)
	}
	_, _, err = d.Get(t.Context(), "a/b")
	_, err2 := d.Put(t.Context(), "a/b", nil)
	_, err3 := d.List(t.Context(), "", "", 0)
	for _, err := range []error{err, err2, err3, d.Delete(t.Context(), "a/b")} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("a call after Close: %v", err)
		}
	}
	if left := entries(t, dir, "tmp"); len(left) != 1 {
		t.Errorf("temporary folders %q, want the other disk's", left)
	}
}

func TestDisk_FencesGoOnFromTheClockWhenTheCounterIsLost(t *testing.T) {
	for _, counter := range []string{"", "garbage", "99999999999999999999999999"} {
		dir := t.TempDir()
		d := openDisk(t, dir)
		fence := func() uint64 {
			l, err := d.Lease(t.Context(), "issue/a.example")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Release(t.Context())
			return l.Fence()
		}
		before := fence()
		writeFile(t, filepath.Join(dir, "locks", "fence"), counter)
		for range 3 {
			if now := fence(); now <= before {
				t.Errorf("counter %q: fence %d after %d", counter, now, before)
			} else {
				before = now
			}
		}
	}
}

func objectFile(t *testing.T, dir, file string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "objects", "*", "*", "*", file))
	if err != nil || len(found) != 1 {
		t.Fatalf("files of %s: %q, %v", file, found, err)
	}
	return found[0]
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func makeDir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func damageFile(t *testing.T, path string, damage func([]byte) []byte) {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, string(damage(file)))
}

func TestOpenDisk_ManyAtOnceMakeOneStoreOfAFolderThatIsOpenToOthers(t *testing.T) {
	for range 20 {
		dir := filepath.Join(t.TempDir(), "storage")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		var opening sync.WaitGroup
		for range 8 {
			opening.Go(func() {
				d, err := storage.OpenDisk(dir, nil)
				if err != nil {
					t.Errorf("one of many: %v", err)
					return
				}
				_ = d.Close()
			})
		}
		opening.Wait()
	}
}
