package main

import (
	"testing"

	"go.uber.org/zap/zaptest"

	"gatelodge/acmeclient/devca"
	"gatelodge/storage"
)

func TestProgram_PutsADamagedCertificateAsideAndOrdersAnother(t *testing.T) {
	l := newLodge(t, devca.Config{})
	l.configure(l.ca.DirectoryURL(), "")
	l.start()
	first, err := l.handshake("hurt.test")
	if err != nil {
		t.Fatal(err)
	}
	l.halt()
	disk, err := storage.OpenDisk(l.path("storage"), zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if _, err := disk.Put(t.Context(), "certs/hurt.test", []byte("no bundle")); err != nil {
		t.Fatal(err)
	}
	l.start()
	second, err := l.handshake("hurt.test")
	if err != nil {
		t.Fatal(err)
	}
	if second.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("the damaged certificate was served")
	}
	if kept, _, err := disk.Get(t.Context(), "quarantine/certs/hurt.test"); err != nil || string(kept) != "no bundle" {
		t.Errorf("quarantine has %q, %v", kept, err)
	}
}
