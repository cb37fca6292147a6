package proxy_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gatelodge/proxy"
	"gatelodge/proxy/proxytest"
)

func TestReadCertificates_NamesFileAndLineOfEveryFault(t *testing.T) {
	good := pemOf(proxytest.NewCA(t)) // ends with a newline
	lines := strings.Count(good, "\n")
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")}))
	file := filepath.Join(t.TempDir(), "roots.pem")
	if _, err := proxy.ReadCertificates(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	for _, c := range []struct {
		why, text string
		good      int
		want      []string // of the error, with file and line
	}{
		{"certificates and comments", "# ours\n" + good + "\n# theirs\n" + good, 2, nil},
		{"nothing", "", 0, []string{": there is no certificate"}},
		{"text", "hello\n", 0, []string{": there is no certificate"}},
		{"a key after a certificate", good + key, 1, []string{":" + strconv.Itoa(lines+1) + `: this is a "PRIVATE KEY"`}},
		{"two faults around a certificate", "\n-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n" + good + good[:len(good)-40], 1,
			[]string{":2: this is no valid certificate", ":" + strconv.Itoa(lines+5) + ": this PEM block is damaged"}},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		certs, err := proxy.ReadCertificates(file)
		if len(certs) != c.good || (err != nil) != (c.want != nil) {
			t.Errorf("%s: %d certificates, %v", c.why, len(certs), err)
		}
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), file+want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %v, want %s", c.why, err, want)
			}
		}
	}
}

func FuzzReadCertificates(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN -----BEGIN CERTIFICATE-----\n\n"))
	f.Add([]byte("# roots\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(t.TempDir(), "roots.pem")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		certs, err := proxy.ReadCertificates(file)
		if begun := bytes.Count(text, []byte("-----BEGIN ")); err == nil && (len(certs) == 0 || len(certs) > begun) {
			t.Fatalf("%d certificates of %d blocks", len(certs), begun)
		}
	})
}
