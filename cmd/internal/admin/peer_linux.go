package admin

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerUID returns the user at the other end, as the kernel noted it when the connection (or, for a client, the listener) was made; see unix(7), SO_PEERCRED. It is -1
// with an error.
func peerUID(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("read peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return -1, fmt.Errorf("read peer credentials: %w", err)
	}
	if credErr != nil {
		return -1, fmt.Errorf("read peer credentials: %w", credErr)
	}
	return int(cred.Uid), nil
}
