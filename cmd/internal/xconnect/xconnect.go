// Package xconnect makes net/http offer extended CONNECT over HTTP/2 (RFC 8441), so that browsers open WebSockets on the connection that they have.
//
// net/http reads the switch from the environment while its package is initialized, and main runs later. A package whose dependencies are
// initialized goes in order of import paths (The Go Programming Language Specification, "Program initialization"): this one needs
// os and strings alone, and "gatelodge/..." sorts before "net/http". It is the one init in this program; a test of cmd/gatelodge sees that it comes in time.
package xconnect

import (
	"os"
	"strings"
)

const setting = "http2xconnect"

func init() {
	switch value := os.Getenv("GODEBUG"); {
	case strings.Contains(value, setting): // the operator's word goes before ours
	case value == "":
		_ = os.Setenv("GODEBUG", setting+"=1")
	default:
		_ = os.Setenv("GODEBUG", value+","+setting+"=1")
	}
}
