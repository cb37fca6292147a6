package certs

import (
	"context"
	"crypto/tls"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// Config is what a Manager is built with; it does not change while it lives.
type Config struct {
	// Store keeps certificates, pending keys and failures. Required.
	Store storage.Store

	// Challenge answers handshakes of CAs that validate tls-alpn-01 (RFC 8737). A nil certificate without error means
	// that the name has no challenge pending. Nil: such handshakes are refused.
	Challenge func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// Logger is required.
	Logger *zap.Logger

	// Metrics may be nil.
	Metrics Metrics
}

// Settings are what a reload may change. They are replaced whole and never modified (see Manager.Apply): certificates, flights, failures
// and permissions are kept across it.
type Settings struct {
	// Lookup returns the policy of the site that claims the canonical name. The proxy routes by the same lookup.
	Lookup func(name string) (Policy, bool)

	// Listed are the canonical names that get a certificate without waiting for a visitor.
	Listed []string

	// CAs in the order of the configuration, the internal CA among them; see ChooseCAs for who serves which name.
	CAs []CA

	// Permission decides about on-demand names; nil refuses all of them.
	Permission Permission

	// MaxWait bounds how long a handshake waits for a first certificate. Zero means 20 s.
	MaxWait time.Duration

	// Backoff are the pauses after the first, second ... failure of a name; the last repeats. Empty means 1 m, 10 m, 100 m, 24 h
	// (the steps Let's Encrypt asks of large integrators). Up to 10 % is added.
	Backoff []time.Duration

	// RenewAt is the part of a certificate's lifetime after which it is renewed when the CA does not say. Zero means 2/3, and 1/2 for
	// lifetimes below 10 days.
	RenewAt float64

	// InFlight bounds the issuances at one time. Zero means 32.
	InFlight int

	// DefaultName is served to clients that send no SNI; empty refuses them.
	DefaultName string
}

// Policy is what a site says about the certificates of its names.
type Policy struct {
	// Site names the site for logs and `certs list`.
	Site string

	// OnDemand: the name needs permission, and is obtained at its first handshake.
	OnDemand bool

	// CAs restricts the choice to these CA names; empty means the rule of ChooseCAs.
	CAs []string

	// CertFile and KeyFile are PEM files of the site's own; both empty means that we obtain the certificate. They are read again when they change.
	CertFile, KeyFile string
}

// CA is an issuer with the names that it is for.
type CA struct {
	Issuer Issuer

	// Names are patterns (hostname.Match). A CA with names goes before the others for them; one without is general.
	Names []string

	// Internal marks the internal CA: after the CAs with matching names, before the general ones, and only for its Names.
	Internal bool
}

// Permission is the gate before a certificate for a name that no site lists. It is asked for new names only, never for stored ones.
// It returns nil to allow, an error that wraps ErrDenied to refuse, any other error when it cannot tell (which refuses too, for now).
type Permission interface {
	Allow(ctx context.Context, name string, client netip.Addr) error
}

// Metrics receives what happens, without names: labels by name would grow without bound. Implementations return at once.
type Metrics interface {
	Handshake(result string)                              // "warm", "loaded", "issued", "denied", "failed", "challenge", "unknown"
	Issuance(ca, kind, result string, took time.Duration) // kind "new" or "renew"; result "ok" or a failure's scope
}
