package storage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// calls are one of each kind, on what is there and on what is not.
func callsOf(t *testing.T, d *Disk) map[string]func() error {
	ctx := t.Context()
	return map[string]func() error{
		"get":        func() error { _, _, err := d.Get(ctx, "certs/a.example"); return err },
		"get absent": func() error { _, _, err := d.Get(ctx, "certs/none.example"); return err },
		"salvage":    func() error { _, _, err := d.Salvage(ctx, "certs/a.example"); return err },
		"list":       func() error { _, err := d.List(ctx, "certs/", "", 10); return err },
		"put":        func() error { _, err := d.Put(ctx, "certs/b.example", []byte("b")); return err },
		"put new":    func() error { _, err := d.PutIf(ctx, "more/c.example", []byte("c"), ""); return err },
		"delete":     func() error { return d.Delete(ctx, "certs/none.example") },
		"lease": func() error {
			lease, err := d.Lease(ctx, "issue/a.example")
			if err == nil {
				err = lease.Release(ctx)
			}
			return err
		},
	}
}

func TestDisk_UsesARootAgainThatWasGone(t *testing.T) {
	for why, c := range map[string]struct {
		away func(t *testing.T, root, aside string)
		back func(t *testing.T, root, aside string)
	}{
		"a folder that is moved": {
			func(t *testing.T, root, aside string) { must(t, os.Rename(root, aside)) },
			func(t *testing.T, root, aside string) { must(t, os.Rename(aside, root)) },
		},
		"a volume that is not mounted": {
			func(t *testing.T, root, aside string) {
				must(t, os.Rename(root, aside))
				must(t, os.Mkdir(root, 0o755))
			},
			func(t *testing.T, root, aside string) { must(t, os.Remove(root)); must(t, os.Rename(aside, root)) }, // so it was empty
		},
		"a copy with what counts and nothing else": {
			func(t *testing.T, root, aside string) {
				must(t, os.CopyFS(aside, os.DirFS(root)))
				must(t, os.RemoveAll(root))
			},
			func(t *testing.T, root, aside string) {
				must(t, errors.Join(os.RemoveAll(filepath.Join(aside, "tmp")), os.RemoveAll(filepath.Join(aside, "locks")), os.Chmod(aside, 0o755)))
				must(t, os.Rename(aside, root))
			},
		},
	} {
		t.Run(why, func(t *testing.T) {
			root, aside := filepath.Join(t.TempDir(), "storage"), filepath.Join(t.TempDir(), "aside")
			core, logs := observer.New(zap.InfoLevel)
			d, err := OpenDisk(root, zap.New(core))
			must(t, err)
			defer d.Close()
			_, err = d.Put(t.Context(), "certs/a.example", []byte("a"))
			must(t, err)
			held, err := d.Lease(t.Context(), "held")
			must(t, err)

			c.away(t, root, aside)
			for range 20 {
				for what, call := range callsOf(t, d) {
					err := call()
					if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), root+" is not there as it was") {
						t.Fatalf("%s, gone: %v", what, err)
					}
				}
			}
			if entries, err := os.ReadDir(root); len(entries) > 0 {
				t.Errorf("something was made in its place: %v, %v", entries, err)
			}
			if n := logs.FilterMessageSnippet("storage folder is gone").Len(); n != 1 || logs.Len() != 1 {
				t.Errorf("the log says it %d times: %v", n, logs.All())
			}

			c.back(t, root, aside)
			for what, call := range callsOf(t, d) {
				if err := call(); err != nil && (what != "get absent" || !errors.Is(err, ErrNotExist)) {
					t.Errorf("%s, back: %v", what, err)
				}
			}
			if data, _, err := d.Get(t.Context(), "certs/a.example"); err != nil || string(data) != "a" {
				t.Errorf("%q, %v", data, err)
			}
			if n := logs.FilterMessageSnippet("storage folder is back").Len(); n != 1 {
				t.Errorf("the log says %d times that it is back", n)
			}
			if info, err := os.Stat(root); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			must(t, held.Release(t.Context()))
		})
	}
}

func TestDisk_TakesNoStoreOfAnotherFormatForItsOwn(t *testing.T) {
	root := filepath.Join(t.TempDir(), "storage")
	d, err := OpenDisk(root, nil)
	must(t, err)
	defer d.Close()
	must(t, os.RemoveAll(root))
	must(t, os.MkdirAll(filepath.Join(root, "objects"), 0o700))
	must(t, os.WriteFile(filepath.Join(root, "format"), []byte("gatelodge storage 2\n"), 0o600))
	if _, err := d.Put(t.Context(), "certs/a.example", []byte("a")); err == nil || !strings.Contains(err.Error(), "its format is") {
		t.Errorf("put: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Join(root, "objects")); err != nil || len(entries) > 0 {
		t.Errorf("written into another format: %v, %v", entries, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
