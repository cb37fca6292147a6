package acmeclient

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
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
	ProtocolV1   Protocol = "1"    // Let's Encrypt's protocol before the RFC only: deprecated, and closed by every public CA
)

// The challenge types that a Client can solve.
const (
	ChallengeTLSALPN01 = "tls-alpn-01" // RFC 8737
	ChallengeHTTP01    = "http-01"     // RFC 8555 §8.3
	ChallengeDNS01     = "dns-01"      // RFC 8555 §8.4; the only one for wildcards
)

// Config describes one CA.
type Config struct {
	// Name keys what is stored about the CA. It never changes, while addresses and protocol versions may. Letters, digits, "-", "_" and ".". Required.
	Name string

	// Directory is the URL of the CA's directory (RFC 8555 §7.1.1): https, or http on loopback for tests. Required.
	Directory string

	// DirectoryV1 is the URL of the CA's directory of ACME v1, if it has one beside Directory. It is looked at only after Directory was absent for certain, or
	// if Protocol is ProtocolV1. The account has the same key there. Empty: there is none.
	DirectoryV1 string

	// Protocol restricts the negotiation; empty means ProtocolAuto. With ProtocolV2 v1 is never spoken. With ProtocolV1 v2 is never spoken, not even after
	// it was.
	Protocol Protocol

	// Roots are what the CA's own HTTPS certificate must chain to; nil means the system's.
	Roots *x509.CertPool

	// Private: the CA is none of the public ones. It may issue for single labels, reserved names and private addresses, which are refused
	// otherwise before anything is sent. A CA with Roots of its own, or on loopback, counts as private.
	Private bool

	// Contact are the account's contact URLs ("mailto:...").
	Contact []string

	// AgreeTerms: the operator agreed to the CA's terms of service. Without it no account is made at a CA that has terms.
	AgreeTerms bool

	// EAB binds the account, when it is made, to one that the operator has with the CA otherwise. The zero value is none.
	EAB EAB

	// Profile is the certificate profile of requests that name none (draft-ietf-acme-profiles); empty means the CA's default.
	Profile string

	// ProfileRequired: what is asked for a profile is not issued without. Otherwise a profile that the CA does not offer is left out, and logged.
	ProfileRequired bool

	// PreferredChain chooses among the chains that the CA offers for a certificate: the common name of the root that the chain leads to, or of its topmost
	// certificate, or "shortest". Empty means the CA's default. If no chain is such, the default is used, and that is logged.
	PreferredChain string

	// Preflight is whether we look at a name ourselves, before an order or only after one has failed. Empty means PreflightOff.
	Preflight Preflight

	// Resolvers are asked for what a Preflight looks at, "host:port". Empty means the system's.
	Resolvers []string

	// HTTPPort is where the CA asks for http-01, for a Preflight to ask there too. Zero means 80; only CAs for tests, and some private ones, have another.
	HTTPPort int

	// Challenges are the challenge types to use, in order of preference. Empty means tls-alpn-01, http-01.
	Challenges []string

	// DNS answers dns-01; one serves all CAs of the process. Wildcards are proved by it, whether or not Challenges has dns-01. Nil: there are none.
	DNS *DNSSolver

	// Store keeps the account, orders in progress and limits below "acme/<Name>/", and challenges below "acme/challenges/" and "acme/dns/". Required.
	Store storage.Store

	// Responder publishes challenges; one serves all CAs of the process. Required.
	Responder *Responder

	// UserAgent is sent with each request (RFC 8555 §6.1). Empty means "gatelodge".
	UserAgent string

	// OrderTimeout bounds one issuance. Zero means 10 minutes.
	OrderTimeout time.Duration

	// Logger is required.
	Logger *zap.Logger

	// Metrics may be nil. It may implement NegotiationMetrics besides.
	Metrics Metrics
}

// Metrics receives counts; implementations return at once.
type Metrics interface {
	// Request counts one request to the CA; endpoint is a key of the directory or "account", "order", "authorization", "challenge", "finalize",
	// "certificate". Status 0 means that there was no answer.
	Request(ca, endpoint string, status int, took time.Duration)

	// BadNonce counts the requests that were sent again because the CA refused its own nonce.
	BadNonce(ca string)
}

// caName is what can be a part of an object's name in every store.
var caName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// withDefaults returns a copy in which zero values have their meaning.
func (c Config) withDefaults() Config {
	if c.Protocol == "" {
		c.Protocol = ProtocolAuto
	}
	if u, err := parseURL(c.Directory, true); c.Roots != nil || err == nil && isLoopback(u.Hostname()) {
		c.Private = true
	}
	if c.DirectoryV1 == c.Directory {
		c.DirectoryV1 = "" // there is one place
	}
	if len(c.Challenges) == 0 {
		c.Challenges = []string{ChallengeTLSALPN01, ChallengeHTTP01}
	}
	if c.Preflight == "" {
		c.Preflight = PreflightOff
	}
	if c.HTTPPort == 0 {
		c.HTTPPort = 80
	}
	if c.UserAgent == "" {
		c.UserAgent = "gatelodge"
	}
	if c.OrderTimeout == 0 {
		c.OrderTimeout = 10 * time.Minute
	}
	if c.Metrics == nil {
		c.Metrics = noMetrics{}
	}
	return c
}

// validate returns all faults in one go.
func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !caName.MatchString(c.Name) {
		fault("name %q: 1 to 63 letters, digits, \"-\", \"_\" and \".\" are allowed", c.Name)
	}
	if _, err := parseURL(c.Directory, true); err != nil {
		fault("directory %q: %w", c.Directory, err)
	}
	if _, err := parseURL(c.DirectoryV1, true); err != nil && c.DirectoryV1 != "" {
		fault("directory_v1 %q: %w", c.DirectoryV1, err)
	}
	switch c.Protocol {
	case ProtocolAuto, ProtocolV2, ProtocolV1:
	default:
		fault("protocol %q: \"auto\", \"2\" or \"1\" is allowed", c.Protocol)
	}
	for i, t := range c.Challenges {
		if t != ChallengeTLSALPN01 && t != ChallengeHTTP01 && t != ChallengeDNS01 {
			fault("challenge %q: %q, %q and %q are supported", t, ChallengeTLSALPN01, ChallengeHTTP01, ChallengeDNS01)
		} else if t == ChallengeDNS01 && c.DNS == nil {
			fault("challenge %q needs a DNS provider", t)
		} else if slices.Contains(c.Challenges[:i], t) {
			fault("challenge %q is listed twice", t)
		}
	}
	if err := c.EAB.validate(); err != nil {
		faults = append(faults, err)
	}
	if c.Preflight != PreflightOff && c.Preflight != PreflightAdvise && c.Preflight != PreflightRequire {
		fault("preflight %q: \"off\", \"advise\" or \"require\" is allowed", c.Preflight)
	}
	if c.HTTPPort < 0 || c.HTTPPort > 65535 {
		fault("port %d: 1 to 65535 is allowed", c.HTTPPort)
	}
	checkResolvers(c.Resolvers, fault)
	if c.ProfileRequired && c.Profile == "" {
		fault("a profile is required, but none is named")
	}
	if c.OrderTimeout < 0 {
		fault("order timeout %v is negative", c.OrderTimeout)
	}
	if c.Store == nil {
		fault("a store is required")
	}
	if c.Responder == nil {
		fault("a responder is required")
	}
	if c.Logger == nil {
		fault("a logger is required")
	}
	return errors.Join(faults...)
}

// parseURL accepts absolute https URLs, and plain http on loopback where plain says so (tests, devca).
func parseURL(s string, plain bool) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, err
	case u.Host == "" || u.Opaque != "" || u.User != nil:
		return nil, &urlError{s, "it is not an absolute https URL"}
	case u.Scheme == "https", u.Scheme == "http" && plain && isLoopback(u.Hostname()):
		return u, nil
	case u.Scheme == "http":
		return nil, &urlError{s, "plain http is for loopback only"}
	}
	return nil, &urlError{s, "it is not an absolute https URL"}
}

// urlError is a URL that we do not follow.
type urlError struct{ url, why string }

func (e *urlError) Error() string { return fmt.Sprintf("refuse %q: %s", clean(e.url), e.why) }

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

type noMetrics struct{}

func (noMetrics) Request(string, string, int, time.Duration) {}
func (noMetrics) BadNonce(string)                            {}
