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
	"golang.org/x/sys/unix"
)

// Opener opens the sockets that Config names, or takes those that systemd opened (sd_listen_fds(3)), or the process before this one. Nothing in it is safe for
// concurrent use.
type Opener struct {
	// ReusePort lets several processes listen on the same TCP and UDP ports (SO_REUSEPORT); the kernel spreads clients over them.
	ReusePort bool

	passed    []*os.File // by systemd; nobody has asked for them yet
	inherited []*os.File // from the process before, by their addresses; nobody has asked for them yet
}

// NewOpener takes over the sockets that systemd passed to this process, if it passed any, and those of the process before, whose names are their
// Passed.Address. It can be called once in the life of a process.
func NewOpener(inherited []*os.File) *Opener {
	return &Opener{passed: activation.Files(true), inherited: inherited}
}

// Unused returns the names of the sockets that systemd passed and nobody asked for, and closes them: connections to them would wait for ever. So it does with those of
// the process before, whose configuration may have been another one.
func (o *Opener) Unused() []string {
	var names []string
	for _, f := range o.passed {
		names = append(names, f.Name())
		_ = f.Close()
	}
	for _, f := range o.inherited {
		_ = f.Close()
	}
	o.passed, o.inherited = nil, nil
	return names
}

// Sockets are what some addresses opened.
type Sockets struct {
	// Listeners are for Config.HTTPS or Config.HTTP.
	Listeners []net.Listener

	addresses []string // of the Listeners, as they were asked for
	udp       []udpPort
}

// udpPort is where HTTP/3 listens while it is on.
type udpPort struct {
	address string   // as it was asked for
	held    *os.File // the socket, if it stays open while HTTP/3 is off; else nil
	open    func() (net.PacketConn, error)
	now     net.PacketConn // what open has returned last
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
		if inherited, bad := o.inherit(s, addr); inherited || bad != nil {
			err = bad
		} else if name, ok := strings.CutPrefix(addr, "fd:"); ok {
			err = o.activated(s, addr, name)
		} else if path, ok := strings.CutPrefix(addr, "unix://"); ok {
			err = s.listenUnix(addr, path)
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
	for i := range s.udp {
		c, err := s.udp[i].open()
		if err != nil {
			for _, c := range conns {
				_ = c.Close()
			}
			return nil, fmt.Errorf("listen on UDP: %w", err)
		}
		s.udp[i].now = c
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
	for _, u := range s.udp {
		if u.held != nil {
			errs = append(errs, u.held.Close())
		}
	}
	s.Listeners, s.addresses, s.udp = nil, nil, nil
	return errors.Join(errs...)
}

// Passed is a socket for the process that comes after this one.
type Passed struct {
	Address string   // as it was asked for
	File    *os.File // a duplicate
}

// Pass duplicates the sockets, those of HTTP/3 if it is on. The process that gets them gives them to NewOpener. Nothing changes here.
func (s *Sockets) Pass() (passed []Passed, err error) {
	pass := func(address string, socket any) {
		conn, ok := socket.(syscall.Conn)
		if !ok || err != nil {
			return
		}
		dup, bad := duplicate(conn)
		switch {
		case bad == nil:
			passed = append(passed, Passed{address, dup})
		case !errors.Is(bad, net.ErrClosed): // HTTP/3 is off
			err = bad
		}
	}
	for i, l := range s.Listeners {
		pass(s.addresses[i], l)
	}
	for _, u := range s.udp {
		if u.held != nil {
			c, bad := net.FilePacketConn(u.held)
			if err = errors.Join(err, bad); bad == nil {
				pass(u.address, c)
				_ = c.Close()
			}
		} else if u.now != nil {
			pass(u.address, u.now)
		}
	}
	if err != nil {
		for _, p := range passed {
			_ = p.File.Close()
		}
		return nil, fmt.Errorf("duplicate a socket: %w", err)
	}
	return passed, nil
}

// duplicate is File of net's types, but for a file whose Fd, which exec.Cmd asks for, leaves the socket as it is. That of net makes it a blocking one, for us as well:
// then nothing interrupts an Accept.
func duplicate(socket syscall.Conn) (*os.File, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	var f *os.File
	var failed error
	err = raw.Control(func(fd uintptr) {
		var dup int
		if dup, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); failed == nil {
			f = os.NewFile(uintptr(dup), "socket")
		}
	})
	return f, errors.Join(err, failed)
}

// Leave lets the files of unix sockets stay when these are closed: another process listens there now.
func (s *Sockets) Leave() {
	for _, l := range s.Listeners {
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
	}
}

// inherit gives s the sockets of the process before that were opened for the address, and reports whether there were any.
func (o *Opener) inherit(s *Sockets, addr string) (bool, error) {
	listeners, ports := len(s.Listeners), len(s.udp)
	taken, err := s.take(&o.inherited, addr, addr)
	if err != nil || !taken {
		return false, err
	}
	for _, l := range s.Listeners[listeners:] {
		switch l := l.(type) {
		case *net.UnixListener:
			l.SetUnlinkOnClose(strings.HasPrefix(addr, "unix://"))
		case *net.TCPListener:
			if len(s.udp) == ports && !strings.HasPrefix(addr, "fd:") { // HTTP/3 was off
				s.udp = append(s.udp, o.beside(addr, l))
			}
		}
	}
	return true, nil
}

// activated gives s the sockets of systemd that have the name.
func (o *Opener) activated(s *Sockets, addr, name string) error {
	taken, err := s.take(&o.passed, addr, name)
	if err == nil && !taken {
		err = fmt.Errorf("systemd passed no socket of the name %q (FileDescriptorName= in the .socket unit)", name)
	}
	return err
}

// take moves the files of the name from the list to s, where they are sockets of the address. It reports whether there were any.
func (s *Sockets) take(from *[]*os.File, addr, name string) (taken bool, err error) {
	var rest []*os.File
	for i, f := range *from {
		if f.Name() != name {
			rest = append(rest, f)
			continue
		}
		taken = true
		if l, err := net.FileListener(f); err == nil {
			s.listen(addr, l)
			_ = f.Close() // l has a descriptor of its own
			continue
		}
		c, err := net.FilePacketConn(f)
		if err != nil {
			*from = append(rest, (*from)[i:]...)
			return false, fmt.Errorf("the socket that was passed is neither for streams nor for datagrams: %w", err)
		}
		_ = c.Close() // as f.
		s.udp = append(s.udp, udpPort{address: addr, held: f, open: func() (net.PacketConn, error) { return net.FilePacketConn(f) }})
	}
	*from = rest
	return taken, nil
}

func (s *Sockets) listen(addr string, l net.Listener) {
	s.Listeners, s.addresses = append(s.Listeners, l), append(s.addresses, addr)
}

func (o *Opener) listenTCP(s *Sockets, addr string) error {
	if addr == "" {
		return errors.New("no address")
	}
	cfg := o.config()
	l, err := cfg.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	s.listen(addr, l)
	s.udp = append(s.udp, o.beside(addr, l))
	return nil
}

// beside is the UDP port with the number of the listener's.
func (o *Opener) beside(addr string, l net.Listener) udpPort {
	cfg := o.config()
	return udpPort{address: addr, open: func() (net.PacketConn, error) {
		return cfg.ListenPacket(context.Background(), "udp", l.Addr().String())
	}}
}

func (o *Opener) config() net.ListenConfig {
	if o.ReusePort {
		return net.ListenConfig{Control: reusePort}
	}
	return net.ListenConfig{}
}

// listenUnix listens on a path. What a process that died left there is removed; a living one's socket is not.
func (s *Sockets) listenUnix(addr, path string) error {
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
	s.listen(addr, l)
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
