package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strings"
)

// ProxyProtocol says from whom we take the header of the PROXY protocol, by which a balancer tells who its client is
// (https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt). The zero value takes it from nobody.
type ProxyProtocol struct {
	// V1 and V2 are the versions that are taken: text and binary.
	V1, V2 bool

	// From are the networks whose connections must begin with the header: there is no guessing, since a client could send one too. Connections from anywhere
	// else have none and are taken for clients' own. Those on a unix socket, which its permissions protect, must begin with it. Required if a version is taken.
	From []netip.Prefix
}

func (p *ProxyProtocol) on() bool { return p.V1 || p.V2 }

func (p *ProxyProtocol) check() error {
	if p.on() && len(p.From) == 0 {
		return errors.New("PROXY protocol without networks that may send it: anybody could say who he is")
	}
	return nil
}

// proxyHeader is what a header says. Without addresses the balancer speaks for itself, as its health checks do.
type proxyHeader struct{ client, server netip.AddrPort }

var (
	errProxyHeader      = errors.New("malformed PROXY protocol header")
	errProxyHeaderShort = errors.New("PROXY protocol header is not complete") // more bytes could make it so
)

const (
	proxyV1Begin = "PROXY "
	proxyV2Begin = "\r\n\r\n\x00\r\nQUIT\n"

	maxProxyV1 = 107     // bytes with the end of the line, by the specification
	maxProxyV2 = 4 << 10 // bytes; the longest real ones carry a client certificate's subject

	v2FixedLen = 16
)

// parse reads the header at the beginning of b and returns its length. It takes nothing looser than the specification has.
func (p *ProxyProtocol) parse(b []byte) (h proxyHeader, n int, err error) {
	switch {
	case p.V2 && begins(b, proxyV2Begin):
		if len(b) < v2FixedLen {
			return h, 0, errProxyHeaderShort
		}
		return parseProxyV2(b)
	case p.V1 && begins(b, proxyV1Begin):
		end := bytes.IndexByte(b[:min(len(b), maxProxyV1)], '\n') + 1
		if end == 0 && len(b) < maxProxyV1 {
			return h, 0, errProxyHeaderShort
		}
		if end < 2 || b[end-2] != '\r' {
			return h, 0, fmt.Errorf("%w: no end of line within %d bytes", errProxyHeader, maxProxyV1)
		}
		if h, err = parseProxyV1(string(b[:end-2])); err != nil {
			return proxyHeader{}, 0, err
		}
		return h, end, nil
	}
	return h, 0, fmt.Errorf("%w: it begins with neither of the versions that are taken", errProxyHeader)
}

// begins reports whether b begins with prefix as far as it goes.
func begins(b []byte, prefix string) bool {
	n := min(len(b), len(prefix))
	return string(b[:n]) == prefix[:n]
}

// parseProxyV1 reads a line of version 1: "PROXY TCP4 192.0.2.1 192.0.2.2 1234 443".
func parseProxyV1(line string) (h proxyHeader, err error) {
	fields := strings.Split(line, " ")
	if len(fields) < 2 {
		return h, fmt.Errorf("%w: %d fields", errProxyHeader, len(fields))
	}
	if fields[1] == "UNKNOWN" { // "the receiver must ignore anything presented before the CRLF is found"
		return h, nil
	}
	if len(fields) != 6 || fields[1] != "TCP4" && fields[1] != "TCP6" {
		return h, fmt.Errorf("%w: %d fields of %q", errProxyHeader, len(fields), fields[1])
	}
	for i, to := range [...]*netip.AddrPort{&h.client, &h.server} {
		addr, err := netip.ParseAddr(fields[2+i])
		if err != nil || addr.Zone() != "" || addr.Is4() != (fields[1] == "TCP4") {
			return proxyHeader{}, fmt.Errorf("%w: %q is no address of %s", errProxyHeader, fields[2+i], fields[1])
		}
		port, ok := proxyPort(fields[4+i])
		if !ok {
			return proxyHeader{}, fmt.Errorf("%w: port %q", errProxyHeader, fields[4+i])
		}
		*to = netip.AddrPortFrom(addr.Unmap(), port)
	}
	return h, nil
}

// proxyPort takes a decimal port without leading zeros.
func proxyPort(s string) (uint16, bool) {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' || i == 5 {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return uint16(n), s != "" && (s[0] != '0' || len(s) == 1) && n <= 65535
}

// parseProxyV2 reads a header of version 2, of which the fixed part is there.
func parseProxyV2(b []byte) (h proxyHeader, n int, err error) {
	version, command, family := b[12]>>4, b[12]&15, b[13]
	n = v2FixedLen + int(binary.BigEndian.Uint16(b[14:]))
	switch {
	case version != 2 || command > 1:
		return h, 0, fmt.Errorf("%w: version and command %#x", errProxyHeader, b[12])
	case n > maxProxyV2:
		return h, 0, fmt.Errorf("%w: %d bytes", errProxyHeader, n)
	case len(b) < n:
		return h, 0, errProxyHeaderShort
	}
	size, ok := v2AddressLen[family]
	if command == 0 { // LOCAL: "the receiver must discard the protocol block including the family"
		return h, n, nil
	}
	if !ok || v2FixedLen+size > n {
		return h, 0, fmt.Errorf("%w: family %#x in %d bytes", errProxyHeader, family, n)
	}
	addresses := b[v2FixedLen : v2FixedLen+size]
	switch family {
	case v2TCP4:
		h.client = v2AddrPort(addresses[0:4], addresses[8:10])
		h.server = v2AddrPort(addresses[4:8], addresses[10:12])
	case v2TCP6:
		h.client = v2AddrPort(addresses[0:16], addresses[32:34])
		h.server = v2AddrPort(addresses[16:32], addresses[34:36])
	}
	if err := checkV2Extensions(b[:n], v2FixedLen+size); err != nil {
		return proxyHeader{}, 0, err
	}
	return h, n, nil
}

// Families of version 2 that a stream can have.
const (
	v2Unspec = 0x00
	v2TCP4   = 0x11
	v2TCP6   = 0x21
	v2Unix   = 0x31
)

// v2AddressLen is never modified.
var v2AddressLen = map[byte]int{v2Unspec: 0, v2TCP4: 12, v2TCP6: 36, v2Unix: 216}

func v2AddrPort(addr, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(addr) // 4 or 16 bytes
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}

const v2CRC32C = 0x03 // PP2_TYPE_CRC32C

// checkV2Extensions walks over what follows the addresses of the header: type, length and value, over and over. A checksum must be right.
func checkV2Extensions(header []byte, at int) error {
	for at < len(header) {
		if at+3 > len(header) {
			return fmt.Errorf("%w: extension cut off", errProxyHeader)
		}
		value, end := at+3, at+3+int(binary.BigEndian.Uint16(header[at+1:]))
		if end > len(header) {
			return fmt.Errorf("%w: extension longer than the header", errProxyHeader)
		}
		if header[at] == v2CRC32C {
			if end-value != 4 || binary.BigEndian.Uint32(header[value:]) != v2Checksum(header, value) {
				return fmt.Errorf("%w: wrong checksum", errProxyHeader)
			}
		}
		at = end
	}
	return nil
}

// v2Checksum is the CRC32c of the header with zeros where the checksum stands.
func v2Checksum(header []byte, at int) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, header[:at])
	sum = crc32.Update(sum, table, make([]byte, 4))
	return crc32.Update(sum, table, header[at+4:])
}

// appendProxyHeader appends the header of version 1 or 2 for a connection between the two. Without addresses it says that they are not known.
func appendProxyHeader(b []byte, version int, client, server netip.AddrPort) []byte {
	known := client.IsValid() && server.IsValid()
	c, s := client.Addr().Unmap(), server.Addr().Unmap()
	if known && c.Is4() != s.Is4() { // one family for both
		c, s = netip.AddrFrom16(c.As16()), netip.AddrFrom16(s.As16())
	}
	if version == 1 {
		if !known {
			return append(b, "PROXY UNKNOWN\r\n"...)
		}
		family := "TCP6"
		if c.Is4() {
			family = "TCP4"
		}
		return fmt.Appendf(b, "PROXY %s %s %s %d %d\r\n", family, c, s, client.Port(), server.Port())
	}
	b = append(b, proxyV2Begin...)
	if !known {
		return append(b, 0x21, v2Unspec, 0, 0)
	}
	if c.Is4() {
		b = append(b, 0x21, v2TCP4, 0, 12)
	} else {
		b = append(b, 0x21, v2TCP6, 0, 36)
	}
	b = append(append(b, c.AsSlice()...), s.AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, client.Port())
	return binary.BigEndian.AppendUint16(b, server.Port())
}
