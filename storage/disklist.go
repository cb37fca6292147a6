package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// List implements Store. Each call walks all objects with the same first segment (two seconds for a million when the kernel has them in memory), since folders are
// in the order of hashes: ask for many names at a time.
func (d *Disk) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, ended(ctx))
	}
	if d.life.Err() != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, errDiskClosed)
	}
	if err := d.look(); err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	p := newPage(prefix, after, limit)
	firsts, err := readFolder(filepath.Join(d.root, "objects"))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	wanted, _, whole := strings.Cut(prefix, "/")
	for _, first := range firsts {
		if whole && first != wanted || !strings.HasPrefix(first, wanted) {
			continue
		}
		if err := d.listFirst(ctx, first, p); err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
	}
	return p.names(), nil
}

// listFirst adds the objects with one first segment.
func (d *Disk) listFirst(ctx context.Context, first string, p *page) error {
	base := filepath.Join(d.root, "objects", first)
	uppers, err := readFolder(base)
	if err != nil {
		return err
	}
	for _, upper := range uppers {
		lowers, err := readFolder(filepath.Join(base, upper))
		if err != nil {
			return err
		}
		for _, lower := range lowers {
			if ctx.Err() != nil {
				return ended(ctx)
			}
			files, err := readFolder(filepath.Join(base, upper, lower))
			if err != nil {
				return err
			}
			for _, file := range files {
				d.listFile(first, filepath.Join(base, upper, lower, file), p)
			}
		}
	}
	return nil
}

// listFile adds the object of a file, if Get would find it there.
func (d *Disk) listFile(first, path string, p *page) {
	name, ok := nameOf(first, filepath.Base(path))
	if !ok {
		if name, ok = nameInside(path); !ok {
			return
		}
	}
	if CheckName(name) == nil && d.objectPath(name) == path {
		p.add(name)
	}
}

// nameInside reads the name of an object from its file.
func nameInside(path string) (string, bool) {
	f, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	head := make([]byte, maxHeader)
	n, _ := f.Read(head)
	line, _, _ := bytes.Cut(head[:n], []byte("\n"))
	h, err := parseHeader(string(line))
	return h.name, err == nil
}

// readFolder returns the entries of a folder. One that is absent, or a file where a folder should be, has none.
func readFolder(path string) ([]string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.IsDir() {
		return nil, err
	}
	return f.Readdirnames(-1)
}
