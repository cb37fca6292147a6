package acmeclient

import (
	"crypto/x509"
	"time"

	"go.uber.org/zap"

	"gatelodge/storage"
)

// Protocol is a version of ACME.
type Protocol string

// The protocols, as in the configuration key acme_version.
const (
	ProtocolAuto Protocol = "auto" // v2 first, v1 only on evidence
	ProtocolV2   Protocol = "2"    // RFC 8555 only
	ProtocolV1   Protocol = "1"    // Let's Encrypt's pre-standard protocol only
)

// Config describes one CA.
type Config struct {
	// Name keys what is stored about the CA. It never changes, while addresses and protocol versions may. Required.
	Name string

	// Directory is the URL of the CA's directory (RFC 8555 §7.1.1): https, or http on loopback for tests. Required.
	Directory string

	// Protocol restricts the negotiation; empty means ProtocolAuto.
	Protocol Protocol

	// Roots are what the CA's own HTTPS certificate must chain to; nil means the system's.
	Roots *x509.CertPool

	// Contact are the account's contact URLs ("mailto:...").
	Contact []string

	// AgreeTerms: the operator agreed to the CA's terms of service. Without it no account is made.
	AgreeTerms bool

	// Challenges are the challenge types to use, in order of preference. Empty means tls-alpn-01, http-01.
	Challenges []string

	// Store keeps the account, orders in progress and challenges, below "acme/<Name>/". Required.
	Store storage.Store

	// Responder publishes challenges; one serves all CAs of the process. Required.
	Responder *Responder

	// UserAgent is sent with each request (RFC 8555 §6.1). Empty means "gatelodge".
	UserAgent string

	// OrderTimeout bounds one issuance. Zero means 10 minutes.
	OrderTimeout time.Duration

	// Logger is required.
	Logger *zap.Logger

	// Metrics may be nil.
	Metrics Metrics
}

// Metrics receives counts; implementations return at once.
type Metrics interface {
	Request(ca, endpoint string, status int, took time.Duration) // status 0: no answer
	BadNonce(ca string)
}
