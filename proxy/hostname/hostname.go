// Package hostname is the one place that decides whether two spellings are the same host.
//
// SNI, Host, :authority, configuration and certificate names all pass through here, once, so that the lookup which
// chose the TLS policy and the lookup which routes the request cannot disagree (facts/edge.md, classes to design out).
package hostname

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// ErrInvalid is wrapped by every error of this package.
var ErrInvalid = errors.New("not a host name")

// Normalize returns the canonical form of an ASCII host name or IP address without port: lower case, one trailing
// dot removed, IP addresses in their shortest form without brackets. It takes SNI and Host values from strangers, so it accepts only what RFC 1123 §2.1 and
// RFC 5891 A-labels allow (letters, digits, hyphens, and underscores, which real Host values have), at most 253 bytes.
func Normalize(s string) (string, error) {
	if s == "" {
		return "", fmt.Errorf("%w: empty", ErrInvalid)
	}
	if canonical(s) { // the usual case allocates nothing
		return s, nil
	}
	if ip, ok := parseIP(s); ok {
		return ip.String(), nil
	}
	host := strings.ToLower(strings.TrimSuffix(s, "."))
	if err := checkName(host); err != nil {
		return "", err
	}
	return host, nil
}

// FromConfig returns the canonical form of a host that a person wrote: as Normalize, but Unicode is turned into A-labels (RFC 5891) and
// a single leading "*." or a bare "*" is kept.
func FromConfig(s string) (string, error) {
	if s == "*" {
		return s, nil
	}
	rest, wild := strings.CutPrefix(s, "*.")
	ascii := rest
	if !isASCII(rest) {
		var err error
		if ascii, err = idna.Lookup.ToASCII(rest); err != nil {
			return "", fmt.Errorf("%w: %q: %v", ErrInvalid, s, err)
		}
	}
	host, err := Normalize(ascii)
	if err != nil {
		return "", err
	}
	if wild {
		if _, ok := parseIP(host); ok {
			return "", fmt.Errorf("%w: %q: a wildcard cannot stand before an address", ErrInvalid, s)
		}
		return "*." + host, nil
	}
	return host, nil
}

// Split separates a Host header field or :authority into host and port and normalises the host. The port is empty or
// 1 to 5 digits (RFC 3986 §3.2.3). User information, lists, paths and anything after "]" but a port are refused.
func Split(authority string) (host, port string, err error) {
	host = authority
	if strings.HasPrefix(authority, "[") {
		end := strings.IndexByte(authority, ']')
		if end < 0 {
			return "", "", fmt.Errorf("%w: %q: missing ]", ErrInvalid, authority)
		}
		host, port = authority[:end+1], authority[end+1:]
		if ip, ok := parseIP(host); !ok || !ip.Is6() {
			return "", "", fmt.Errorf("%w: %q", ErrInvalid, authority)
		}
	} else if i := strings.IndexByte(authority, ':'); i >= 0 {
		host, port = authority[:i], authority[i:]
	}
	if port != "" {
		if port, err = checkPort(port); err != nil {
			return "", "", fmt.Errorf("%w: %q: %v", ErrInvalid, authority, err)
		}
	}
	host, err = Normalize(host)
	return host, port, err
}

// Wildcard returns the wildcard that covers exactly one label more: "*.example.com" for "www.example.com" (RFC 6125 §6.4.3). It
// reports false for addresses, single labels and wildcards themselves.
func Wildcard(host string) (string, bool) {
	i := strings.IndexByte(host, '.')
	if i <= 0 || i == len(host)-1 || host[0] == '*' {
		return "", false
	}
	if _, ok := parseIP(host); ok {
		return "", false
	}
	return "*" + host[i:], true
}

// Match reports whether the pattern of a person's list covers the canonical host: the same name, "*.example.com" for any name below
// example.com however deep, or "*" for all.
func Match(pattern, host string) bool {
	if pattern == "*" || pattern == host {
		return true
	}
	suffix, ok := strings.CutPrefix(pattern, "*")
	return ok && len(host) > len(suffix) && strings.HasSuffix(host, suffix)
}

// IsIP reports whether the canonical host is an IP address.
func IsIP(host string) bool { _, ok := parseIP(host); return ok }

// canonical reports whether s is a lower-case LDH name already and surely no address.
func canonical(s string) bool {
	letter, label := false, 0
	if len(s) > 253 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z':
			letter = true
		case c >= '0' && c <= '9':
		case c == '-' && label > 0 && i+1 < len(s) && s[i+1] != '.':
		case c == '.' && label > 0 && i+1 < len(s):
			label, letter = 0, false
			continue
		default:
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	return letter // an all-numeric last label could be an address: take the slow way
}

func checkName(host string) error {
	if len(host) == 0 || len(host) > 253 {
		return fmt.Errorf("%w: length %d, allowed are 1 to 253", ErrInvalid, len(host))
	}
	numeric := false
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 {
			return fmt.Errorf("%w: %q has a label of length %d, allowed are 1 to 63", ErrInvalid, host, len(label))
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("%w: label %q begins or ends with a hyphen", ErrInvalid, label)
		}
		numeric = true
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return fmt.Errorf("%w: %q has the byte %q", ErrInvalid, host, c)
			}
			numeric = numeric && c >= '0' && c <= '9'
		}
	}
	if numeric {
		return fmt.Errorf("%w: %q ends in a number but is no address", ErrInvalid, host)
	}
	return nil
}

func checkPort(colonPort string) (string, error) {
	port, ok := strings.CutPrefix(colonPort, ":")
	if !ok {
		return "", fmt.Errorf("%q after the host", colonPort)
	}
	if len(port) > 5 {
		return "", fmt.Errorf("port %q", port)
	}
	n := 0
	for _, c := range []byte(port) {
		if c < '0' || c > '9' {
			return "", fmt.Errorf("port %q", port)
		}
		n = n*10 + int(c-'0')
	}
	if n > 65535 {
		return "", fmt.Errorf("port %q", port)
	}
	return port, nil
}

// parseIP takes "1.2.3.4", "::1" and "[::1]". Zones are refused: they mean nothing to anybody but the sender.
func parseIP(s string) (netip.Addr, bool) {
	if in, ok := strings.CutPrefix(s, "["); ok {
		if in, ok = strings.CutSuffix(in, "]"); !ok {
			return netip.Addr{}, false
		}
		s = in
	}
	ip, err := netip.ParseAddr(s)
	return ip, err == nil && ip.Zone() == ""
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
