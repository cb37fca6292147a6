package upstream

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Balance is a way to choose among targets.
type Balance struct {
	kind string // "p2c", "round_robin", "least_conn", "first" or "hash"
	of   string // of "hash": "ip", "header" or "cookie"
	name string // of the header or cookie
}

// ParseBalance reads how to choose a target:
//
//	p2c            the less busy of two that are drawn by lot
//	round_robin    one after the other
//	least_conn     the least busy of all
//	first          the first that is up and has room
//	hash:ip        the same for the same client: its IPv4 address, or its /64 of IPv6
//	hash:header:X  the same for the same value of the header field X
//	hash:cookie:X  the same for the same value of the cookie X
//
// Weights count for all but first. When a target goes, hashing moves only its own clients; requests that have nothing to hash are balanced as by p2c.
func ParseBalance(s string) (Balance, error) {
	kind, rest, _ := strings.Cut(s, ":")
	of, name, named := strings.Cut(rest, ":")
	switch {
	case slices.Contains([]string{"p2c", "round_robin", "least_conn", "first"}, s):
		return Balance{kind: s}, nil
	case kind == "hash" && of == "ip" && !named:
		return Balance{kind: kind, of: of}, nil
	case kind == "hash" && of == "header" && isToken(name):
		return Balance{kind: kind, of: of, name: http.CanonicalHeaderKey(name)}, nil
	case kind == "hash" && of == "cookie" && isToken(name):
		return Balance{kind: kind, of: of, name: name}, nil
	}
	return Balance{}, fmt.Errorf("upstream: unknown balance %q: write p2c, round_robin, least_conn, first, hash:ip, hash:header:NAME or hash:cookie:NAME", s)
}

// isToken reports whether s is a token (RFC 9110 §5.6.2), as names of fields and cookies are.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// turns is the state of round robin.
type turns struct{ sync.Mutex }

// Why there is no endpoint for a request.
var (
	errFull  = errors.New("all targets have as many requests as they may")
	errTried = errors.New("no target is left to try")
	errDown  = errors.New("no target is up")
)

// choice is one choice of an endpoint for a journey.
type choice struct {
	p   *Pool
	j   *journey
	all []*endpoint
	now time.Time
	lax bool // endpoints whose breaker is open will do
}

// pick chooses an endpoint. Where MaxConns is set the caller holds p.mu, so that two requests cannot take the last place.
func (p *Pool) pick(j *journey) (*endpoint, error) {
	c := choice{p: p, j: j, all: *p.members.Load()}
	if len(c.all) == 1 {
		return c.only()
	}
	c.now = time.Now()
	if e := c.stuck(); e != nil {
		return e, nil
	}
	for range 3 {
		e := c.balance()
		if e == nil {
			break
		}
		if e.claim(j) {
			return e, nil
		}
	}
	// A breaker never opens for the last endpoint, but the others may have gone since.
	c.lax = true
	if e := c.balance(); e != nil {
		return e, nil
	}
	return nil, c.why()
}

// only is the choice where there is none: the breaker of a sole endpoint never opens, and the others may have gone since it did.
func (c *choice) only() (*endpoint, error) {
	if c.lax = true; c.able(c.all[0]) {
		return c.all[0], nil
	}
	return nil, c.why()
}

// why says why there is no endpoint.
func (c *choice) why() error {
	err := errDown
	for _, e := range c.all {
		switch {
		case e.down.Load() || e.weight == 0:
		case c.j.tried(e):
			err = errTried
		case e.full(c.p.cfg.MaxConns):
			return errFull
		}
	}
	return err
}

// usable reports whether the endpoint may get the request.
func (c *choice) usable(e *endpoint) bool {
	return e.weight > 0 && c.able(e)
}

func (c *choice) able(e *endpoint) bool {
	return !e.down.Load() && (c.lax || e.closed(c.now)) && !e.full(c.p.cfg.MaxConns) && !c.j.tried(e)
}

// share is the weight that counts now; zero for an endpoint that may not get the request.
func (c *choice) share(e *endpoint) float64 {
	if !c.usable(e) {
		return 0
	}
	return e.share(c.now, c.p.cfg.SlowStart)
}

func (c *choice) balance() *endpoint {
	switch b := c.p.balance; b.kind {
	case "round_robin":
		return c.next()
	case "least_conn":
		return c.leastBusy()
	case "first":
		return c.first()
	case "hash":
		if key, ok := c.j.key(b); ok {
			return c.hashed(key)
		}
	}
	return c.lessBusyOfTwo()
}

func (c *choice) first() *endpoint {
	for _, e := range c.all {
		if c.usable(e) {
			return e
		}
	}
	return nil
}

// lessBusyOfTwo draws two by lot, by their weights, and takes the one with less to do for its weight; the first if both are idle.
func (c *choice) lessBusyOfTwo() *endpoint {
	total := 0.0
	for _, e := range c.all {
		total += c.share(e)
	}
	a := c.draw(total, nil)
	if a == nil {
		return nil
	}
	b := c.draw(total-c.share(a), a)
	if b != nil && c.load(b) < c.load(a) {
		return b
	}
	return a
}

// draw takes an endpoint other than not by lot. The shares may have changed since they were added up; then it is the last that is usable.
func (c *choice) draw(total float64, not *endpoint) (e *endpoint) {
	left := rand.Float64() * total
	for _, candidate := range c.all {
		share := c.share(candidate)
		if share == 0 || candidate == not {
			continue
		}
		e = candidate
		if left -= share; left < 0 {
			break
		}
	}
	return e
}

func (c *choice) load(e *endpoint) float64 {
	share := c.share(e)
	if share == 0 {
		return math.Inf(1)
	}
	return float64(e.inflight.Load()) / share
}

// leastBusy takes the one with the least to do for its weight, by lot and weight among equals.
func (c *choice) leastBusy() (least *endpoint) {
	best, ties := math.Inf(1), 0.0
	for _, e := range c.all {
		share := c.share(e)
		if share == 0 {
			continue
		}
		switch load := float64(e.inflight.Load()) / share; {
		case load < best:
			best, ties, least = load, share, e
		case load == best:
			if ties += share; rand.Float64()*ties < share {
				least = e
			}
		}
	}
	return least
}

// next is the smooth weighted round robin: each gets its share in turn, spread as evenly as can be.
func (c *choice) next() (next *endpoint) {
	c.p.turn.Lock()
	defer c.p.turn.Unlock()
	total := 0.0
	for _, e := range c.all {
		share := c.share(e)
		if share == 0 {
			continue
		}
		total += share
		e.current += share
		if next == nil || e.current > next.current {
			next = e
		}
	}
	if next != nil {
		next.current -= total
	}
	return next
}

// hashed is weighted rendezvous hashing: every endpoint draws a number for the key, always the same, and the highest has it.
func (c *choice) hashed(key uint64) (e *endpoint) {
	best := math.Inf(-1)
	for _, candidate := range c.all {
		if !c.usable(candidate) {
			continue
		}
		u := (float64(mix(key^candidate.seed)>>11) + 0.5) / (1 << 53) // in (0, 1)
		if score := -float64(candidate.weight) / math.Log(u); score > best {
			best, e = score, candidate
		}
	}
	return e
}

// key is what a request is hashed by, false if it has nothing of the kind.
func (j *journey) key(b Balance) (uint64, bool) {
	switch b.of {
	case "ip":
		return addrKey(j.call.Client)
	case "header":
		if b.name == "Host" {
			return hash(j.r.Host), true
		}
		v := j.r.Header[b.name]
		if len(v) == 0 || v[0] == "" {
			return 0, false
		}
		return hash(v[0]), true
	}
	v := cookie(j.r.Header["Cookie"], b.name)
	return hash(v), v != ""
}

// addrKey is the key of a client by its address. Devices change the lower half of their IPv6 addresses daily (RFC 8981).
func addrKey(a netip.Addr) (uint64, bool) {
	if !a.IsValid() {
		return 0, false
	}
	b := a.As16() // IPv4 too, in its mapped form
	if a = a.Unmap(); a.Is6() {
		clear(b[8:])
	}
	key := uint64(0)
	for _, half := range [2][]byte{b[:8], b[8:]} {
		for _, x := range half {
			key = key<<8 | uint64(x)
		}
		key = mix(key)
	}
	return key, true
}
