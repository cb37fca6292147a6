package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Every step of every change is made to fail, in each of these ways; then the whole disk is looked at, by the same process and by the next.
var faultKinds = []struct {
	name string
	step func(op, path string, do func() error) error
}{
	{"failed", func(string, string, func() error) error { return syscall.EIO }},
	{"failed but persisted", func(_, _ string, do func() error) error { return errors.Join(do(), syscall.EIO) }},
	{"half written, no space", func(op, path string, do func() error) error {
		if err := do(); err != nil {
			return err
		}
		if info, err := os.Stat(path); err == nil && op == "write" {
			if err := os.Truncate(path, info.Size()/2); err != nil {
				return err
			}
		}
		return syscall.ENOSPC
	}},
	{"permission", func(string, string, func() error) error { return fs.ErrPermission }},
}

const faultName = "certs/a.example"

// changes are what can happen to the object, which is "old" or absent before. They say what it may be after an error, too.
var changes = []struct {
	name   string
	exists bool
	do     func(t *testing.T, d *Disk) error
	after  string // its bytes when all went well; empty: absent
}{
	{"first Put", false, func(t *testing.T, d *Disk) error { _, err := d.Put(t.Context(), faultName, []byte("new")); return err }, "new"},
	{"Put over it", true, func(t *testing.T, d *Disk) error { _, err := d.Put(t.Context(), faultName, []byte("new")); return err }, "new"},
	{"first PutIf", false, func(t *testing.T, d *Disk) error {
		_, err := d.PutIf(t.Context(), faultName, []byte("new"), "")
		return err
	}, "new"},
	{"PutIf over it", true, func(t *testing.T, d *Disk) error {
		_, v, err := d.Get(t.Context(), faultName)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.PutIf(t.Context(), faultName, []byte("new"), v)
		return err
	}, "new"},
	{"Delete", true, func(t *testing.T, d *Disk) error { return d.Delete(t.Context(), faultName) }, ""},
	{"Lease", true, func(t *testing.T, d *Disk) error {
		l, err := d.Lease(t.Context(), faultName)
		if err != nil {
			return err
		}
		return l.Release(t.Context())
	}, "old"},
}

// newFaultDisk opens a disk with the object as it is before a change.
func newFaultDisk(t *testing.T, exists bool) *Disk {
	t.Helper()
	dir := t.TempDir()
	d := reopen(t, dir)
	if exists {
		if _, err := d.Put(t.Context(), faultName, []byte("old")); err != nil {
			t.Fatal(err)
		}
		d.forgetFolder(filepath.Dir(d.objectPath(faultName))) // so that all steps are made
	}
	return d
}

func reopen(t *testing.T, dir string) *Disk {
	t.Helper()
	d, err := OpenDisk(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// record notes the steps from now on.
func record(d *Disk) *[]string {
	var steps []string
	d.step = func(op, _ string, do func() error) error {
		steps = append(steps, op)
		return do()
	}
	return &steps
}

func TestDisk_SyncsBeforeItPromises(t *testing.T) {
	for i, want := range [][]string{
		{"create", "write", "sync", "make folder", "sync folder", "sync folder", "sync folder", "rename", "sync folder"},
		{"create", "write", "sync", "make folder", "sync folder", "sync folder", "sync folder", "rename", "sync folder"},
		{"create", "write", "sync", "make folder", "sync folder", "sync folder", "sync folder", "rename", "sync folder"},
		{"create", "write", "sync", "make folder", "sync folder", "sync folder", "sync folder", "rename", "sync folder"},
		{"remove", "sync folder"},
		{"write", "sync"},
	} {
		d := newFaultDisk(t, changes[i].exists)
		steps := record(d)
		if err := changes[i].do(t, d); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(*steps, want) {
			t.Errorf("%s: steps %q, want %q", changes[i].name, *steps, want)
		}
	}
	d := newFaultDisk(t, true)
	if _, err := d.Put(t.Context(), faultName, nil); err != nil {
		t.Fatal(err)
	}
	steps := record(d)
	if _, err := d.Put(t.Context(), faultName, nil); err != nil || !slices.Equal(*steps, []string{"create", "write", "sync", "rename", "sync folder"}) {
		t.Errorf("Put into a folder known to be durable: %q, %v", *steps, err)
	}
}

func TestDisk_IsWholeAfterAFaultAtEachStep(t *testing.T) {
	for _, change := range changes {
		d := newFaultDisk(t, change.exists)
		steps := record(d)
		if err := change.do(t, d); err != nil {
			t.Fatal(err)
		}
		for at, op := range *steps {
			for _, kind := range faultKinds {
				t.Run(fmt.Sprintf("%s/%d %s/%s", change.name, at, op, kind.name), func(t *testing.T) {
					testFault(t, change.exists, change.after, at, change.do, kind.step)
				})
			}
		}
	}
}

func testFault(t *testing.T, exists bool, after string, at int, do func(*testing.T, *Disk) error, fault func(op, path string, do func() error) error) {
	d := newFaultDisk(t, exists)
	fenceBefore := takeFence(t, d)
	whole := d.step
	n := 0
	d.step = func(op, path string, do func() error) error {
		if n++; n == at+1 {
			return fault(op, path, do)
		}
		return do()
	}
	err := do(t, d)
	d.step = whole
	if err == nil || errors.Is(err, ErrNotExist) || errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), faultName) {
		t.Errorf("error %v", err)
	}
	if _, ok := errors.AsType[*CorruptError](err); ok {
		t.Errorf("a fault of the file system is taken for damage: %v", err)
	}
	allowed := []string{after, ""}
	if exists {
		allowed[1] = "old"
	}
	v := checkWhole(t, d, allowed)
	if err := d.Close(); err != nil {
		t.Error(err)
	}

	next := reopen(t, d.root)
	if is := checkWhole(t, next, allowed); is != v {
		t.Errorf("the next process sees version %q, the one before saw %q", is, v)
	}
	if fence := takeFence(t, next); fence <= fenceBefore {
		t.Errorf("fence %d after %d", fence, fenceBefore)
	}
	if _, err := next.PutIf(t.Context(), faultName, []byte("after"), v); err != nil {
		t.Errorf("write after the fault: %v", err)
	}
}

// checkWhole looks at all there is below the root: the object is one of those allowed, and there is nothing that nobody needs.
func checkWhole(t *testing.T, d *Disk, allowed []string) Version {
	t.Helper()
	data, v, err := d.Get(t.Context(), faultName)
	if err != nil && !errors.Is(err, ErrNotExist) || !slices.Contains(allowed, string(data)) {
		t.Errorf("the object is %q, %v; want one of %q", data, err, allowed)
	}
	var files []string
	err = filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !strings.HasPrefix(path, filepath.Join(d.root, "locks", "objects")) {
			files = append(files, strings.TrimPrefix(path, d.root+"/"))
		}
		return err
	})
	want := []string{"format", "locks/fence"}
	if v != "" {
		want = append(want, strings.TrimPrefix(d.objectPath(faultName), d.root+"/"))
	}
	if !reflect.DeepEqual(files, want) || err != nil {
		t.Errorf("files %q, %v; want %q", files, err, want)
	}
	return v
}

func takeFence(t *testing.T, d *Disk) uint64 {
	t.Helper()
	l, err := d.Lease(t.Context(), "issue/other.example")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(t.Context()); err != nil {
		t.Error(err)
	}
	return l.Fence()
}

// A process that is killed at a step leaves the disk as it is then: a copy taken there is opened by the next.
func TestDisk_IsWholeWhenKilledAtEachStep(t *testing.T) {
	for _, change := range changes {
		d := newFaultDisk(t, change.exists)
		var images []string
		d.step = func(_, _ string, do func() error) error {
			err := do()
			image := filepath.Join(t.TempDir(), "image")
			if err := os.CopyFS(image, os.DirFS(d.root)); err != nil {
				t.Error(err)
			}
			images = append(images, image)
			return err
		}
		if err := change.do(t, d); err != nil {
			t.Fatal(err)
		}
		allowed := []string{change.after, ""}
		if change.exists {
			allowed[1] = "old"
		}
		for _, image := range images {
			checkWhole(t, reopen(t, image), allowed)
		}
	}
}

func TestDisk_SurvivesThatSomebodyRemovesItsFolders(t *testing.T) {
	d := newFaultDisk(t, true)
	if _, err := d.Put(t.Context(), faultName, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(d.root, "objects", "certs")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Put(t.Context(), faultName, []byte("new")); err != nil {
		t.Error(err)
	}
	checkWhole(t, d, []string{"new"})
}

func TestDisk_WritesOneObjectPerNameToBoundedFolders(t *testing.T) {
	d := reopen(t, t.TempDir())
	folders := map[string]int{}
	for i := range 50_000 {
		path := d.objectPath(fmt.Sprintf("certs/shop-%d.example.com", i))
		folders[filepath.Dir(path)]++
		folders[filepath.Dir(filepath.Dir(path))] |= 0
	}
	if n := len(folders); n > 256*16+256 {
		t.Errorf("%d folders", n)
	}
	for folder, n := range folders {
		if n > 50 { // 12 on average: a million names come to some 250
			t.Errorf("%s has %d entries", folder, n)
		}
	}
}
