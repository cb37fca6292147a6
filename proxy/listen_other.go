//go:build !unix

package proxy

import (
	"errors"
	"syscall"
)

func reusePort(string, string, syscall.RawConn) error { return errors.ErrUnsupported }
