package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
)

// Opener opens the sockets that Config names, or takes those that systemd opened (sd_listen_fds(3)). Nothing in it is safe for concurrent use.
type Opener struct {
	// ReusePort lets several processes listen on the same TCP and UDP ports (SO_REUSEPORT); the kernel spreads clients over them.
	ReusePort bool

	passed []*os.File // by systemd; nobody has asked for them yet
}

// NewOpener takes over the sockets that systemd passed to this process, if it passed any. It can be called once in the life of a process.
func NewOpener() *Opener { return &Opener{passed: activation.Files(true)} }

// Unused returns the names of the sockets that systemd passed and nobody asked for, and closes them: connections to them would wait for ever.
func (o *Opener) Unused() []string {
	var names []string
	for _, f := range o.passed {
		names = append(names, f.Name())
		_ = f.Close()
	}
	o.passed = nil
	return names
}

// Sockets are what some addresses opened.
type Sockets struct {
	// Listeners are for Config.HTTPS or Config.HTTP.
	Listeners []net.Listener

	udp []func() (net.PacketConn, error)
	own []*os.File // UDP sockets of systemd
}

// Open listens on the addresses: ":443", "127.0.0.1:80", "unix:///run/web.sock", whose permissions "?mode=0600" sets (0660 without), and "fd:web", all
// sockets that systemd passed under this name (FileDescriptorName=). On error nothing is left open.
func (o *Opener) Open(addrs []string) (_ *Sockets, err error) {
	s := &Sockets{}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	for _, addr := range addrs {
		if name, ok := strings.CutPrefix(addr, "fd:"); ok {
			err = o.take(s, name)
		} else if path, ok := strings.CutPrefix(addr, "unix://"); ok {
			err = s.listenUnix(path)
		} else {
			err = o.listenTCP(s, addr)
		}
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
	}
	return s, nil
}

// ListenQUIC opens the UDP sockets beside the TCP ones, and those that systemd passed under the same names. Unix sockets have none. It is for
// Config.ListenQUIC.
func (s *Sockets) ListenQUIC() ([]net.PacketConn, error) {
	var conns []net.PacketConn
	for _, open := range s.udp {
		c, err := open()
		if err != nil {
			for _, c := range conns {
				_ = c.Close()
			}
			return nil, fmt.Errorf("listen on UDP: %w", err)
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// Close closes the listeners, which a Server does too, and what ListenQUIC needs.
func (s *Sockets) Close() error {
	var errs []error
	for _, l := range s.Listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	for _, f := range s.own {
		errs = append(errs, f.Close())
	}
	s.Listeners, s.own, s.udp = nil, nil, nil
	return errors.Join(errs...)
}

// take gives s the sockets of systemd that have the name.
func (o *Opener) take(s *Sockets, name string) error {
	var rest []*os.File
	taken := 0
	for i, f := range o.passed {
		if f.Name() != name {
			rest = append(rest, f)
			continue
		}
		taken++
		if l, err := net.FileListener(f); err == nil {
			s.Listeners = append(s.Listeners, l)
			_ = f.Close() // l has a descriptor of its own
			continue
		}
		c, err := net.FilePacketConn(f)
		if err != nil {
			o.passed = append(rest, o.passed[i:]...)
			return fmt.Errorf("systemd's socket is neither for streams nor for datagrams: %w", err)
		}
		_ = c.Close() // as f.
		s.own = append(s.own, f)
		s.udp = append(s.udp, func() (net.PacketConn, error) { return net.FilePacketConn(f) })
	}
	o.passed = rest
	if taken == 0 {
		return fmt.Errorf("systemd passed no socket of the name %q (FileDescriptorName= in the .socket unit)", name)
	}
	return nil
}

func (o *Opener) listenTCP(s *Sockets, addr string) error {
	if addr == "" {
		return errors.New("no address")
	}
	cfg := net.ListenConfig{}
	if o.ReusePort {
		cfg.Control = reusePort
	}
	l, err := cfg.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	s.Listeners = append(s.Listeners, l)
	s.udp = append(s.udp, func() (net.PacketConn, error) {
		return cfg.ListenPacket(context.Background(), "udp", l.Addr().String())
	})
	return nil
}

// listenUnix listens on a path. What a process that died left there is removed; a living one's socket is not.
func (s *Sockets) listenUnix(path string) error {
	path, mode, err := unixMode(path)
	if err != nil {
		return err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
		c, err := net.Dial("unix", path)
		if err == nil {
			_ = c.Close()
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			_ = os.Remove(path)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	s.Listeners = append(s.Listeners, l)
	return os.Chmod(path, mode)
}

// unixMode takes "/run/web.sock?mode=0600" apart.
func unixMode(s string) (path string, mode fs.FileMode, err error) {
	path, option, ok := strings.Cut(s, "?")
	if !strings.HasPrefix(path, "/") {
		return "", 0, errors.New(`a unix socket is written "unix:///path"`)
	}
	if !ok {
		return path, 0o660, nil
	}
	digits, ok := strings.CutPrefix(option, "mode=")
	n, err := strconv.ParseUint(digits, 8, 9)
	if !ok || err != nil {
		return "", 0, fmt.Errorf(`%q: permissions are written "?mode=0660"`, option)
	}
	return path, fs.FileMode(n), nil
}
