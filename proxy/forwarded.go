package proxy

import (
	"net/http"
	"net/netip"
	"strings"

	"gatelodge/proxy/hostname"
)

// parseForwardedFor reads the fields X-Forwarded-For from the right, the end that the nearest proxy wrote, and stops at the first thing that is no
// address: whatever stands left of it has no meaning. The result is in the order of the field.
func parseForwardedFor(fields []string) []netip.Addr {
	var addrs []netip.Addr
	for i := len(fields) - 1; i >= 0; i-- {
		rest := fields[i]
		for more := true; more; {
			var item string
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, item = rest[:comma], rest[comma+1:]
			} else {
				rest, item, more = "", rest, false
			}
			addr, ok := parseForwardedAddr(strings.Trim(item, " \t"))
			if !ok || len(addrs) == maxForwarded {
				return reversed(addrs)
			}
			addrs = append(addrs, addr)
		}
	}
	return reversed(addrs)
}

// maxForwarded bounds the proxies that we believe in between.
const maxForwarded = 32

// parseForwardedAddr takes "192.0.2.1", "192.0.2.1:80", "2001:db8::1" and "[2001:db8::1]:80": ports are common in practice.
func parseForwardedAddr(s string) (netip.Addr, bool) {
	if len(s) > len("[0000:0000:0000:0000:0000:ffff:255.255.255.255]:65535") {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = ap.Addr()
	}
	return addr.Unmap(), addr.Zone() == ""
}

func reversed(addrs []netip.Addr) []netip.Addr {
	for i, j := 0, len(addrs)-1; i < j; i, j = i+1, j-1 {
		addrs[i], addrs[j] = addrs[j], addrs[i]
	}
	return addrs
}

// clientOf returns the address of the client behind trusted proxies: the rightmost that is not itself trusted.
func (st *state) clientOf(peer netip.Addr, fields []string) netip.Addr {
	client := peer
	addrs := parseForwardedFor(fields)
	for i := len(addrs) - 1; i >= 0 && st.trusts(client); i-- {
		client = addrs[i]
	}
	return client
}

// setForwarded writes who asked, how and for which host into the header towards the upstream, over whatever the client sent. A trusted proxy's
// word is kept where it has one.
func (x *exchange) setForwarded(h http.Header) {
	proto, host, chain := "http", x.r.Host, x.peer.String()
	if x.conn.version != 0 {
		proto = "https"
	}
	if x.trusted {
		var b strings.Builder
		for _, a := range parseForwardedFor(h["X-Forwarded-For"]) {
			b.WriteString(a.String())
			b.WriteString(", ")
		}
		chain = b.String() + chain
		if p := h["X-Forwarded-Proto"]; len(p) == 1 && (p[0] == "http" || p[0] == "https") {
			proto = p[0]
		}
		if v := h["X-Forwarded-Host"]; len(v) == 1 {
			if _, _, err := hostname.Split(v[0]); err == nil {
				host = v[0]
			}
		}
	}
	values := [4]string{chain, proto, host, x.id} // one allocation for four fields
	h["X-Forwarded-For"] = values[0:1:1]
	h["X-Forwarded-Proto"] = values[1:2:2]
	h["X-Forwarded-Host"] = values[2:3:3]
	h["X-Request-Id"] = values[3:4:4]
}
