package main

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"gatelodge/acmeclient/devca"
)

// A customer's name goes where ask said, also after a restart while ask is down, and where it said last.
func TestProgram_CustomersAreRoutedAfterARestartWhileAskIsDown(t *testing.T) {
	l := newLodge(t, devca.Config{})
	var apps [2]*httptest.Server
	for i := range apps {
		apps[i] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "app %d for %s", i, r.Header.Get("X-Tenant"))
		}))
		t.Cleanup(apps[i].Close)
	}
	var to atomic.Int64
	ask := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-cache") // each request for the name looks again
		fmt.Fprintf(w, `{"tenant":"acme","to":%q}`, apps[to.Load()].URL)
	}))
	l.configure(l.ca.DirectoryURL(), "headers = { set = { X-Tenant = \"{ask.tenant}\" } }\n")
	l.rewrite("gatelodge.toml", fmt.Sprintf("names_file = %q", l.path("names")), fmt.Sprintf("ask = %q", ask.URL+"/ask"))
	l.start()
	want := func(when, answer string) {
		t.Helper()
		eventually(t, when+": "+answer, func() bool { got, err := l.get("shop.test"); return err == nil && got == answer })
	}
	want("at first", "app 0 for acme")
	to.Store(1)
	want("when ask says something else", "app 1 for acme")
	eventually(t, "the new answer is stored", func() bool { return l.storedSomewhere(apps[1].URL) })
	l.halt()
	ask.Close()
	l.start()
	if got, err := l.get("shop.test"); err != nil || got != "app 1 for acme" {
		t.Errorf("after a restart without ask: %q, %v", got, err)
	}
}

// rewrite replaces a text in a file.
func (l *lodge) rewrite(name, old, replacement string) {
	l.t.Helper()
	content, err := os.ReadFile(l.path(name))
	if err != nil || !strings.Contains(string(content), old) {
		l.t.Fatalf("%s has no %q: %v", name, old, err)
	}
	l.write(name, strings.ReplaceAll(string(content), old, replacement))
}

// storedSomewhere reports whether an object in storage contains the text.
func (l *lodge) storedSomewhere(text string) bool {
	found := false
	_ = filepath.WalkDir(l.path("storage"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			content, _ := os.ReadFile(path) // it may be gone
			found = found || strings.Contains(string(content), text)
		}
		return nil
	})
	return found
}
