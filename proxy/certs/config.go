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

	// View says in a few words how the name looks from here, such as the addresses that it has. It is asked when the CA has refused the name, for cause, and has a few
	// seconds; what it says is kept beside the CA's words. Nil: we do not look.
	View func(ctx context.Context, ca, name string, cause error) string

	// Events gets what a person may have to act upon, once an hour at most for the same subject. It returns at once. Nil: only the log is told.
	Events func(Event)

	// Logger is required.
	Logger *zap.Logger

	// Metrics may be nil.
	Metrics Metrics

	// Beat is how often the process tells others that share the Store that it lives; three and a half of them later they take over its renewals. Each costs two
	// requests of the Store. Zero means 1 m; all processes must have the same.
	Beat time.Duration
}

// Settings are what a reload may change. They are replaced whole and never modified (see Manager.Apply): certificates, flights, failures
// and permissions are kept across it.
type Settings struct {
	// Lookup returns the policy of the site that claims the canonical name. The proxy routes by the same lookup. Who claims a wildcard
	// "*.example.com" is asked for as "_.example.com". Nil claims nothing.
	Lookup func(name string) (Policy, bool)

	// Listed are the canonical names and wildcards ("*.example.com") that sites list. They get a certificate without waiting for a visitor and
	// need no permission; the names below a listed wildcard are served with its certificate, or by the internal CA one by one. The catch-all "*" is not listed.
	Listed []string

	// Own are the policies of the sites that bring certificates of their own; their files are read when the settings are applied.
	Own []Policy

	// CAs in the order of the configuration, the internal CA among them; see ChooseCAs for who serves which name.
	CAs []CA

	// Permission decides about on-demand names; nil refuses all of them.
	Permission Permission

	// MaxWait bounds how long a handshake waits for a first certificate. Zero means 20 s.
	MaxWait time.Duration

	// StandIn: a handshake whose first certificate is not there in that time, or waits for a CA that fails, is served with a self-signed one instead of being closed. Whoever checks
	// certificates refuses it; see Manager.IsStandIn. Names that nobody permits, and those that are held back after a failure, are refused all the same.
	StandIn bool

	// Backoff are the pauses after the first, second ... failure of a name; the last repeats. Empty means 1 m, 10 m, 100 m, 24 h
	// (the steps Let's Encrypt asks of large integrators). Up to 10 % is added.
	Backoff []time.Duration

	// Failover is for names that several CAs may serve.
	Failover Failover

	// RenewAt is the part of a certificate's lifetime after which it is renewed when the CA does not say. Zero means 2/3. Lifetimes below 10 days
	// are renewed at 1/2 if that is earlier.
	RenewAt float64

	// Keys are the kinds of keys for new certificates: "ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072" or "rsa-4096". Empty means ecdsa-p256. A second one,
	// of the other algorithm, is for a second certificate of the same host, which clients get that cannot use the first: with the first for listed names,
	// when such a client comes for the others. A certificate in use is not replaced because this changes; its successor has the new kind.
	Keys []string

	// Spread levels renewals: no hour should have more than three times as many as the others. Off, each certificate's own hash decides alone.
	Spread bool

	// Abandon says when names that left us are not renewed any more.
	Abandon Abandon

	// VisitedOnly: certificates of on-demand names are renewed only if a visitor has come since the renewal was due, in the background by the process that the visitor came
	// to. Nobody's certificate ends, and its next visitor waits for another.
	VisitedOnly bool

	// ARI: the CAs are asked when certificates should be renewed (RFC 9773), those that can be asked (RenewalInformer), some times a day and never in a
	// handshake. Off, they are not, and what they said does not count; a window that comes with a certificate (Issued.Renewal) does.
	ARI bool

	// Budget bounds what the fleet orders.
	Budget Budget

	// ExpiryFloor is the part of a certificate's life below which EventFloor tells of it. Zero means 1/6.
	ExpiryFloor float64

	// InFlight bounds the issuances at one time. Zero means 32.
	InFlight int

	// DefaultName is served to clients that send no SNI. Empty serves them the address they connected to if a site lists it, and refuses them otherwise.
	DefaultName string

	// UnknownPerClient is how many unknown names a client (a /32 of IPv4, a /64 of IPv6) may bring per second, on average and with a burst of
	// twice as many: names with neither a certificate nor a permission that is remembered. It shields storage, Permission and the CA. Zero means 5; below
	// zero there is no limit.
	UnknownPerClient float64

	// CacheBytes bounds, roughly, the memory for certificates. What does not fit costs one read of the Store per handshake. Zero means 256 MiB.
	CacheBytes int64

	// Preload says which stored certificates are read into memory after the start, in the background, as long as they fit: PreloadNone, PreloadHot (those that
	// visitors of any process were served with in the hour before; the processes list them) or PreloadAll. Empty means PreloadNone.
	Preload string

	// Negative is how long an absence is remembered: a name without a stored certificate costs one read of the Store in this time. Zero means 1 m.
	Negative time.Duration
}

// Failover says when the next CA in order takes over from one that fails (ScopeCA: network, 5xx, hang), for names without a certificate and for renewals with
// less than 1/6 of the certificate's life left. A CA that limits our account or address is passed over at once, for as long as it says.
type Failover struct {
	// After is how many failures in a row the first CA has; one that asks to be left alone for longer than these take is not waited for. Zero means 1.
	After int

	// BackAfter is how long it must then have been healthy to be used again as before; meanwhile one order an hour sees whether it is. It is used at once if
	// the CA that stands in fails. Zero means that it is used again with its first success.
	BackAfter time.Duration
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

	// Internal marks the internal CA: after the CAs with matching names, before the general ones, and only for its Names and for internal
	// addresses (InternalAddress).
	Internal bool

	// Unbudgeted: its orders do not count against Settings.Budget, all but Failures. It is for a CA of one's own, whose limits nobody else feels.
	Unbudgeted bool
}

// Permission is the gate before a certificate for a name that no site lists. It is asked for names without a valid certificate, and, if
// Abandon.Denied is set, before a renewal. It returns nil to allow, an error that wraps permission.ErrDenied to refuse, any other error when it cannot tell (which refuses too, for now).
type Permission interface {
	Allow(ctx context.Context, name string, client netip.Addr) error
}

// A KnownPermission is a Permission that can answer for some names from memory, at once. Such names do not count against
// Settings.UnknownPerClient.
type KnownPermission interface {
	Permission
	Known(name string) (allowed, known bool)
}

// Metrics receives what happens, without names: labels by name would grow without bound. Implementations return at once.
type Metrics interface {
	Handshake(result string)                              // "warm", "loaded", "issued", "denied", "failed", "challenge", "unknown", "standin"
	Issuance(ca, kind, result string, took time.Duration) // kind "new" or "renew"; result "ok" or a failure's scope
}
