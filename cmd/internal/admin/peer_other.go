//go:build !linux

package admin

import (
	"errors"
	"net"
)

// peerUID refuses everybody where we do not know how to ask who is there.
func peerUID(*net.UnixConn) (int, error) {
	return -1, errors.New("the admin socket needs Linux: write admin.listen = \"\" to turn it off")
}
