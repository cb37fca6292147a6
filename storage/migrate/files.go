package migrate

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxFile bounds a certificate's, key's or settings' file. Real ones have a few KB.
const maxFile = 1 << 20

// readFile reads a small file.
func readFile(path string) ([]byte, error) { return readUpTo(path, maxFile) }

func readUpTo(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, err
}

// Open returns the source of a kind, as the command line names it: "caddy", "certbot", "acme.json" or "pem".
func Open(kind, path string) (Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	path = filepath.Clean(path)
	switch {
	case kind == "caddy" && info.IsDir():
		return Caddy(path)
	case kind == "certbot" && info.IsDir():
		return Certbot(path)
	case kind == "acme.json" && !info.IsDir():
		return AcmeJSON(path), nil
	case kind == "pem":
		return PEM(path), nil
	case kind == "caddy" || kind == "certbot":
		return nil, fmt.Errorf("%s is not a folder", path)
	case kind == "acme.json":
		return nil, fmt.Errorf("%s is a folder, not a file", path)
	}
	return nil, errors.New(`the kind of source must be "caddy", "certbot", "acme.json" or "pem"`)
}
