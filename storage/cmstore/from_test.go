package cmstore_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"

	"gatelodge/storage"
	"gatelodge/storage/cmstore"
	"gatelodge/storage/storagetest"
)

func TestFrom_KeepsTheContractOverFileStorage(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store {
		return cmstore.FromCertmagic(&certmagic.FileStorage{Path: t.TempDir()})
	})
}

func TestFrom_TakesDamageForDamage(t *testing.T) {
	dir := t.TempDir()
	s := cmstore.FromCertmagic(&certmagic.FileStorage{Path: dir})
	if _, err := s.Put(t.Context(), "certs/a.example", []byte("the bytes")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "gatelodge", "objects", "certs,", "a.example")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for what, file := range map[string][]byte{
		"empty": {}, "cut": whole[:len(whole)-1], "no line": []byte("what is this"), "flipped": bytes.Replace(whole, []byte("bytes"), []byte("bites"), 1),
	} {
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := s.Get(t.Context(), "certs/a.example")
		if _, damaged := errors.AsType[*storage.CorruptError](err); !damaged || errors.Is(err, storage.ErrNotExist) {
			t.Errorf("%s: %v", what, err)
		}
		if _, v, err := s.Salvage(t.Context(), "certs/a.example"); err != nil || v == "" {
			t.Errorf("%s: salvage: %q, %v", what, v, err)
		}
	}
}

func TestFrom_AnOutageIsNoAbsence(t *testing.T) {
	dir := t.TempDir()
	s := cmstore.FromCertmagic(&certmagic.FileStorage{Path: dir})
	if err := os.WriteFile(filepath.Join(dir, "gatelodge"), nil, 0o600); err != nil { // a file where there should be a folder
		t.Fatal(err)
	}
	if _, _, err := s.Get(t.Context(), "certs/a.example"); err == nil || errors.Is(err, storage.ErrNotExist) {
		t.Errorf("get: %v", err)
	}
	if _, err := s.PutIf(t.Context(), "certs/a.example", nil, ""); err == nil || errors.Is(err, storage.ErrConflict) {
		t.Errorf("put-if: %v", err)
	}
}

func FuzzKeys(f *testing.F) {
	for _, key := range []string{"acme/x/users/a@b.c/a.json", "a", "a/b", "/a//b/", "certificates/i/s/s.key", "certificates/i/s", "ä/=/.hidden", "cm=/2e", "a b*+:@"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		to := cmstore.ToCertmagic(storage.NewMemory(), cmstore.Options{})
		if strings.HasPrefix(key, "certificates/") || to.Store(t.Context(), key, []byte("value")) != nil {
			return
		}
		got, err := to.Load(t.Context(), key)
		if err != nil || string(got) != "value" {
			t.Fatalf("%q: %q, %v", key, got, err)
		}
		all, err := to.List(t.Context(), "", true)
		if err != nil || all[len(all)-1] != key {
			t.Fatalf("%q is listed as %q, %v", key, all, err)
		}
		if err := to.Delete(t.Context(), key); err != nil || to.Exists(t.Context(), key) {
			t.Fatalf("%q is still there, %v", key, err)
		}
	})
}
