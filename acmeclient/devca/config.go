package devca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Config says where the CA lives and how it behaves. The zero value is a CA in memory on a free port of 127.0.0.1 that can validate nothing until
// HTTPAddr or TLSAddr are set (also later, by CA.SetTargets).
type Config struct {
	// Dir keeps root, intermediate, accounts and issued certificates over a restart. It is made if missing (0700). Empty means memory only.
	Dir string

	// Protocols says which versions of ACME are spoken, and where. Empty means ProtocolsV2.
	Protocols Protocols

	// V1 are the switches by which Let's Encrypt took its v1 service down; CA.SetV1 changes them later.
	V1 V1Switches

	// Addr is where to listen, on loopback only; anything else is an error. Empty means 127.0.0.1:0. Port 0 is a free port, with a Dir the one
	// of the last start if it is still free, so that account URLs stay true.
	Addr string

	// PlainHTTP serves http instead of https. By default the CA serves https with a certificate under its own root.
	PlainHTTP bool

	// HTTPAddr and TLSAddr are where http-01 and tls-alpn-01 connect to, for every name: the proxy's two loopback addresses. Empty: the challenge
	// type is not offered.
	HTTPAddr, TLSAddr string

	// DNSAddr is the loopback address of a DNS server to ask for dns-01. Empty: dns-01 is not offered and wildcards are rejected.
	DNSAddr string

	// Lifetime of a certificate. Zero means 90 days.
	Lifetime time.Duration

	// Profiles are what newOrder may ask for (draft-ietf-acme-profiles), by name. Empty: the directory has none.
	Profiles map[string]Profile

	// ReuseAuthorizations hands out an account's valid authorization of a name again. Off, every order is validated anew.
	ReuseAuthorizations bool

	// ProcessingTime is how long an order stays in "processing" after finalize. Zero: finalize answers with the valid order. Over v1 it is how
	// long new-cert's Location answers 202; zero: new-cert answers with the certificate, as Boulder always did.
	ProcessingTime time.Duration

	// RetryAfter is sent with orders in processing and authorizations under validation, in whole seconds. Zero: not sent.
	RetryAfter time.Duration

	// RenewalWindow decides the suggested window of RFC 9773. Nil means two thirds of the lifetime, give or take 1 %; a revoked certificate's
	// window has always passed.
	RenewalWindow func(leaf *x509.Certificate) (start, end time.Time)

	// Dial replaces net.Dialer for validation; tests in a synctest bubble return a net.Pipe. It gets HTTPAddr, TLSAddr or DNSAddr as address.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// Policy refuses names by an error, whose text the client is told. Nil refuses nothing.
	Policy func(name string) error

	// RateLimit is asked before newOrder and, over v1, before a new authorization (new-authz) and new-cert; a limit makes the answer 429. Nil: no limit.
	RateLimit func(endpoint string, names []string) *Limit

	// Fault is called before each endpoint with its name as Stats counts it (newOrder, finalize, ...) and reports whether it has answered.
	Fault func(w http.ResponseWriter, r *http.Request, endpoint string) bool

	// Log receives one readable line for each account, order, authorization and certificate. Nothing secret. Nil: no log.
	Log io.Writer
}

// Limit is a rate limit that was hit.
type Limit struct {
	Detail     string
	RetryAfter time.Duration // zero: not sent, as over v1
}

// Protocols are the versions a CA speaks.
type Protocols string

const (
	// ProtocolsV2 is RFC 8555 alone.
	ProtocolsV2 Protocols = "v2"

	// ProtocolsV1 is Let's Encrypt's protocol before the RFC alone. CA.Upgrade turns the same directory URL into v2's, as some CAs did.
	ProtocolsV1 Protocols = "v1"

	// ProtocolsBeside is v1 at DirectoryURLV1, for ever, and nothing (404) at DirectoryURL until CA.Upgrade, as Let's Encrypt did.
	ProtocolsBeside Protocols = "beside"
)

// V1Switches are the steps of v1's end at Let's Encrypt. They do not touch v2.
type V1Switches struct {
	// NoNewRegistrations: new-reg of an unknown key is 403 unauthorized (November 2019).
	NoNewRegistrations bool

	// NoNewNames: new-authz of a name that the account has no certificate for is 403 unauthorized (June 2020).
	NoNewNames bool

	// Brownout is the detail of a problem document that answers every request over v1 with 403 serverInternal, the directory included, without a
	// nonce and without a status member (2021). Empty: no brownout.
	Brownout string
}

// Profile is one kind of certificate on offer.
type Profile struct {
	Description string        // shown in the directory
	Lifetime    time.Duration // zero means Config.Lifetime
}

const (
	defaultLifetime = 90 * 24 * time.Hour

	// What Let's Encrypt's classic profile uses; nothing here depends on the exact values.
	orderLifetime        = 7 * 24 * time.Hour
	pendingAuthzLifetime = 7 * 24 * time.Hour
	validAuthzLifetime   = 30 * 24 * time.Hour

	maxNames = 100

	validationTimeout = 5 * time.Second
)

func (c Config) withDefaults() Config {
	if c.Protocols == "" {
		c.Protocols = ProtocolsV2
	}
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	if c.Lifetime == 0 {
		c.Lifetime = defaultLifetime
	}
	if c.Dial == nil {
		c.Dial = dialLoopback
	}
	if c.Log == nil {
		c.Log = io.Discard
	}
	return c
}

func (c Config) check() error {
	var errs []error
	for _, a := range []struct{ what, addr string }{
		{"Addr", c.Addr}, {"HTTPAddr", c.HTTPAddr}, {"TLSAddr", c.TLSAddr}, {"DNSAddr", c.DNSAddr},
	} {
		if a.addr == "" {
			continue
		}
		if _, err := resolveLoopback(a.addr); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a.what, err))
		}
	}
	switch c.Protocols {
	case ProtocolsV2, ProtocolsV1, ProtocolsBeside:
	default:
		errs = append(errs, fmt.Errorf("protocols %q: want %s, %s or %s", c.Protocols, ProtocolsV2, ProtocolsV1, ProtocolsBeside))
	}
	// An X.509 time has whole seconds, so a shorter life would end as it begins.
	if c.Lifetime < 2*time.Second {
		errs = append(errs, fmt.Errorf("lifetime %v is below 2 s", c.Lifetime))
	}
	for name, p := range c.Profiles {
		if p.Lifetime != 0 && p.Lifetime < 2*time.Second {
			errs = append(errs, fmt.Errorf("profile %s: lifetime %v is below 2 s", name, p.Lifetime))
		}
	}
	return errors.Join(errs...)
}
