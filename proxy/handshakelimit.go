package proxy

import (
	"net/netip"
	"sync"
	"time"
)

// clientRate bounds how often each client may do something. Per client it keeps the time at which its bucket will be full again (the generic cell rate
// algorithm): a whole token bucket in one number.
//
// It forgets by generations. A client that was silent for a generation has a full bucket, so nothing is lost with it, unless more than
// maxRateClients others came meanwhile: then memory is what counts. The zero value is ready.
type clientRate struct {
	mu         sync.Mutex // one count at a time
	young, old map[netip.Prefix]time.Time
	turned     time.Time
}

// maxRateClients is how many clients a generation knows, about 100 bytes each.
const maxRateClients = 1 << 15

// take counts one and reports whether the client may have it. perSecond is also what it may have at once; zero means no limit.
func (l *clientRate) take(client netip.Addr, perSecond float64) bool {
	if perSecond <= 0 || !client.IsValid() {
		return true
	}
	one := time.Duration(float64(time.Second) / perSecond)
	burst := max(time.Second, one)
	net, now := clientNet(client), time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.young) >= maxRateClients || now.Sub(l.turned) > burst {
		l.old, l.young, l.turned = l.young, make(map[netip.Prefix]time.Time, len(l.young)/2), now
	}
	full, ok := l.young[net]
	if !ok {
		full = l.old[net]
	}
	if full.Before(now) {
		full = now
	}
	if full = full.Add(one); full.Sub(now) > burst {
		return false
	}
	l.young[net] = full
	return true
}

// clientNet is the network that counts as one client: an address, or a /64 of IPv6, which is what one customer's line has.
func clientNet(client netip.Addr) netip.Prefix {
	bits := 32
	if client = client.Unmap().WithZone(""); client.Is6() {
		bits = 64
	}
	p, _ := client.Prefix(bits) // the bits are in range, so there is no error
	return p
}
