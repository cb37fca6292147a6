package storage_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatelodge/storage"
)

const (
	goodKey  = "MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY=" // 0123456789abcdefghijklmnopqrstuv
	otherKey = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
)

func keyFile(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestParseKeys_ReadsFilesVariablesAndCredentials(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ring"), []byte(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("c", 32)))), 0o440); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	t.Setenv("GATELODGE_KEY", otherKey+"\n")
	keys, err := storage.ParseKeys([]string{"2026-11=file:" + keyFile(t, goodKey+"\n", 0o400), "b.c_d=env:GATELODGE_KEY", "e=credential:ring"})
	if err != nil {
		t.Fatal(err)
	}
	want := []storage.SealKey{
		{ID: "2026-11", Secret: [32]byte([]byte("0123456789abcdefghijklmnopqrstuv"))},
		{ID: "b.c_d", Secret: [32]byte([]byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"))},
		{ID: "e", Secret: [32]byte([]byte(strings.Repeat("c", 32)))},
	}
	for i := range want {
		if i >= len(keys) || keys[i] != want[i] {
			t.Errorf("key %d is not what was written", i)
		}
	}
	if keys, err := storage.ParseKeys(nil); len(keys) != 0 || err != nil {
		t.Errorf("no entries: %v, %v", keys, err)
	}
}

func TestParseKeys_SaysWhatIsWrongAndNeverShowsAKey(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", t.TempDir())
	t.Setenv("GOOD", goodKey)
	t.Setenv("SHORT", "MDEyMzQ1Njc4OWFiY2RlZg==")
	t.Setenv("NOT_BASE64", goodKey[:40]+"!!!!")
	t.Setenv("EMPTY", " \n")
	t.Setenv("TWO", goodKey+"\n"+otherKey)
	t.Setenv("ZERO", base64.StdEncoding.EncodeToString(make([]byte, 32)))
	for _, c := range []struct {
		what  string
		ring  []string
		wants []string
	}{
		{"the key itself instead of a source", []string{goodKey}, []string{"it must be an ID"}},
		{"the key itself after the ID", []string{"a=" + goodKey}, []string{"it must be an ID"}},
		{"no ID", []string{"=env:GOOD"}, []string{"it must be an ID"}},
		{"an ID with a slash", []string{"a/b=env:GOOD"}, []string{"it must be an ID"}},
		{"a file that others can read", []string{"a=file:" + keyFile(t, goodKey, 0o640)}, []string{"open to others", "chmod 600"}},
		{"a file that is not there", []string{"a=file:/does/not/exist"}, []string{"no such file"}},
		{"a variable that is not set", []string{"a=env:GATELODGE_NO_SUCH"}, []string{"GATELODGE_NO_SUCH is not set"}},
		{"a credential that is not there", []string{"a=credential:nope"}, []string{"LoadCredential=nope:"}},
		{"a credential that climbs out", []string{"a=credential:../x"}, []string{"no name of a credential"}},
		{"a short key", []string{"a=env:SHORT"}, []string{"16 bytes, not 32", "openssl rand -base64 32"}},
		{"no base64", []string{"a=env:NOT_BASE64"}, []string{"not base64"}},
		{"nothing", []string{"a=env:EMPTY"}, []string{"empty"}},
		{"two lines", []string{"a=env:TWO"}, []string{"more than one line"}},
		{"zeros", []string{"a=env:ZERO"}, []string{"zeros"}},
		{"an ID twice", []string{"a=env:GOOD", "a=env:ZERO"}, []string{"zeros"}},
		{"a key twice", []string{"a=env:GOOD", "b=env:GOOD"}, []string{"key 2", "same key as a"}},
		{"all of them", []string{"a=env:SHORT", "b=env:EMPTY"}, []string{"key 1", "key 2"}},
	} {
		keys, err := storage.ParseKeys(c.ring)
		if err == nil || keys != nil {
			t.Errorf("%s: taken", c.what)
			continue
		}
		for _, want := range c.wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q in it", c.what, err, want)
			}
		}
		for _, secret := range []string{goodKey[:8], otherKey[:8], "01234567", "MDEyMzQ1"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error shows the key: %v", c.what, err)
			}
		}
	}
}
