package config

import (
	"os"
	"path/filepath"
	"time"
)

const day = 24 * time.Hour

// letsEncrypt is the CA of those who name none.
const letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// Default returns the configuration of an empty file: what config.example.toml shows, and Let's Encrypt as the only CA.
func Default() *Config {
	if os.Geteuid() == 0 {
		return defaultsAt(systemPaths())
	}
	return defaultsAt(userPaths())
}

func defaultsAt(p paths) *Config {
	c := &Config{
		Version: 1,
		Listen: Listen{
			HTTP:          []Address{":80"},
			HTTPS:         []Address{":443"},
			HTTP3:         true,
			Redirect:      true,
			ProxyProtocol: "off",
			Limits: Limits{
				UnknownNamesPerIP: Rate{Count: 5, Per: time.Second},
				HandshakeTimeout:  10 * time.Second,
				HeaderTimeout:     10 * time.Second,
				IdleTimeout:       2 * time.Minute,
				BodyRate:          Rate{Count: 128, Per: time.Second},
				HeaderBytes:       64 << 10,
			},
		},
		TLS: TLS{
			MinVersion:     "1.2",
			Groups:         []string{"X25519MLKEM768", "X25519", "P-256"},
			UnknownName:    "alert",
			SessionTickets: "shared",
		},
		InternalCA: InternalCA{Lifetime: 7 * day},
		Issue: Issue{
			Keys:       []string{"ecdsa-p256"},
			Challenges: []string{"tls-alpn-01", "http-01"},
			RenewAt:    Fraction{Num: 2, Den: 3},
			ARI:        true,
			Spread:     true,
			Abandon:    Abandon{WhenDenied: 7 * day, WhenDNSAway: 14 * day},
			Failover:   Failover{After: 5, BackAfter: day},
			Preflight:  "advise",
			Backoff:    []time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, day},
			Budget: Budget{
				NewOrders: Rate{Count: 250, Per: 3 * time.Hour}, PerRegisteredDomain: Rate{Count: 40, Per: 7 * day},
				FailuresPerName: Rate{Count: 4, Per: time.Hour}, PerTenant: Rate{Count: 50, Per: day}, InFlight: 32, ReserveForRenewals: 30,
			},
		},
		OnDemand: OnDemand{
			AskTimeout: 2 * time.Second,
			AllowTTL:   10 * time.Minute,
			DenyTTL:    time.Minute,

			StaleIfError: 7 * day,

			MaxWait:    20 * time.Second,
			OnWait:     "close",
			Background: true,
			IdleAfter:  60 * day,
		},
		Storage: Storage{
			Kind: "disk",
			Path: p.data,
			S3:   S3{Credentials: "auto", ConditionalWrites: "require"},
		},
		Cache:   Cache{Memory: 256 << 20, Preload: "hot", Negative: time.Minute},
		Admin:   Admin{Listen: p.admin, Metrics: "127.0.0.1:9180"},
		Log:     Log{Format: "json", Level: "info", Access: "stdout", Redact: []string{"Authorization", "Cookie"}},
		Trace:   Trace{Sample: 0.01},
		Alert:   Alert{ExpiryFloor: Fraction{Num: 1, Den: 6}},
		Process: Process{Drain: 30 * time.Second, LameDuck: 10 * time.Second, LongLived: time.Hour, Upgrade: "handover"},
	}
	ca := CA{Name: "letsencrypt", Directory: letsEncrypt}
	ca.setDefaults()
	c.CAs = []CA{ca}
	return c
}

// DefaultUpstream returns an upstream with what a site has whose `to` is a URL.
func DefaultUpstream() Upstream {
	var u Upstream
	u.setDefaults()
	return u
}

func (c *CA) setDefaults() {
	c.ACMEVersion = "auto"
	c.HTTPPort = 80
	c.AgreeTerms = true
}

func (u *Upstream) setDefaults() {
	u.Balance = "p2c"
	u.Retries = Retries{Max: 1, On: []string{"connect", "502", "503"}, Methods: []string{"GET", "HEAD", "OPTIONS"}, Budget: 10}
	u.Health = Health{Every: 5 * time.Second, Timeout: 2 * time.Second, Rise: 2, Fall: 3}
	u.Passive = Passive{Fails: 5, Within: 10 * time.Second, OutFor: 10 * time.Second}
	u.Queue = Queue{Max: 256, Wait: 5 * time.Second}
	u.ResolveEvery = 10 * time.Second
	u.Timeouts = UpstreamTimeouts{Connect: 3 * time.Second, ResponseHeader: time.Minute, Idle: 5 * time.Minute}
	u.TLS.Verify = true
}

func (s *Site) setDefaults() { s.AccessLog = true }

// paths are the defaults that depend on who we are. They are empty if there is no place: then they must be given.
type paths struct{ data, admin string }

// systemPaths are root's; see hier(7).
func systemPaths() paths {
	return paths{data: "/var/lib/gatelodge", admin: "unix:///run/gatelodge/admin.sock"}
}

// userPaths follow the XDG Base Directory Specification. A user without a home gets nothing below /tmp, where a folder could be somebody else's.
func userPaths() paths {
	var p paths
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		p.data = filepath.Join(dir, "gatelodge")
	} else if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) {
		p.data = filepath.Join(home, ".local", "share", "gatelodge")
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		p.admin = "unix://" + filepath.Join(dir, "gatelodge", "admin.sock")
	} else if p.data != "" {
		p.admin = "unix://" + filepath.Join(p.data, "admin.sock")
	}
	return p
}
