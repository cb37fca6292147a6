package devca

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// disk is the CA's folder:
//
//	ca.pem             root and intermediate with their keys
//	root.pem           the root alone, to be trusted by hand
//	run.json           how often the CA was started, and where it listened last
//	accounts/ID.json   one per account
//	certs/SERIAL.json  one per issued certificate
//
// Files are 0600 and folders 0700. Each write is a new file, synced and renamed over the old one. A disk with an empty dir keeps nothing.
type disk struct{ dir string }

// run is what a start learns from the one before.
type run struct {
	Starts  int64  `json:"starts"`
	Address string `json:"address,omitempty"`
}

func openDisk(dir string) (disk, error) {
	d := disk{dir}
	if dir == "" {
		return d, nil
	}
	for _, sub := range []string{"", "accounts", "certs"} {
		p := filepath.Join(dir, sub)
		if err := os.MkdirAll(p, 0o700); err != nil {
			return d, fmt.Errorf("make CA folder: %w", err)
		}
		info, err := os.Stat(p)
		if err != nil {
			return d, fmt.Errorf("look at CA folder: %w", err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			return d, fmt.Errorf("CA folder %s is open to others (%v): run chmod 700 on it", p, info.Mode().Perm())
		}
	}
	return d, nil
}

func (d disk) write(name string, data []byte) error {
	if d.dir == "" {
		return nil
	}
	path := filepath.Join(d.dir, name)
	if err := writeDurably(path, data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func writeDurably(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*") // made 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil // the file is in place; only its durability is unknown
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// read answers nil without an error if there is no such file, or no folder at all.
func (d disk) read(name string) ([]byte, error) {
	if d.dir == "" {
		return nil, nil
	}
	data, err := os.ReadFile(filepath.Join(d.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

func (d disk) writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return d.write(name, append(data, '\n'))
}

func (d disk) saveAccount(a *account) error {
	return d.writeJSON("accounts/"+strconv.FormatInt(a.ID, 10)+".json", a)
}

func (d disk) saveCertificate(c *certificate) error {
	return d.writeJSON("certs/"+c.Serial+".json", c)
}

// readAll decodes every record of a folder and sweeps what a crash left behind.
func readAll[T any](d disk, folder string, each func(*T) error) error {
	if d.dir == "" {
		return nil
	}
	entries, err := os.ReadDir(filepath.Join(d.dir, folder))
	if err != nil {
		return fmt.Errorf("list %s: %w", folder, err)
	}
	for _, e := range entries {
		path := filepath.Join(d.dir, folder, e.Name())
		if strings.HasPrefix(e.Name(), ".tmp-") {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("sweep leftover: %w", err)
			}
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read record: %w", err)
		}
		v := new(T)
		if err := json.Unmarshal(data, v); err != nil {
			return fmt.Errorf("decode %s (remove the file to go on without it): %w", path, err)
		}
		if err := each(v); err != nil {
			return fmt.Errorf("use %s (remove the file to go on without it): %w", path, err)
		}
	}
	return nil
}

// loadAuthority reads the CA's keys or, the first time, makes and stores them.
func (d disk) loadAuthority(make func() (*authority, error)) (*authority, error) {
	data, err := d.read("ca.pem")
	if err != nil {
		return nil, fmt.Errorf("read CA keys: %w", err)
	}
	if data != nil {
		a, err := decodeAuthority(data)
		if err != nil {
			return nil, fmt.Errorf("read CA keys %s (remove the folder to start over with a new root): %w", filepath.Join(d.dir, "ca.pem"), err)
		}
		return a, nil
	}
	a, err := make()
	if err != nil {
		return nil, err
	}
	enc, err := a.encode()
	if err != nil {
		return nil, err
	}
	return a, errors.Join(d.write("ca.pem", enc), d.write("root.pem", pemBlock("CERTIFICATE", a.root.Raw)))
}

// begin counts this start.
func (d disk) begin() (run, error) {
	var r run
	data, err := d.read("run.json")
	if err != nil {
		return r, fmt.Errorf("read run.json: %w", err)
	}
	if data != nil {
		if err := json.Unmarshal(data, &r); err != nil {
			return r, fmt.Errorf("decode %s: %w", filepath.Join(d.dir, "run.json"), err)
		}
	}
	r.Starts++
	return r, d.writeJSON("run.json", r)
}
