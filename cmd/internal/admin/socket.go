package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// A socket is a unix socket that this process alone listens on, with the lock that says so.
type socket struct {
	*net.UnixListener
	lock *os.File
	log  *zap.Logger
}

// socketPath takes "unix:///path".
func socketPath(listen string) (string, error) {
	path, ok := strings.CutPrefix(listen, "unix://")
	if !ok || !filepath.IsAbs(path) {
		return "", fmt.Errorf(`admin: %q is no socket: write "unix:///run/gatelodge/admin.sock"`, listen)
	}
	return path, nil
}

// listen makes the folder if it is not there, and takes the place of a process that died. A process that lives is an error.
func listen(path string, log *zap.Logger) (*socket, error) {
	if err := makeFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	lock, err := claim(path)
	if err != nil {
		return nil, err
	}
	l, err := bind(path)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &socket{UnixListener: l, lock: lock, log: log}, nil
}

// makeFolder makes the folder with mode 0700. One that is there already stays as it is, but others must not be able to put a
// socket of their own in our place.
func makeFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the admin socket's folder: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("make the admin socket's folder: %w", err)
	}
	if info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("everybody may write to %s, so the admin socket cannot be there: take a folder of its own", dir)
	}
	return nil
}

// claim takes the lock beside the socket. Two processes that start at once would otherwise each remove the other's socket as stale. The file stays: to remove a lock
// file is a race of its own.
func claim(path string) (*os.File, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the admin socket: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock the admin socket %s: another gatelodge has it; stop it or set another admin.listen", path)
	}
	return lock, nil
}

func bind(path string) (*net.UnixListener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on the admin socket: %w", err)
	}
	// Until here the mode is what the umask makes it; peers are checked in any case.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on the admin socket: %w", err), l.Close())
	}
	return l, nil
}

// removeStale removes a socket on which nobody listens any more.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen on the admin socket: %w", err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("listen on the admin socket: %s is there and is no socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("listen on the admin socket: somebody answers at %s; stop it or set another admin.listen", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("listen on the admin socket: look who is there: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the admin socket of a process that died: %w", err)
	}
	return nil
}

// Accept returns the next connection of the same user or root. Others are closed without a word.
func (s *socket) Accept() (net.Conn, error) {
	for {
		c, err := s.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if err == nil && permitted(uid, os.Geteuid()) {
			return c, nil
		}
		s.log.Warn("admin connection refused", zap.Int("uid", uid), zap.Error(err))
		c.Close()
	}
}

// permitted reports whether a peer may do what this process can: the same user and root could anyway.
func permitted(peer, me int) bool { return peer == me || peer == 0 }

// Close removes the socket and gives the lock up.
func (s *socket) Close() error {
	return errors.Join(s.UnixListener.Close(), s.lock.Close())
}
