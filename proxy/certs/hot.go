package certs

// This file keeps the certificates in demand ready for handshakes. To unpack one takes about as long as a signature and a few dozen allocations, so it is not done for
// each handshake; and as unpacked ones take several times the room, they are few.

const (
	hotShare = 8       // an eighth of the budget
	hotBytes = 6 << 10 // of a certificate for an ECDSA key with what the signature of its key keeps in memory; one for RSA is not much larger
	hotTries = 8       // that one newcomer may push past, so that its handshake does not wait for all of them
)

// hotSet holds entries with a certificate that is ready, in a ring: the hand goes round, passes by those that were used since it came by last, and puts the
// newcomer in the place of the first that was not (CLOCK). The cache's mutex guards it.
type hotSet struct {
	ring []*entry
	hand int
}

func (h *hotSet) share() int64 { return int64(len(h.ring)) * hotBytes }

func (h *hotSet) resizeLocked(budget int64) {
	n := max(int(budget/hotShare/hotBytes), 1)
	if n == len(h.ring) {
		return
	}
	old := h.ring
	h.ring, h.hand = make([]*entry, n), 0
	for i, e := range old {
		if e == nil {
			continue
		}
		if i < n {
			h.ring[i] = e
		} else {
			e.cool()
		}
	}
}

func (h *hotSet) addLocked(e *entry) {
	for range hotTries {
		there := h.ring[h.hand]
		if there == nil || there.uses.Load()&usedBit == 0 {
			break
		}
		there.uses.And(^uint32(usedBit))
		h.hand = (h.hand + 1) % len(h.ring)
	}
	if there := h.ring[h.hand]; there != nil {
		there.cool()
	}
	h.ring[h.hand], e.slot = e, int32(h.hand)
	h.hand = (h.hand + 1) % len(h.ring)
}

func (h *hotSet) removeLocked(e *entry) {
	if e.slot >= 0 {
		h.ring[e.slot] = nil
		e.cool()
	}
}

// ready returns the entry's certificate for a handshake, and keeps it ready for the next ones.
func (c *cache) ready(e *entry) *certificate {
	if cert := e.ready.Load(); cert != nil || e.of.chain == nil {
		return cert
	}
	cert := e.unpack()
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.slot < 0 && c.lookLocked(cert.name) == e { // it was neither dropped nor replaced meanwhile
		c.hot.addLocked(e)
		e.ready.Store(cert)
	}
	return cert
}

// cool gives up the certificate that is ready.
func (e *entry) cool() {
	e.slot = -1
	e.ready.Store(nil)
}
