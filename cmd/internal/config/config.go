// Package config reads gatelodge's configuration: TOML in, one immutable value out, or all faults at once.
//
// The structs below are the manual: config.example.toml shows the same keys with the same defaults, and a test holds the two together. A key of a
// later build is known here already, so that a file which uses it gets "not there yet" and not "unknown key"; the one list of those is [pending].
//
// The way of a file: [Load] reads it, the TOML decoder checks its syntax, scan finds where each key stands, bind puts values into the structs, validate looks
// at what single values cannot show. Each step reports as many faults as it can, with file, line, column and what to do.
package config

import (
	"net/netip"
	"strings"
	"time"
)

// Config is a whole configuration. It is not modified once [Load], [Parse] or [ForHost] returned it.
//
// Tags: toml is the key, enum the values that exist, as how a string is taken ("host": in canonical spelling; "file": relative to the file that names
// it), restart that a reload cannot change it.
type Config struct {
	// Version of the key names. Only 1 exists.
	Version int `toml:"version"`

	// Include are patterns of more files, relative to the file that names them, merged in name order. Only [[site]] and [upstream.*] may stand there.
	Include []string `toml:"include"`

	Listen     Listen                `toml:"listen"`
	TLS        TLS                   `toml:"tls"`
	ClientAuth map[string]ClientAuth `toml:"client_auth"`

	// CAs in the order of the file. Never empty after loading: no [[ca]] at all means Let's Encrypt.
	CAs        []CA       `toml:"ca"`
	InternalCA InternalCA `toml:"internal_ca"`
	Issue      Issue      `toml:"issue"`
	OnDemand   OnDemand   `toml:"on_demand"`

	Storage Storage `toml:"storage"`
	Cache   Cache   `toml:"cache"`

	DNS       map[string]DNS      `toml:"dns"`
	Upstreams map[string]Upstream `toml:"upstream"`

	// Sites in the order of the file, those of included files after them. See [Config.Resolve] for what they mean.
	Sites []Site `toml:"site"`

	Admin   Admin   `toml:"admin"`
	Log     Log     `toml:"log"`
	Trace   Trace   `toml:"trace"`
	Alert   Alert   `toml:"alert"`
	Process Process `toml:"process"`

	file     string // see File
	warnings []Fault

	// Where things stand is kept beside them, not in them, so that two CAs or sites can be compared whatever file they are from.
	src     *source // of the whole main file
	siteSrc []*source
	upSrc   map[string]*source
}

// File is the absolute path of the file that the configuration was loaded from; empty if there was none ([ForHost], [Default]).
func (c *Config) File() string { return c.file }

func (c *Config) caSrc(i int) *source             { return c.src.key("ca").elem(i) }
func (c *Config) upstreamSrc(name string) *source { return c.upSrc[name] }

func (c *Config) siteSource(i int) *source {
	if i < len(c.siteSrc) {
		return c.siteSrc[i]
	}
	return nil
}

// Listen is where clients reach us.
type Listen struct {
	// HTTP and HTTPS are host:port; empty turns the protocol off. Port 0 takes a free one.
	HTTP  []Address `toml:"http" restart:"yes"`
	HTTPS []Address `toml:"https" restart:"yes"`
	HTTP3 bool      `toml:"http3"`

	// Redirect sends plain HTTP to https with 308; challenges of a CA are answered before.
	Redirect bool `toml:"redirect"`

	ProxyProtocol     string         `toml:"proxy_protocol" enum:"off|v1|v2|any"`
	ProxyProtocolFrom []netip.Prefix `toml:"proxy_protocol_from"`

	// TrustedProxies may send X-Forwarded-* that we believe.
	TrustedProxies []netip.Prefix `toml:"trusted_proxies"`
	ReusePort      bool           `toml:"reuse_port" restart:"yes"`

	Limits Limits `toml:"limits"`
}

// Limits bound what a client may take.
type Limits struct {
	HandshakesPerIP Rate `toml:"handshakes_per_ip"`

	// UnknownNamesPerIP bounds names with neither a certificate nor a permission, per client address. Zero means no limit.
	UnknownNamesPerIP Rate `toml:"unknown_names_per_ip"`

	HandshakeTimeout time.Duration `toml:"handshake_timeout" restart:"yes"` // accept to Finished
	HeaderTimeout    time.Duration `toml:"header_timeout" restart:"yes"`    // first byte of a request to the end of its header
	IdleTimeout      time.Duration `toml:"idle_timeout" restart:"yes"`      // between requests
	BodyRate         Rate          `toml:"body_rate" restart:"yes"`         // bytes in a time that a request body comes at, or is ended; zero means no limit
	HeaderBytes      Size          `toml:"header_bytes" restart:"yes"`      // the whole request header
	BodyBytes        Size          `toml:"body_bytes"`                      // a request body; zero means no limit
}

// TLS is the policy of handshakes.
type TLS struct {
	MinVersion  string   `toml:"min_version" restart:"yes" enum:"1.2|1.3"`
	Groups      []string `toml:"groups" enum:"X25519MLKEM768|SecP256r1MLKEM768|SecP384r1MLKEM1024|X25519|P-256|P-384|P-521" restart:"yes"`
	UnknownName string   `toml:"unknown_name" enum:"alert|default|close"`

	// DefaultName is the certificate for clients without SNI; empty refuses them.
	DefaultName string `toml:"default_name" as:"host"`

	// SessionTickets: the keys are in storage, for all nodes and over restarts (shared), or each process has its own.
	SessionTickets string `toml:"session_tickets" enum:"shared|local|off"`
}

// ClientAuth is a policy for client certificates.
type ClientAuth struct {
	CA   []string `toml:"ca" as:"file"`
	Mode string   `toml:"mode" enum:"request|require"`
}

// CA is a public or private certificate authority that speaks ACME.
type CA struct {
	// Name keys what is stored: it never changes, while addresses may.
	Name        string   `toml:"name"`
	Directory   string   `toml:"directory"`
	DirectoryV1 string   `toml:"directory_v1"`
	ACMEVersion string   `toml:"acme_version" enum:"auto|1|2"`
	Contact     []string `toml:"contact"`
	AgreeTerms  bool     `toml:"agree_terms"`
	EAB         EAB      `toml:"eab"`

	Profile         string `toml:"profile"`
	ProfileRequired bool   `toml:"profile_required"`
	PreferredChain  string `toml:"preferred_chain"`

	// Roots are PEM files that the CA's own HTTPS certificate must chain to; empty means the system's.
	Roots []string `toml:"roots" as:"file"`

	// Names are patterns. A CA with names goes before the others for them and serves no other.
	Names []string `toml:"names" as:"host"`

	// HTTPPort is where the CA asks for http-01, for Issue.Preflight.
	HTTPPort int `toml:"http_port"`
}

// EAB is an external account binding (RFC 8555 §7.3.4).
type EAB struct {
	KID  Secret `toml:"kid"`
	HMAC Secret `toml:"hmac"`
}

// InternalCA serves names that no public CA may: see [Config.InternalNames].
type InternalCA struct {
	Names    []string      `toml:"names" restart:"yes" as:"host"` // more names it may serve
	Lifetime time.Duration `toml:"lifetime" restart:"yes"`
}

// Issue says how certificates are ordered and when they are renewed.
type Issue struct {
	Keys       []string `toml:"keys" enum:"ecdsa-p256|ecdsa-p384|rsa-2048|rsa-3072|rsa-4096"`
	Challenges []string `toml:"challenges" enum:"tls-alpn-01|http-01|dns-01|dns-persist-01"`
	ARI        bool     `toml:"ari"`

	// RenewAt is the part of the lifetime after which a certificate is renewed. The default, 2/3, means 1/2 below 10 days.
	RenewAt   Fraction `toml:"renew_at"`
	Spread    bool     `toml:"spread"`
	Preflight string   `toml:"preflight" enum:"off|advise|require"`
	Failover  Failover `toml:"failover"`

	// Resolvers are asked for what Preflight looks at, "host:port"; empty means the system's.
	Resolvers []string `toml:"resolvers"`

	// Backoff are the pauses after the first, second ... failure of a name; the last repeats.
	Backoff []time.Duration `toml:"backoff"`

	Budget  Budget  `toml:"budget"`
	Abandon Abandon `toml:"abandon"`
}

// Failover says when the second CA takes over, and when the first is tried again.
type Failover struct {
	After     int           `toml:"after"`
	BackAfter time.Duration `toml:"back_after"`
}

// Budget refuses before the CA does: for the whole fleet together, at CAs without names of their own. Renewals that the CA invited (RFC 9773) are free.
type Budget struct {
	NewOrders           Rate `toml:"new_orders"`            // orders of the account at one CA, renewals among them
	PerRegisteredDomain Rate `toml:"per_registered_domain"` // new names below one registered domain, at one CA
	FailuresPerName     Rate `toml:"failures_per_name"`
	PerTenant           Rate `toml:"per_tenant"` // new names; the tenant is what ask said, else the registered domain
	InFlight            int  `toml:"in_flight"`  // issuances at one time, of one process

	// ReserveForRenewals is the part of NewOrders that new names leave alone.
	ReserveForRenewals Percent `toml:"reserve_for_renewals"`
}

// Abandon says when a name that left us is given up.
type Abandon struct {
	WhenDenied  time.Duration `toml:"when_denied"`
	WhenDNSAway time.Duration `toml:"when_dns_away"`
}

// OnDemand is the gate before certificates for names that no site lists.
type OnDemand struct {
	Enabled bool `toml:"enabled"`

	// Ask is asked as GET with ?name=&ip=&node=: 200 allows, 404 and 403 deny.
	Ask          string        `toml:"ask"`
	AskTimeout   time.Duration `toml:"ask_timeout"`
	AllowTTL     time.Duration `toml:"allow_ttl"` // Cache-Control of the answer wins
	DenyTTL      time.Duration `toml:"deny_ttl"`
	StaleIfError time.Duration `toml:"stale_if_error"`

	// NamesFile lists names and patterns, one a line, reloaded on change; with it nobody is asked.
	NamesFile string `toml:"names_file" as:"file"`

	MaxWait    time.Duration `toml:"max_wait"` // a handshake waits this long for a first certificate
	OnWait     string        `toml:"on_wait" enum:"close|selfsigned"`
	Background bool          `toml:"background"`
	IdleAfter  time.Duration `toml:"idle_after"`
}

// Storage is where certificates and accounts live.
type Storage struct {
	Kind string `toml:"kind" restart:"yes" enum:"disk|s3"`

	// Path is the folder. As root /var/lib/gatelodge, otherwise gatelodge in the user's data folder.
	Path string `toml:"path" restart:"yes" as:"file"`

	S3         S3         `toml:"s3" restart:"yes"`
	Encryption Encryption `toml:"encryption" restart:"yes"`
}

// S3 is an object store.
type S3 struct {
	Endpoint          string `toml:"endpoint"`
	Region            string `toml:"region"`
	Bucket            string `toml:"bucket"`
	Prefix            string `toml:"prefix"`
	PathStyle         bool   `toml:"path_style"`
	Credentials       string `toml:"credentials" enum:"auto"`
	ConditionalWrites string `toml:"conditional_writes" enum:"require|single-node"`
	LocalCopy         string `toml:"local_copy" as:"file"`
}

// Encryption seals private keys at rest.
type Encryption struct {
	Keys    []SealingKey `toml:"keys"`
	Require bool         `toml:"require"`
}

// Cache bounds certificates in memory.
type Cache struct {
	// Memory is for certificates; names beyond it cost a read of the storage at each handshake.
	Memory  Size   `toml:"memory"`
	Preload string `toml:"preload" enum:"none|hot|all"`

	// Negative is how long it is remembered that a name has no stored certificate.
	Negative time.Duration `toml:"negative"`
}

// DNS is a provider for dns-01.
type DNS struct {
	Provider   string   `toml:"provider"`
	Zones      []string `toml:"zones"`
	DelegateTo string   `toml:"delegate_to"`
	Resolvers  []string `toml:"resolvers"`

	// Own are the provider's own keys.
	Own map[string]any `toml:"*"`
}

// Upstream is where requests of sites with to = "@name" go.
type Upstream struct {
	To []Target `toml:"to"`

	// Weights are parallel to To; empty means 1 for each.
	Weights []int `toml:"weights"`

	// Balance is "p2c", "round_robin", "least_conn", "first", "hash:ip", "hash:header:NAME" or "hash:cookie:NAME".
	Balance string `toml:"balance"`

	// Sticky is the name of a cookie that binds clients to targets; StickyKey makes its values unguessable.
	Sticky    string `toml:"sticky"`
	StickyKey Secret `toml:"sticky_key"`

	Retries Retries `toml:"retries"`
	Health  Health  `toml:"health"`
	Passive Passive `toml:"passive"`

	Timeouts UpstreamTimeouts `toml:"timeouts"`

	// MaxConns bounds the requests at one time to each target; zero means no bound. Beyond it they wait in the Queue.
	MaxConns int   `toml:"max_conns"`
	Queue    Queue `toml:"queue"`

	SlowStart    time.Duration `toml:"slow_start"`    // of a target that came back; zero means that it gets its whole share at once
	ResolveEvery time.Duration `toml:"resolve_every"` // how old the addresses of names may be; zero means that new connections look them up
	TLS          UpstreamTLS   `toml:"tls"`
}

// Queue is where requests wait while all targets have max_conns.
type Queue struct {
	Max  int           `toml:"max"`
	Wait time.Duration `toml:"wait"`
}

// UpstreamTimeouts bound the parts of a request to an upstream.
type UpstreamTimeouts struct {
	Connect        time.Duration `toml:"connect"`
	ResponseHeader time.Duration `toml:"response_header"`
	Idle           time.Duration `toml:"idle"` // connections kept for the next request
}

// UpstreamTLS is for https:// upstreams.
type UpstreamTLS struct {
	ServerName string   `toml:"server_name" as:"host"` // empty means the host of the URL
	Roots      []string `toml:"roots" as:"file"`       // PEM files; empty means the system's
	Verify     bool     `toml:"verify"`

	// Certificate and Key are PEM files that say who we are; both or none.
	Certificate string `toml:"certificate" as:"file"`
	Key         string `toml:"key" as:"file"`
}

// Retries says which requests are sent again.
type Retries struct {
	Max     int      `toml:"max"`
	On      []string `toml:"on" enum:"connect|502|503|504"`
	Methods []string `toml:"methods" enum:"GET|HEAD|OPTIONS|TRACE|PUT|DELETE"` // the idempotent ones
	Budget  Percent  `toml:"budget"`                                           // of all requests
}

// Health are the probes of an upstream's targets; no path, no probes.
type Health struct {
	Path    string        `toml:"path"`
	Every   time.Duration `toml:"every"`
	Timeout time.Duration `toml:"timeout"`
	Rise    int           `toml:"rise"`
	Fall    int           `toml:"fall"`
}

// Passive takes a failing target out.
type Passive struct {
	Fails  int           `toml:"fails"`
	Within time.Duration `toml:"within"`
	OutFor time.Duration `toml:"out_for"`
}

// Site is what answers for some hosts.
type Site struct {
	// Hosts in canonical spelling: "example.com", "*.example.com" (exactly one label more), "*".
	Hosts []string `toml:"hosts" as:"host"`

	// To is a URL or "@name" of an upstream.
	To Target `toml:"to"`

	// CA restricts who issues to these CA names; empty means the rule of [Config.Issuers].
	CA []string `toml:"ca"`

	// Certificate and Key are PEM files of one's own, reloaded on change; both or none.
	Certificate string `toml:"certificate" as:"file"`
	Key         string `toml:"key" as:"file"`

	// OnDemand: names get their certificate at the first handshake, if [OnDemand] permits.
	OnDemand bool `toml:"on_demand"`

	ClientAuth string `toml:"client_auth"`

	// Limit, Allow, Deny and Auth hold for all requests of the site; its routes may have more of them.
	Limit RouteLimit     `toml:"limit"`
	Allow []netip.Prefix `toml:"allow"`
	Deny  []netip.Prefix `toml:"deny"`
	Auth  Auth           `toml:"auth"`

	// Compress are codings, best first; empty compresses nothing.
	Compress  []string      `toml:"compress" enum:"zstd|br|gzip"`
	HSTS      time.Duration `toml:"hsts"`
	AccessLog bool          `toml:"access_log"`

	// BodyBytes bounds a request body of this site; zero means [Limits].BodyBytes.
	BodyBytes Size `toml:"body_bytes"`

	Headers     Headers `toml:"headers"`
	Passthrough string  `toml:"passthrough"`
	Routes      []Route `toml:"route"`
}

// Headers changes what the upstream or the client gets. Values have the placeholders {host}, {client.ip}, {request.id} and {ask.tenant}.
type Headers struct {
	// Set are fields of requests, in place of what the client sent.
	Set map[string]string `toml:"set"`

	// Remove are fields of requests and of answers.
	Remove   []string        `toml:"remove"`
	Response ResponseHeaders `toml:"response"`
}

// ResponseHeaders changes answers alone.
type ResponseHeaders struct {
	Set    map[string]string `toml:"set"`
	Remove []string          `toml:"remove"`
}

// Route sends some requests of a site elsewhere. It has at most one of To, Redirect, Files and Respond; without, they go to the site's `to`.
type Route struct {
	Match Match  `toml:"match"`
	To    Target `toml:"to"`

	// Strip is a prefix that paths lose on the way to the upstream, Rewrite the path instead, with {path} and {rest}: the path behind the pattern.
	Strip     string         `toml:"strip"`
	Rewrite   string         `toml:"rewrite"`
	Limit     RouteLimit     `toml:"limit"`
	BodyBytes Size           `toml:"body_bytes"`
	Allow     []netip.Prefix `toml:"allow"`
	Deny      []netip.Prefix `toml:"deny"`
	Auth      Auth           `toml:"auth"`
	Redirect  Redirect       `toml:"redirect"`
	Respond   Respond        `toml:"respond"`

	// Files is a folder; its files are named by the path behind the pattern.
	Files    string  `toml:"files" as:"file"`
	Fallback string  `toml:"fallback"` // a file of the folder, for names that are not there
	Headers  Headers `toml:"headers"`
}

// Match says which requests a route takes: those that meet all of it.
type Match struct {
	// Path are "/a/b", that path alone, or "/a/*", it and everything below; empty is every path.
	Path []string `toml:"path"`

	// Methods empty is every method; GET takes HEAD too.
	Methods []string `toml:"methods"`
}

// RouteLimit bounds how often somebody may ask; more gets 429.
type RouteLimit struct {
	Rate Rate `toml:"rate"`

	// Burst is how many may come at once; zero means as many as come in a second.
	Burst int `toml:"burst"`

	// Key is "ip" or "header:NAME"; empty means "ip". Who sends no such header is known by the address.
	Key string `toml:"key"`
}

// HeaderName is the header that tells who asks; empty for the address.
func (l *RouteLimit) HeaderName() string {
	name, _ := strings.CutPrefix(l.Key, "header:")
	if name == l.Key {
		return ""
	}
	return name
}

// Auth asks each request for name and password, or another server about it.
type Auth struct {
	// Forward is who is asked, by GET; 2xx lets the request through.
	Forward string `toml:"forward"`

	// Copy are fields of that answer which the request gets, in place of the client's own.
	Copy    []string      `toml:"copy"`
	Timeout time.Duration `toml:"timeout"` // of the answer; zero means 5 s

	// Users are NAME:HASH, and UsersFile has one of them a line; the hash is bcrypt or argon2id.
	Users     []User `toml:"users"`
	UsersFile string `toml:"users_file" as:"file"`
	Realm     string `toml:"realm"` // empty means "Restricted"

	// KeepCredentials leaves name and password in the request.
	KeepCredentials bool `toml:"keep_credentials"`
}

// Basic reports whether name and password are asked for.
func (a *Auth) Basic() bool { return len(a.Users) > 0 || a.UsersFile != "" }

// Redirect answers with another address.
type Redirect struct {
	// To is a path or URL with {path}, {rest} and {host}. The query stays, unless To has one.
	To string `toml:"to"`

	// Status is 301, 302, 303, 307 or 308; zero means 302.
	Status int `toml:"status"`
}

// Respond answers the same to everybody.
type Respond struct {
	Status int    `toml:"status"`
	Body   string `toml:"body"` // plain text; empty means a page that says what the status means
}

// Admin is for the operator.
type Admin struct {
	// Listen is unix:///path; empty turns the API off. As root /run/gatelodge/admin.sock, otherwise in the user's runtime or data folder.
	Listen string `toml:"listen" restart:"yes"`
	Token  Secret `toml:"token"`

	// Metrics is a loopback host:port for /metrics, /healthz and /readyz; empty turns it off.
	Metrics   Address `toml:"metrics" restart:"yes"`
	Ready     Address `toml:"ready" restart:"yes"`
	Dashboard bool    `toml:"dashboard"`
}

// Log says what is written where.
type Log struct {
	Format string `toml:"format" restart:"yes" enum:"json|text"`
	Level  string `toml:"level" restart:"yes" enum:"debug|info|warn|error"`

	// Access is "stdout", "off" or a file.
	Access string `toml:"access" restart:"yes"`

	// Headers are fields of requests that the access log shows, "*" all of them; of those in Redact only that they were there.
	Headers []string `toml:"headers"`
	Redact  []string `toml:"redact"`
}

// Trace sends what is recorded about requests to a collector.
type Trace struct {
	// OTLP is the collector's URL, without a path for /v1/traces. Empty records nothing, and leaves the traceparent of requests as it is.
	OTLP string `toml:"otlp" restart:"yes"`

	// Sample is the part of the requests that is recorded, from 0 to 1; trusted proxies decide about theirs themselves.
	Sample float64 `toml:"sample"`
}

// Alert tells a person.
type Alert struct {
	// Webhook gets events as POST with a JSON body: renewals late, a name paused by its CA, a budget used up, a CA or the storage out of order.
	Webhook Hook `toml:"webhook"`

	// ExpiryFloor is the part of a certificate's life that may be left at most when it is told of.
	ExpiryFloor Fraction `toml:"expiry_floor"`
}

// Process is about starting and ending.
type Process struct {
	// Drain is how long SIGTERM waits for requests that have begun, LameDuck included.
	Drain time.Duration `toml:"drain"`

	// LameDuck is how much of it, at most half, goes on accepting while load balancers that ask /readyz hear no. Zero: none.
	LameDuck  time.Duration `toml:"lame_duck"`
	LongLived time.Duration `toml:"long_lived"` // of WebSockets and streams whose site a reload sent elsewhere, or took away; zero: as long as they like
	Upgrade   string        `toml:"upgrade" enum:"handover|off"`
}
