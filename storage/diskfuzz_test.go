package storage

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

func FuzzParseObject(f *testing.F) {
	h := newHeader("certs/a.example", []byte("payload"))
	file := h.String() + "payload"
	f.Add([]byte(file))
	f.Add([]byte(file[:len(file)-1]))
	f.Add([]byte(strings.Repeat("x", 2*maxHeader)))
	f.Add([]byte(objectIntro + "\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, file []byte) {
		h, data, err := parseObject(file)
		if err != nil {
			if data != nil {
				t.Error("bytes beside an error")
			}
			return
		}
		if h.version == "" || CheckName(h.name) != nil {
			t.Errorf("a good header is %+v", h)
		}
		if again := append([]byte(h.String()), data...); !bytes.Equal(again, file) {
			t.Errorf("written again it is %q, not %q", again, file)
		}
		if len(data) > 0 {
			file[len(file)-1] ^= 1
			if _, _, err := parseObject(file); err == nil {
				t.Error("a flipped bit was not noticed")
			}
		}
	})
}

func FuzzObjectPath(f *testing.F) {
	f.Add("certs/a.example", "certs/b.example")
	f.Add("a", "a/b")
	f.Add("acme/le/challenges/"+strings.Repeat("x", 250), "acme/le/challenges/"+strings.Repeat("x", 251))
	f.Add("../../etc/passwd", "certs/..")
	d := &Disk{root: "/root"}
	f.Fuzz(func(t *testing.T, a, b string) {
		if CheckName(a) != nil || CheckName(b) != nil {
			return
		}
		path := d.objectPath(a)
		if (path == d.objectPath(b)) != (a == b) {
			t.Errorf("%q and %q lie at %s", a, b, path)
		}
		first, _, _ := strings.Cut(a, "/")
		rel, err := filepath.Rel("/root/objects/"+first, path)
		if err != nil || strings.Count(rel, "/") != 2 || len(filepath.Base(path)) > maxSegment || strings.HasPrefix(filepath.Base(path), ".") {
			t.Errorf("%q lies at %s", a, path)
		}
		if name, ok := nameOf(first, filepath.Base(path)); ok && name != a {
			t.Errorf("%q is listed as %q", a, name)
		}
	})
}
