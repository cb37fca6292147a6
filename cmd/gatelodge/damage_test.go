package main

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"gatelodge/acmeclient/devca"
	"gatelodge/storage"
)

// damages are what may have happened to an object, or to its file.
var damages = []struct {
	name string
	do   func(t *testing.T, disk *storage.Disk, file, object, other string)
}{
	{"is garbage", func(t *testing.T, disk *storage.Disk, _, object, _ string) {
		put(t, disk, object, []byte("\x00\xff{ no such thing \n"))
	}},
	{"is empty", func(t *testing.T, disk *storage.Disk, _, object, _ string) { put(t, disk, object, nil) }},
	{"is cut off", func(t *testing.T, disk *storage.Disk, _, object, _ string) {
		data := content(t, disk, object)
		put(t, disk, object, data[:len(data)/2])
	}},
	{"is another object", func(t *testing.T, disk *storage.Disk, _, object, other string) {
		put(t, disk, object, content(t, disk, other))
	}},
	{"has a file that is cut off", func(t *testing.T, _ *storage.Disk, file, _, _ string) {
		if info, err := os.Stat(file); err != nil || os.Truncate(file, info.Size()/2) != nil {
			t.Fatal(err)
		}
	}},
	{"has a file of no length", func(t *testing.T, _ *storage.Disk, file, _, _ string) {
		if err := os.Truncate(file, 0); err != nil {
			t.Fatal(err)
		}
	}},
}

func put(t *testing.T, disk *storage.Disk, object string, data []byte) {
	t.Helper()
	if _, err := disk.Put(t.Context(), object, data); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, disk *storage.Disk, object string) []byte {
	t.Helper()
	data, _, err := disk.Get(t.Context(), object)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// damagesEach is how many of the damages each object meets; FULL=1 takes all.
func damagesEach() int {
	switch {
	case os.Getenv("FULL") != "":
		return len(damages)
	case testing.Short():
		return 1
	}
	return 2
}

// Each object of a store is damaged in turn while nobody runs. The process starts all the same, serves every name, says what it has put aside, and costs the CA no
// more than what was lost.
func TestProgram_ComesUpWhateverObjectIsDamaged(t *testing.T) {
	l := newLodge(t, devca.Config{Policy: func(name string) error {
		if strings.HasPrefix(name, "refused") {
			return errors.New("not this one")
		}
		return nil
	}})
	l.configure(l.ca.DirectoryURL(), "[[site]]\nhosts = [\"app.internal\"]\nto = \""+l.upstream.URL+"\"\n[issue]\nbackoff = [\"1h\"]\n")
	p := l.startProcess()
	first := map[string]*x509.Certificate{}
	for _, name := range []string{"a.test", "b.test"} {
		var err error
		if first[name], err = l.handshake(name); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = l.handshake("refused.test")
	for _, text := range []string{"not this one", "n a.test", "n b.test", "n app.internal"} { // the failure, the index
		eventually(t, text+" is stored", func() bool { return l.storedSomewhere(text) })
	}
	p.interrupt()
	if err := os.Rename(l.path("storage"), l.path("whole")); err != nil {
		t.Fatal(err)
	}
	for i, object := range l.objects("whole") {
		for j := range damagesEach() {
			d := damages[(i+j)%len(damages)]
			t.Run(object+" "+d.name, func(t *testing.T) {
				l := *l
				l.t = t
				l.copyStorage("whole")
				l.damage(object, d.do)
				l.wantServedAfterDamage(object, first)
			})
		}
	}
}

func (l *lodge) wantServedAfterDamage(object string, first map[string]*x509.Certificate) {
	l.t.Helper()
	before := l.ca.Stats()
	p := l.startProcess()
	defer p.kill()
	orders, accounts := 1, 0 // c.test
	for name, cert := range first {
		lost := object == "certs/"+name
		if leaf, err := l.handshake(name); err != nil || lost == (leaf.SerialNumber.Cmp(cert.SerialNumber) == 0) {
			l.t.Errorf("%s: lost %v, %v", name, lost, err)
		}
		if lost {
			orders++
		}
	}
	if _, err := l.handshake("c.test"); err != nil {
		l.t.Errorf("a new name: %v", err)
	}
	if _, err := l.handshake("refused.test"); err == nil {
		l.t.Error("a refused name is served")
	}
	switch object {
	case "failures/refused.test":
		orders++ // it has a clean slate, once
	case "acme/test/account":
		accounts++ // with the key it is lost
	}
	after := l.ca.Stats()
	if n := after.Requests["newOrder"] - before.Requests["newOrder"]; n != orders {
		l.t.Errorf("%d orders, want %d", n, orders)
	}
	if n := after.Accounts - before.Accounts; n != accounts {
		l.t.Errorf("%d new accounts, want %d", n, accounts)
	}
	if kind, _, _ := strings.Cut(object, "/"); kind != "pending" && kind != "localca" { // of which nobody wants anything now
		eventually(l.t, "the log names "+object, func() bool {
			return strings.Contains(p.log.String(), "quarantine/"+object) || object == "members" && strings.Contains(p.log.String(), "written anew")
		})
	}
	if log := p.log.String(); strings.Contains(log, "panic") {
		l.t.Errorf("it panicked:\n%s", log)
	}
}

// copyStorage makes the storage what was kept of one.
func (l *lodge) copyStorage(from string) {
	l.t.Helper()
	if err := errors.Join(os.RemoveAll(l.path("storage")), os.CopyFS(l.path("storage"), os.DirFS(l.path(from)))); err != nil {
		l.t.Fatal(err)
	}
	if err := filepath.WalkDir(l.path("storage"), func(path string, d fs.DirEntry, err error) error {
		mode := fs.FileMode(0o600)
		if err == nil && d.IsDir() {
			mode = 0o700
		}
		return errors.Join(err, os.Chmod(path, mode))
	}); err != nil {
		l.t.Fatal(err)
	}
}

// objects are the names of all that is stored.
func (l *lodge) objects(dir string) []string {
	l.t.Helper()
	disk, err := storage.OpenDisk(l.path(dir), zap.NewNop())
	if err != nil {
		l.t.Fatal(err)
	}
	defer disk.Close()
	var all []string
	if err := storage.ForAll(l.t.Context(), disk, "", 1, func(_ context.Context, name string) error { all = append(all, name); return nil }); err != nil {
		l.t.Fatal(err)
	}
	return all
}

// damage does what the function says to an object.
func (l *lodge) damage(object string, do func(t *testing.T, disk *storage.Disk, file, object, other string)) {
	disk, err := storage.OpenDisk(l.path("storage"), zap.NewNop())
	if err != nil {
		l.t.Fatal(err)
	}
	defer disk.Close()
	other := "certs/a.test"
	if object == other {
		other = "failures/refused.test"
	}
	do(l.t, disk, l.fileOf(object), object, other)
}

// fileOf finds the file of an object by its header.
func (l *lodge) fileOf(object string) (found string) {
	_ = filepath.WalkDir(l.path("storage/objects"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			data, _ := os.ReadFile(path)
			if header, _, _ := strings.Cut(string(data), "\n"); strings.HasSuffix(header, " "+object) {
				found = path
			}
		}
		return nil
	})
	if found == "" {
		l.t.Fatalf("%s has no file", object)
	}
	return found
}
