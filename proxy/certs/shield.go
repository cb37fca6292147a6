package certs

import (
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"time"

	"gatelodge/proxy/certs/memo"
)

// shieldClients is how many clients the shield knows at a time, about 100 bytes each.
const shieldClients = 1 << 16

// shield bounds how many unknown names a client may bring, before storage, permission or the CA hear of them: a botnet's scan of random names
// must cost the scanner more than us. A /64 counts as one client, since that is what one customer line has.
//
// Per client it keeps the time at which its bucket will be full again (the generic cell rate algorithm), which is a whole token
// bucket in one number.
type shield struct {
	mu      sync.Mutex // one count at a time
	clients *memo.Memo[netip.Prefix, time.Time]
}

func newShield() *shield { return &shield{clients: memo.New[netip.Prefix, time.Time](shieldClients)} }

// take counts one unknown name and reports whether the client may bring it. A client without an IP address (a socket) is not bounded.
func (s *shield) take(client netip.Addr, perSecond float64) bool {
	return s.move(client, perSecond, 1)
}

// giveBack takes the count back: the name turned out to be one of ours.
func (s *shield) giveBack(client netip.Addr, perSecond float64) { s.move(client, perSecond, -1) }

func (s *shield) move(client netip.Addr, perSecond float64, names int) bool {
	if perSecond < 0 || !client.IsValid() {
		return true
	}
	one := time.Duration(float64(time.Second) / perSecond)
	const burst = 2 // seconds' worth of names
	net, now := clientNet(client), time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	full, _ := s.clients.Get(net)
	if full.Before(now) {
		full = now
	}
	full = full.Add(time.Duration(names) * one)
	if names > 0 && full.Sub(now) > max(burst*time.Second, one) {
		return false
	}
	s.clients.Put(net, full, full)
	return true
}

// clientNet is the network that counts as one client.
func clientNet(client netip.Addr) netip.Prefix {
	client = client.Unmap().WithZone("")
	bits := 32
	if client.Is6() {
		bits = 64
	}
	p, _ := client.Prefix(bits) // the bits are in range, so there is no error
	return p
}

// clientAddr returns the address of the client, or the zero Addr if it has none.
func clientAddr(hello *tls.ClientHelloInfo) netip.Addr {
	if hello.Conn == nil {
		return netip.Addr{}
	}
	return addrOf(hello.Conn.RemoteAddr())
}

func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	if a == nil {
		return netip.Addr{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
