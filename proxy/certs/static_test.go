package certs

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gatelodge/storage/storagetest"
)

// ownFiles writes a new pair for the name and returns the certificate.
func ownFiles(t *testing.T, ca *fakeCA, dir, name string) *x509.Certificate {
	t.Helper()
	key, err := newPendingKey([]string{name}, ecdsaP256, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	issued, err := ca.Issue(t.Context(), &Request{Names: key.Names, CSR: key.CSR})
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "own.pem"), "CERTIFICATE", issued.Chain[0])
	writePEM(t, filepath.Join(dir, "own.key"), "PRIVATE KEY", key.Key)
	cert, err := x509.ParseCertificate(issued.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now() // a bubble's time, so that a change shows however fast it comes
	if err := os.Chtimes(file, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestManager_ServesTheSitesOwnFilesAndReadsThemAgain(t *testing.T) {
	for _, named := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			h := newHouse(t)
			h.log = quiet()
			dir := t.TempDir()
			first := ownFiles(t, h.ca, dir, "own.example.com")
			policy := Policy{Site: "own", CertFile: filepath.Join(dir, "own.pem"), KeyFile: filepath.Join(dir, "own.key")}
			h.set.Lookup = func(string) (Policy, bool) { return policy, true }
			if named {
				h.set.Own = []Policy{policy}
			}
			h.open()
			if !h.must("own.example.com").Equal(first) {
				t.Fatal("not the site's own certificate")
			}
			time.Sleep(time.Minute)
			second := ownFiles(t, h.ca, dir, "own.example.com")
			time.Sleep(fileEvery + time.Second)
			if !h.must("own.example.com").Equal(second) {
				t.Error("not read again")
			}
			time.Sleep(time.Minute)
			writePEM(t, filepath.Join(dir, "own.key"), "PRIVATE KEY", []byte("torn"))
			time.Sleep(fileEvery + time.Second)
			if !h.must("own.example.com").Equal(second) {
				t.Error("a broken file took the good one's place")
			}
			if err := h.m.Apply(h.set); err != nil {
				t.Errorf("reload with a file that broke since: %v", err)
			}
			os.Remove(filepath.Join(dir, "own.key"))
			time.Sleep(time.Minute)
			if !h.must("own.example.com").Equal(second) {
				t.Error("a missing file took the good one's place")
			}
			third := ownFiles(t, h.ca, dir, "own.example.com")
			time.Sleep(fileEvery + time.Second)
			if !h.must("own.example.com").Equal(third) {
				t.Error("not read again after it was mended")
			}
			if s := slices.Collect(h.m.List()); len(s) != 0 {
				t.Errorf("own files are not managed: %+v", s)
			}
			if n := h.store.Count(storagetest.Get, "certs/"); n != 0 {
				t.Errorf("%d reads of storage", n)
			}
		})
	}
}

func TestManager_RefusesToBeginWithBrokenFiles(t *testing.T) {
	h := newHouse(t)
	h.log = quiet()
	h.set.Own = []Policy{{Site: "own", CertFile: "/nonexistent/own.pem", KeyFile: "/nonexistent/own.key"}}
	if _, err := New(Config{Store: h.store, Logger: h.log}, h.set); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("New: %v", err)
	}
	h.set.Own = nil
	h.open()
	h.must("a.example.com")
	h.set.Own = []Policy{{Site: "own", CertFile: "/nonexistent/own.pem", KeyFile: "/nonexistent/own.key"}}
	if err := h.m.Apply(h.set); err == nil {
		t.Error("a reload with missing files succeeded")
	}
	h.must("a.example.com")
}
