package storage

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A witness lets the processes of one host know of each other's death, so that what a killed process held in a bucket is free at once and not a
// lease later. Each process holds a file of the folder locked for as long as it lives; the kernel lets go when it dies, however it dies, and not while it merely
// stands still.
type witness struct {
	dir  string
	host string   // names the folder on this boot of this machine: a copy of the folder elsewhere proves nothing
	own  string   // name of our file
	file *os.File // locked
}

const witnessSuffix = ".alive"

// openWitness makes the folder if it is missing, and removes the files of the dead.
func openWitness(dir string) (*witness, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of living processes: %w", err)
	}
	host, err := folderIdentity(dir)
	if err != nil {
		return nil, fmt.Errorf("identify the folder of living processes: %w", err)
	}
	w := &witness{dir: dir, host: host}
	for w.file == nil { // a sweep by another process can hit a file between its making and its locking
		w.own = rand.Text()
		if err := w.lockOwn(); err != nil {
			return nil, fmt.Errorf("lock a file in the folder of living processes: %w", err)
		}
	}
	w.sweep()
	return w, nil
}

// folderIdentity is the same for all processes that see the same folder on the same boot of the same kernel, and for no others.
func folderIdentity(dir string) (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", errors.ErrUnsupported
	}
	return fmt.Sprintf("%s-%x-%x", strings.TrimSpace(string(boot)), stat.Dev, stat.Ino), nil
}

// lockOwn leaves w.file nil if a sweep was faster.
func (w *witness) lockOwn() error {
	f, err := os.OpenFile(w.path(w.own), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil
		}
		return err
	}
	if _, err := os.Stat(w.path(w.own)); err != nil {
		return f.Close()
	}
	w.file = f
	return nil
}

func (w *witness) path(own string) string { return filepath.Join(w.dir, own+witnessSuffix) }

// name is what others find us by.
func (w *witness) name() string {
	if w == nil {
		return ""
	}
	return w.host + "/" + w.own
}

// sawDie reports whether the process of that name is dead for certain. Of processes on other hosts, or before the last boot, nothing is known.
func (w *witness) sawDie(name string) bool {
	if w == nil {
		return false
	}
	own, ok := strings.CutPrefix(name, w.host+"/")
	if !ok || own == "" || own == w.own || strings.ContainsAny(own, `/\.`) {
		return false
	}
	f, err := os.OpenFile(w.path(own), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true // it was removed by itself at its end, or by one who had its lock
	}
	if err != nil {
		return false
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// sweep removes the files of the dead. What cannot be removed costs nothing.
func (w *witness) sweep() {
	files, _ := filepath.Glob(filepath.Join(w.dir, "*"+witnessSuffix))
	for _, path := range files {
		own := strings.TrimSuffix(filepath.Base(path), witnessSuffix)
		if w.sawDie(w.host + "/" + own) {
			_ = os.Remove(path)
		}
	}
}

func (w *witness) close() error {
	if w == nil {
		return nil
	}
	return errors.Join(os.Remove(w.path(w.own)), w.file.Close())
}
