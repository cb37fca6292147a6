package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"
)

// Config is what a Pool is built with; it does not change while it lives.
type Config struct {
	// Name names the pool in logs. It may be empty.
	Name string

	// To are the targets: "http://127.0.0.1:3000", "https://app.internal", "h2c://127.0.0.1:9000" (HTTP/2 without TLS), "unix:///run/app.sock"
	// (HTTP/1.1). A port may be left out. At least one is required, and none twice.
	To []string

	// Weights are parallel to To: a target with 2 gets twice the share of one with 1, and 0 gets nothing new but what sticks to it. Empty means 1 for all.
	Weights []int

	// Balance chooses among the targets: see [ParseBalance]. Empty means "p2c".
	Balance string

	// Sticky is the name of a cookie that binds a client to its target; empty for none. StickyKey makes the cookie's values unguessable; nodes of a fleet need
	// the same. Without it whoever guesses the address of a target can confirm the guess.
	Sticky    string
	StickyKey []byte

	// TLS is for https targets.
	TLS TLS

	// ConnectTimeout bounds the time to a connection, name resolution and, for its own part, the TLS handshake included. Zero means 3 s.
	ConnectTimeout time.Duration

	// ResponseHeaderTimeout bounds the time from the end of the request to the header of the answer. Zero means 60 s.
	ResponseHeaderTimeout time.Duration

	// IdleTimeout is how long an unused connection is kept. Zero means 5 m.
	IdleTimeout time.Duration

	// ResponseHeaderBytes bounds the header of an answer. Zero means 256 KiB.
	ResponseHeaderBytes int64

	// ResolveEvery is how old the addresses of a name may be while requests come. Zero means that every new connection asks for them, and that the
	// addresses of a name are one target.
	ResolveEvery time.Duration

	// MaxConns bounds the requests at one time to each target; over HTTP/1.1 each has a connection. Zero means no bound. Beyond it requests wait in a queue.
	MaxConns int
	Queue    Queue

	// Health, Passive, SlowStart and Retries: see there. Their zero values turn them off.
	Health  Health
	Passive Passive
	Retries Retries

	// SlowStart is how long a target that came back gets less than its share. Zero means that it gets all of it at once.
	SlowStart time.Duration

	// Logger hears of targets that come and go; nil means nobody.
	Logger *zap.Logger

	// Dial and Lookup replace the network, for tests; nil means net.Dialer and net.DefaultResolver.
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// TLS says how an https upstream proves who it is, and how we do.
type TLS struct {
	// ServerName is sent as SNI and verified; empty means the host of the target.
	ServerName string

	// Roots to verify with; nil means those of the system.
	Roots *x509.CertPool

	// Certificates are shown to a target that asks who we are; empty means none.
	Certificates []tls.Certificate

	// SkipVerify accepts any certificate. The connection is then encrypted but with whom is unknown.
	SkipVerify bool
}

// Queue is where requests wait while all targets have MaxConns.
type Queue struct {
	Max  int           // requests that may wait; zero means none
	Wait time.Duration // how long each may; then it has failed with ErrUnavailable
}

func (c Config) withDefaults() Config {
	orDefault(&c.Balance, "p2c")
	orDefault(&c.ConnectTimeout, 3*time.Second)
	orDefault(&c.ResponseHeaderTimeout, 60*time.Second)
	orDefault(&c.IdleTimeout, 5*time.Minute)
	orDefault(&c.ResponseHeaderBytes, 256<<10)
	c.Health = c.Health.withDefaults()
	c.Passive = c.Passive.withDefaults()
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: c.ConnectTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
	if c.Lookup == nil {
		c.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return c
}

func orDefault[T comparable](v *T, d T) {
	if *v == *new(T) {
		*v = d
	}
}

// targets checks the targets and their weights.
func (c Config) targets() ([]Target, error) {
	if len(c.To) == 0 {
		return nil, errors.New("upstream: no target")
	}
	if len(c.Weights) != 0 && len(c.Weights) != len(c.To) {
		return nil, fmt.Errorf("upstream: %d weights for %d targets", len(c.Weights), len(c.To))
	}
	for _, w := range c.Weights {
		if w < 0 || w > MaxWeight {
			return nil, fmt.Errorf("upstream: weight %d is not in 0-%d", w, MaxWeight)
		}
	}
	if len(c.Weights) != 0 && slices.Max(c.Weights) == 0 {
		return nil, errors.New("upstream: all weights are 0: no target would get anything")
	}
	var all []Target
	for _, to := range c.To {
		t, err := ParseTarget(to)
		if err != nil {
			return nil, err
		}
		if slices.Contains(all, t) {
			return nil, fmt.Errorf("upstream: target %s is there twice; weights give it more", t)
		}
		all = append(all, t)
	}
	return all, nil
}

// MaxWeight is the largest weight of a target.
const MaxWeight = 1000

func (c Config) weight(i int) int {
	if len(c.Weights) == 0 {
		return 1
	}
	return c.Weights[i]
}
