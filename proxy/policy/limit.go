package policy

import (
	"errors"
	"hash/maphash"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// LimitConfig bounds how often somebody may ask.
type LimitConfig struct {
	// Rate is how many requests a second are let through in the long run. Required.
	Rate float64

	// Burst is how many may come at once after a pause. Zero means as many as come in one second, and at least one.
	Burst int

	// Header names the request header whose value says who asks, such as an API key that something behind us checks. Whoever sends none is known by
	// the address. Empty: all are.
	Header string

	// Keys is how many are told apart at one time, at 17 bytes each once they have come. Zero means 1,048,576. Where more come, those are forgotten first
	// who asked least; a forgotten one begins with a full burst again.
	Keys int

	Client ClientAddr // required
	Refuse Refuse
}

// Limit answers 429 to those who ask too often. A /64 of IPv6 counts as one client: it is the least that a provider gives out.
type Limit struct {
	cfg   LimitConfig
	table *buckets
}

// NewLimit returns an error for a rate or burst that lets nothing through.
func NewLimit(cfg LimitConfig) (*Limit, error) {
	if !(cfg.Rate > 0) || cfg.Burst < 0 || cfg.Keys < 0 {
		return nil, errors.New("policy: a limit needs a rate above zero, and no negative burst")
	}
	if cfg.Client == nil {
		return nil, errors.New("policy: a limit needs to know the client")
	}
	if cfg.Burst == 0 {
		cfg.Burst = max(1, int(math.Ceil(math.Min(cfg.Rate, 1<<30))))
	}
	if cfg.Keys == 0 {
		cfg.Keys = 1 << 20
	}
	cfg.Header = http.CanonicalHeaderKey(cfg.Header)
	cfg.Refuse = cfg.Refuse.orPlain()
	return &Limit{cfg: cfg, table: newBuckets(cfg.Rate, cfg.Burst, cfg.Keys)}, nil
}

// Wrap lets through what the limit permits. The answer to the rest says when to come again (RFC 6585 §4).
func (l *Limit) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wait := l.table.take(l.key(r), time.Now())
		if wait <= 0 {
			next.ServeHTTP(w, r)
			return
		}
		w.Header()["Retry-After"] = []string{strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10)}
		l.cfg.Refuse(w, r, http.StatusTooManyRequests, "more requests than the limit permits")
	})
}

// key is a number for whoever asks. The seed is the process's own, so nobody can choose to have the number of somebody else.
func (l *Limit) key(r *http.Request) uint64 {
	if l.cfg.Header != "" {
		if v := r.Header[l.cfg.Header]; len(v) > 0 && v[0] != "" {
			return maphash.String(l.table.seed, v[0])
		}
	}
	b := clientNetwork(l.cfg.Client(r)).As16()
	return maphash.Bytes(l.table.seed, b[:])
}

// clientNetwork is the address, or the /64 that it lies in; for a peer without an address ::, which all such share.
func clientNetwork(a netip.Addr) netip.Addr {
	switch {
	case !a.IsValid():
		return netip.IPv6Unspecified()
	case a.Is4() || a.Is4In6():
		return a.Unmap()
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}
