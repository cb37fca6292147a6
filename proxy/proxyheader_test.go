package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

var bothVersions = ProxyProtocol{V1: true, V2: true}

// v2 is a header of version 2 with whatever in it.
func v2(verCmd, family byte, block string) string {
	return proxyV2Begin + string([]byte{verCmd, family, byte(len(block) >> 8), byte(len(block))}) + block
}

const (
	block4 = "\xc0\x00\x02\x01\xc0\x00\x02\x02\x04\xd2\x01\xbb" // 192.0.2.1:1234 to 192.0.2.2:443
	block6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x04\xd2\x01\xbb"
)

// withChecksum is a header of version 2 that ends in a checksum, made wrong by wrong.
func withChecksum(wrong uint32) string {
	h := []byte(v2(0x21, v2TCP4, block4+"\x04\x00\x01x"+"\x03\x00\x04\x00\x00\x00\x00"))
	binary.BigEndian.PutUint32(h[len(h)-4:], v2Checksum(h, len(h)-4)+wrong)
	return string(h)
}

var goodHeaders = map[string]string{
	"PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n":                     "192.0.2.1:1234 192.0.2.2:443",
	"PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n":                  "[2001:db8::1]:0 [2001:db8::2]:65535",
	"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n":                 "192.0.2.1:1 [2001:db8::2]:2",
	"PROXY UNKNOWN\r\n":                                               "",
	"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n":   "",
	"PROXY UNKNOWN " + strings.Repeat("x", 91) + "\r\n":               "",
	v2(0x21, v2TCP4, block4):                                          "192.0.2.1:1234 192.0.2.2:443",
	v2(0x21, v2TCP6, block6):                                          "[2001:db8::1]:1234 [2001:db8::2]:443",
	v2(0x21, v2TCP4, block4+"\x05\x00\x02ab\x01\x00\x00"):             "192.0.2.1:1234 192.0.2.2:443",
	v2(0x21, v2Unix, strings.Repeat("\x00", 216)):                     "",
	v2(0x21, v2Unspec, ""):                                            "",
	v2(0x20, v2Unspec, ""):                                            "",
	v2(0x20, v2TCP4, block4):                                          "",
	v2(0x20, 0xff, "whatever"):                                        "",
	v2(0x21, v2TCP4, block4+"\xe0\x07\xd0"+strings.Repeat("x", 2000)): "192.0.2.1:1234 192.0.2.2:443",
	withChecksum(0):                                                   "192.0.2.1:1234 192.0.2.2:443",
}

var badHeaders = map[string]string{
	"nothing of the kind":           "GET / HTTP/1.1\r\n\r\n",
	"TLS":                           "\x16\x03\x01\x02\x00\x01",
	"lower case":                    "proxy TCP4 192.0.2.1 192.0.2.2 1234 443\r\n",
	"no end":                        "PROXY TCP4 " + strings.Repeat("1", 200),
	"108 bytes":                     "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n",
	"a line feed alone":             "PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\n",
	"a family that is none":         "PROXY TCP5 192.0.2.1 192.0.2.2 1234 443\r\n",
	"no family":                     "PROXY \r\n",
	"UDP4":                          "PROXY UDP4 192.0.2.1 192.0.2.2 1234 443\r\n",
	"the other family":              "PROXY TCP4 2001:db8::1 2001:db8::2 1234 443\r\n",
	"the other family, reversed":    "PROXY TCP6 192.0.2.1 192.0.2.2 1234 443\r\n",
	"a leading zero":                "PROXY TCP4 192.0.2.01 192.0.2.2 1234 443\r\n",
	"three octets":                  "PROXY TCP4 192.0.2 192.0.2.2 1234 443\r\n",
	"a zone":                        "PROXY TCP6 fe80::1%eth0 2001:db8::2 1234 443\r\n",
	"brackets":                      "PROXY TCP6 [2001:db8::1] 2001:db8::2 1234 443\r\n",
	"a port too high":               "PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
	"a port with a zero":            "PROXY TCP4 192.0.2.1 192.0.2.2 0443 443\r\n",
	"a port with a sign":            "PROXY TCP4 192.0.2.1 192.0.2.2 +443 443\r\n",
	"an empty port":                 "PROXY TCP4 192.0.2.1 192.0.2.2  443\r\n",
	"a missing port":                "PROXY TCP4 192.0.2.1 192.0.2.2 443\r\n",
	"a field more":                  "PROXY TCP4 192.0.2.1 192.0.2.2 1234 443 x\r\n",
	"two spaces":                    "PROXY TCP4  192.0.2.1 192.0.2.2 1234 443\r\n",
	"a tab":                         "PROXY\tTCP4 192.0.2.1 192.0.2.2 1234 443\r\n",
	"version 1 in binary":           v2(0x11, v2TCP4, block4),
	"version 3":                     v2(0x31, v2TCP4, block4),
	"an unknown command":            v2(0x22, v2TCP4, block4),
	"UDP in binary":                 v2(0x21, 0x12, block4),
	"a family that is none, binary": v2(0x21, 0x41, block4),
	"addresses cut off":             v2(0x21, v2TCP4, block4[:11]),
	"v6 addresses cut off":          v2(0x21, v2TCP6, block6[:35]),
	"no addresses":                  v2(0x21, v2TCP4, ""),
	"too long":                      v2(0x21, v2TCP4, block4+strings.Repeat("\x04\x00\x00", 2000)),
	"an extension cut off":          v2(0x21, v2TCP4, block4+"\x04\x00"),
	"an extension too long":         v2(0x21, v2TCP4, block4+"\x04\x00\x02x"),
	"a wrong checksum":              withChecksum(1),
	"a checksum of another size":    v2(0x21, v2TCP4, block4+"\x03\x00\x02ab"),
}

func (h proxyHeader) String() string {
	if !h.client.IsValid() {
		return ""
	}
	return h.client.String() + " " + h.server.String()
}

func TestProxyHeader_ReadsBothVersionsByteByByte(t *testing.T) {
	for text, want := range goodHeaders {
		for n := range len(text) {
			if _, _, err := bothVersions.parse([]byte(text[:n])); !errors.Is(err, errProxyHeaderShort) {
				t.Fatalf("%q cut to %d: %v", text, n, err)
			}
		}
		h, n, err := bothVersions.parse([]byte(text + "GET / HTTP/1.1\r\n"))
		if err != nil || n != len(text) || h.String() != want {
			t.Errorf("%q = %q, %d bytes, %v", text, h, n, err)
		}
	}
}

func TestProxyHeader_RefusesWhatIsNoHeader(t *testing.T) {
	for name, text := range badHeaders {
		if h, _, err := bothVersions.parse([]byte(text)); !errors.Is(err, errProxyHeader) {
			t.Errorf("%s: %q, %v", name, h, err)
		}
	}
}

func TestProxyHeader_TakesTheVersionsThatAreOn(t *testing.T) {
	for text := range goodHeaders {
		isV1 := strings.HasPrefix(text, "PROXY")
		if _, _, err := (&ProxyProtocol{V1: true}).parse([]byte(text)); (err == nil) != isV1 {
			t.Errorf("%q where version 1 is on: %v", text, err)
		}
		if _, _, err := (&ProxyProtocol{V2: true}).parse([]byte(text)); (err == nil) == isV1 {
			t.Errorf("%q where version 2 is on: %v", text, err)
		}
	}
}

func TestProxyHeader_IsReadAsItIsWritten(t *testing.T) {
	for _, c := range []struct{ client, server, want string }{
		{"192.0.2.1:1234", "192.0.2.2:443", "192.0.2.1:1234 192.0.2.2:443"},
		{"[2001:db8::1]:1234", "[2001:db8::2]:443", "[2001:db8::1]:1234 [2001:db8::2]:443"},
		{"[::ffff:192.0.2.1]:1", "192.0.2.2:2", "192.0.2.1:1 192.0.2.2:2"},
		{"192.0.2.1:1", "[2001:db8::2]:2", "192.0.2.1:1 [2001:db8::2]:2"},
		{"", "192.0.2.2:443", ""},
	} {
		client, _ := netip.ParseAddrPort(c.client)
		server, _ := netip.ParseAddrPort(c.server)
		for version := 1; version <= 2; version++ {
			text := appendProxyHeader([]byte(nil), version, client, server)
			h, n, err := bothVersions.parse(text)
			if err != nil || n != len(text) || h.String() != c.want || begins(text, proxyV1Begin) != (version == 1) {
				t.Errorf("%s to %s: %q is read as %q, %v", c.client, c.server, text, h, err)
			}
		}
	}
}

// FuzzProxyHeader: what is taken is taken whatever follows it, no piece of it is, and it is what we would write for the same addresses.
func FuzzProxyHeader(f *testing.F) {
	for text := range goodHeaders {
		f.Add([]byte(text))
	}
	for _, text := range badHeaders {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := bothVersions.parse(b)
		if err != nil {
			if n != 0 || errors.Is(err, errProxyHeaderShort) && len(b) >= maxProxyV2 {
				t.Fatalf("%d bytes, %v", n, err)
			}
			return
		}
		if n > len(b) || n > maxProxyV2 || begins(b, proxyV1Begin) && n > maxProxyV1 {
			t.Fatalf("%d bytes", n)
		}
		if _, _, err := bothVersions.parse(b[:n-1]); !errors.Is(err, errProxyHeaderShort) {
			t.Fatalf("cut by one: %v", err)
		}
		h2, n2, err := bothVersions.parse(append(bytes.Clone(b[:n]), "more"...))
		if err != nil || n2 != n || h2 != h {
			t.Fatalf("with more behind it: %v, %d, %v", h2, n2, err)
		}
		for version := 1; version <= 2 && h.client.IsValid(); version++ {
			again, _, err := bothVersions.parse(appendProxyHeader(nil, version, h.client, h.server))
			if err != nil || again != h {
				t.Fatalf("%v is read again as %v, %v", h, again, err)
			}
		}
	})
}
