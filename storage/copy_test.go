package storage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gatelodge/storage"
	"gatelodge/storage/storagetest"
)

func copyAll(t *testing.T, src, dst storage.Store, o storage.CopyOptions) *storage.CopyReport {
	t.Helper()
	r, err := storage.Copy(t.Context(), src, dst, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCopy_BringsEverythingOnceAndSealsItAnew(t *testing.T) {
	below := storage.NewMemory()
	src, dst := openDisk(t, t.TempDir()), sealed(t, below, true, sealKey("k"))
	const names = 1100
	for i := range names {
		put(t, src, fmt.Sprintf("failures/n%d.example", i), fmt.Sprint(i))
	}
	put(t, src, "certs/a.example", string(encode(t, newBundle(t, newKey(t), "a.example"))))
	put(t, src, "acme/le/account", "the account")
	put(t, src, "acme/challenges/00", "of no use elsewhere")

	if r := copyAll(t, src, dst, storage.CopyOptions{DryRun: true}); r.Created != names+2 {
		t.Errorf("dry run:\n%v", r)
	}
	if all, _ := below.List(t.Context(), "", "", 0); len(all) != 1 {
		t.Errorf("a dry run wrote %q", all)
	}
	if r := copyAll(t, src, dst, storage.CopyOptions{}); r.Created != names+2 || r.Same+r.Replaced != 0 {
		t.Errorf("first run:\n%v", r)
	}
	if r := copyAll(t, src, dst, storage.CopyOptions{}); r.Same != names+2 || r.Created+r.Replaced != 0 {
		t.Errorf("second run:\n%v", r)
	}
	if got, _ := get(t, dst, "acme/le/account"); got != "the account" {
		t.Errorf("account: %q", got)
	}
	if raw, _ := get(t, below, "acme/le/account"); strings.Contains(raw, "the account") {
		t.Error("what came is not sealed")
	}
	if _, _, err := dst.Get(t.Context(), "acme/challenges/00"); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("a challenge was copied: %v", err)
	}
}

func TestCopy_ReplacesOnlyOlderCertificates(t *testing.T) {
	src, dst := storage.NewMemory(), storage.NewMemory()
	older := newBundle(t, newKey(t), "a.example")
	newer := renewed(t, older)
	put(t, src, "certs/newer-here.example", string(encode(t, newer)))
	put(t, dst, "certs/newer-here.example", string(encode(t, older)))
	put(t, src, "certs/newer-there.example", string(encode(t, older)))
	put(t, dst, "certs/newer-there.example", string(encode(t, newer)))
	put(t, src, "index/00", "mine")
	put(t, dst, "index/00", "theirs")
	put(t, src, "certs/odd.example", "no bundle")
	put(t, dst, "certs/odd.example", "none either")

	r := copyAll(t, src, dst, storage.CopyOptions{})
	if r.Replaced != 1 || r.Newer != 1 || fmt.Sprint(r.Differ) != "[certs/odd.example index/00]" {
		t.Errorf("report:\n%v", r)
	}
	for _, name := range []string{"certs/newer-here.example", "certs/newer-there.example"} {
		if got, _ := get(t, dst, name); got != string(encode(t, newer)) {
			t.Errorf("%s is not the newer one", name)
		}
	}
	if got, _ := get(t, dst, "index/00"); got != "theirs" {
		t.Errorf("index: %q", got)
	}
	if !strings.Contains(r.String(), "differs, left as it is: index/00") {
		t.Errorf("report:\n%s", r)
	}
	if r := copyAll(t, src, dst, storage.CopyOptions{Replace: true, Prefix: "index/"}); r.Replaced != 1 || r.Same != 0 {
		t.Errorf("replace:\n%v", r)
	}
	if got, _ := get(t, dst, "index/00"); got != "mine" {
		t.Errorf("index: %q", got)
	}
}

// renewed returns the bundle with a later end.
func renewed(t *testing.T, b *storage.Bundle) *storage.Bundle {
	t.Helper()
	next := newBundle(t, newKey(t), b.Names...)
	next.NotAfter = b.NotAfter.Add(60 * 24 * time.Hour)
	return next
}

func TestCopy_ReportsDamageAndEndsWithAnOutage(t *testing.T) {
	memory, dst := storage.NewMemory(), storage.NewMemory()
	src := sealed(t, memory, false, sealKey("k"))
	put(t, src, "certs/a.example", "a")
	put(t, src, "certs/b.example", "b")
	raw, _ := get(t, memory, "certs/a.example")
	put(t, memory, "certs/a.example", raw[:len(raw)-1])
	if r := copyAll(t, src, dst, storage.CopyOptions{}); r.Created != 1 || fmt.Sprint(r.Damaged) != "[certs/a.example]" {
		t.Errorf("report:\n%v", r)
	}
	faulty := storagetest.NewFaulty(storage.NewMemory(), storagetest.Fault{Op: storagetest.PutIf})
	if _, err := storage.Copy(t.Context(), src, faulty, storage.CopyOptions{}); !errors.Is(err, storagetest.ErrInjected) {
		t.Errorf("outage: %v", err)
	}
}

func TestCopy_TellsOfEveryObjectThatIsThereAndLeavesWhatBelongsToOneStore(t *testing.T) {
	src, dst := storage.NewMemory(), storage.NewMemory()
	older := newBundle(t, newKey(t), "a.example")
	newer := renewed(t, older)
	put(t, src, "certs/a.example", string(encode(t, older)))
	put(t, dst, "certs/a.example", string(encode(t, newer)))
	put(t, src, "certs/b.example", string(encode(t, newBundle(t, newKey(t), "b.example"))))
	put(t, src, "index/07", "of the source")
	put(t, dst, "index/07", "of the destination")
	told := map[string]string{}
	o := storage.CopyOptions{
		Leave:  func(name string) bool { return strings.HasPrefix(name, "index/") },
		Stored: func(_ context.Context, name string, data []byte) error { told[name] = string(data); return nil },
		DryRun: true,
	}
	if copyAll(t, src, dst, o); len(told) > 0 {
		t.Errorf("a dry run told of %v", told)
	}
	o.DryRun = false
	for range 2 {
		clear(told)
		if r := copyAll(t, src, dst, o); len(r.Differ) > 0 {
			t.Errorf("differ: %v", r.Differ)
		}
		if len(told) != 2 || told["certs/a.example"] != string(encode(t, newer)) || told["certs/b.example"] == "" {
			t.Errorf("told of %v", told)
		}
	}
	if got, _ := get(t, dst, "index/07"); got != "of the destination" {
		t.Errorf("index: %q", got)
	}
	broken := errors.New("the index is full")
	o.Stored = func(context.Context, string, []byte) error { return broken }
	if _, err := storage.Copy(t.Context(), src, dst, o); !errors.Is(err, broken) {
		t.Errorf("copy ended with %v", err)
	}
}
