// Package admin is the operator's way into a running process: HTTP and JSON over a unix socket, and the client and the tables that the command line uses.
//
// Who may come in is decided by the kernel: the folder is 0700, the socket 0600, and each connection's peer must be the same user or root. The rooms that know certificates
// and configuration are reached by funcs in [Config]; the types that cross the socket are this package's own.
package admin

import (
	"context"
	"errors"
	"iter"
	"time"

	"go.uber.org/zap"

	"gatelodge/cmd/internal/config"
)

// ErrUnknownName is returned (wrapped) for a certificate that nobody here knows.
var ErrUnknownName = errors.New("no such certificate")

// ErrUnknownCA is returned (wrapped) for a CA that is not configured.
var ErrUnknownCA = errors.New("no such CA")

// ErrGoesOn is returned by a Revoke that has begun, will end by itself, and takes longer than anybody waits.
var ErrGoesOn = errors.New("it goes on in the background, also over a restart")

// Config is what a Server is built with.
type Config struct {
	// Listen is "unix:///path/of/the.sock". The path is absolute. Required.
	Listen string

	// Certs returns all certificates, or those that want attention, by name, and an error if some may be missing; Cert returns the one of a name as a person
	// wrote it, or an error that wraps ErrUnknownName. Required.
	Certs func(ctx context.Context, failing bool) (iter.Seq[CertStatus], error)
	Cert  func(ctx context.Context, name string) (CertStatus, error)

	// Retry lets a name be tried now that is held back after a failure; the empty name means all. Required.
	Retry func(ctx context.Context, name string) (Retried, error)

	// Revoke revokes the certificate of a name, for a reason of RFC 5280 §5.3.1, and obtains another if the name is still wanted. Compromised
	// means that its key is known to others: it is replaced first, then revoked, and the key is never used again. Required.
	Revoke func(ctx context.Context, name string, r Revocation) error

	// Config returns the configuration that is in force. It shows itself without secrets. Required.
	Config func() *config.Config

	// Reload reads the configuration again. On error the old one stays. Required.
	Reload func(ctx context.Context) error

	// Upgrade starts the binary anew in a process that takes over, and returns its id. On error this one goes on. Nil: there is no such thing.
	Upgrade func(ctx context.Context) (pid int, err error)

	// CAs tells of the ACME CAs. Probe looks at one now, Reset forgets how its protocol was found and looks anew; both return what is known after that,
	// an error if there is no such CA (wrapping ErrUnknownCA) or the look was no good. RollKey gives its account another key. Nil: there are none.
	CAs                   func(context.Context) []CAStatus
	Probe, Reset, RollKey func(ctx context.Context, name string) (CAStatus, error)

	// Upstreams tells of those who get the requests. Nil: there are none.
	Upstreams func() []UpstreamStatus

	// Logger is required.
	Logger *zap.Logger
}

// UpstreamStatus is what an operator sees of one upstream.
type UpstreamStatus struct {
	Name    string         `json:"name"` // as in [upstream.NAME]; a site's own URL where it has no name
	Targets []TargetStatus `json:"targets"`
	Retries uint64         `json:"retries,omitempty"` // requests that went to another target after one had failed
	Waiting int            `json:"waiting,omitempty"` // requests that wait for a place
}

// TargetStatus is what an operator sees of one target.
type TargetStatus struct {
	Target string `json:"target"`
	State  string `json:"state"` // "up", "slow" (came back, gets little yet), "trial" (the next request tries it), "out" (failed requests), "down" (failed probes)
	Weight int    `json:"weight"`

	InFlight int    `json:"in_flight"`
	Requests uint64 `json:"requests"`
	Failures uint64 `json:"failures"` // of the requests, by the target's fault

	OutUntil    time.Time `json:"out_until,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
}

// Revocation is what `certs revoke` asks for.
type Revocation struct {
	Reason      int // of RFC 5280 §5.3.1; zero for none
	Compromised bool
}

// CAStatus is what an operator sees of one ACME CA.
type CAStatus struct {
	Name        string `json:"name"`
	Directory   string `json:"directory"`
	DirectoryV1 string `json:"directory_v1,omitempty"`

	// Protocol is what is spoken now, "2" or "1"; empty: nothing, or nothing yet. State is that of the negotiation, Evidence what led to it, Since when.
	Protocol   string    `json:"protocol,omitempty"`
	State      string    `json:"state"`
	Deprecated bool      `json:"deprecated,omitempty"` // v1 is spoken
	Evidence   string    `json:"evidence,omitempty"`
	Since      time.Time `json:"since,omitzero"`
	Trouble    string    `json:"trouble,omitempty"` // what the last look was met with
	NextProbe  time.Time `json:"next_probe,omitzero"`
	OrdersV1   int       `json:"orders_v1,omitempty"`

	Account     string    `json:"account,omitempty"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	Limits      []string  `json:"limits,omitempty"` // that hold now, in words
}

func (c *Config) validate() error {
	if c.Certs == nil || c.Cert == nil || c.Retry == nil || c.Revoke == nil || c.Config == nil || c.Reload == nil || c.Logger == nil {
		return errors.New("admin: certs, cert, retry, revoke, config, reload and logger are required")
	}
	return nil
}
